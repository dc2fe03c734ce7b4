# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The control socket's server side: JSON lines in, one answer each; for tests, never for the code under test."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .connection import Port
from .device import Counters, Device
from .faults import EVERY_DEVICE, FaultError, FaultSet, parse_fault
from .knobs import NAMES, number_of
from .listening import listen
from .loop import EventLoop
from .mode import MODES
from .protocol import MAX_DATA, REGION_BAR0, REGION_BAR1, REGION_CONFIG
from .spec import POWER_STATES

MAX_LINE = 1 << 20
REGIONS = {"config": REGION_CONFIG, "bar0": REGION_BAR0, "bar1": REGION_BAR1}
# Which keys each request takes besides `do`; `fault` checks its own.
REQUESTS: dict[str, frozenset[str]] = {
    "state": frozenset(),
    "read": frozenset({"device", "region", "offset", "size"}),
    "trace": frozenset({"device"}),
    "set": frozenset({"device", "knobs", "active", "mode", "power"}),
    "restore": frozenset(),
    "clear_faults": frozenset(),
    "reset_counters": frozenset(),
    "power_cycle": frozenset({"device"}),
    "repair": frozenset({"device"}),
    "quit": frozenset(),
}


class RequestError(ValueError):
    """A request that is not carried out; the message says why."""


@dataclass(slots=True)
class _Session:
    """One connected controller."""

    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)


class Steered(Protocol):
    """What controllers ask about and steer."""

    loop: EventLoop
    faults: FaultSet
    devices: dict[str, Device]
    ports: dict[str, Port]

    def settle(self) -> None:
        """Let every device catch up with the time."""

    def cut_power(self, addresses: Iterable[str]) -> None:
        """Power off and on."""

    def stop(self) -> None:
        """End."""


class ControlServer:
    """Any number of controllers, served from the server's own loop."""

    def __init__(self, server: Steered, path: Path) -> None:
        self._server = server
        self._path = path
        self._sessions: dict[int, _Session] = {}
        self._listener = listen(path)
        server.loop.watch(self._listener.fileno(), self._on_connect)

    def close(self) -> None:
        """Close everything and remove the socket file."""
        for number in list(self._sessions):
            self._drop(number)
        self._server.loop.unwatch(self._listener.fileno())
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def _on_connect(self, _events: int) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        # Answers are small and the controller waits for them: a blocking send is short, and bounded.
        client.settimeout(5)
        number = client.fileno()
        self._sessions[number] = _Session(client)
        self._server.loop.watch(number, lambda _events: self._on_data(number))

    def _drop(self, number: int) -> None:
        session = self._sessions.pop(number)
        self._server.loop.unwatch(number)
        session.socket.close()

    def _on_data(self, number: int) -> None:
        session = self._sessions[number]
        try:
            data = session.socket.recv(1 << 16)
        except OSError:
            data = b""
        session.received += data
        if not data or len(session.received) > MAX_LINE:
            self._drop(number)
            return
        *lines, rest = bytes(session.received).split(b"\n")
        session.received[:] = rest
        for line in lines:
            try:
                session.socket.sendall(json.dumps(self.answer(line)).encode() + b"\n")
            except OSError:
                self._drop(number)
                return

    def answer(self, line: bytes) -> dict[str, Any]:
        """Carry out one request."""
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise RequestError('a request is a JSON object such as {"do": "state"}')
            return {"ok": True, **self._carry_out(request)}
        except (FaultError, RequestError) as error:
            return {"ok": False, "error": str(error)}
        except (ValueError, RecursionError) as error:
            return {"ok": False, "error": f"the request is not JSON: {error}"}

    def _carry_out(self, request: dict[str, Any]) -> dict[str, Any]:
        do = request.pop("do", None)
        if do == "fault":
            self._server.faults.add(parse_fault(request, self._server.devices))
            return {}
        if not isinstance(do, str) or do not in REQUESTS:
            known = ", ".join(sorted([*REQUESTS, "fault"]))
            raise RequestError(f"do {do!r} is unknown; use one of {known}")
        if unknown := set(request) - REQUESTS[do]:
            raise RequestError(f"{do}: unknown key {', '.join(sorted(unknown))}; use {', '.join(sorted(REQUESTS[do]))}")
        handlers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "state": self._state,
            "read": self._read,
            "trace": self._trace,
            "set": self._set,
            "restore": self._restore,
            "clear_faults": self._clear_faults,
            "reset_counters": self._reset_counters,
            "power_cycle": self._power_cycle,
            "repair": self._repair,
            "quit": self._quit,
        }
        return handlers[do](request)

    def _chosen(self, request: Mapping[str, Any]) -> list[Device]:
        address = request.get("device", EVERY_DEVICE)
        devices = self._server.devices
        if address == EVERY_DEVICE:
            return list(devices.values())
        if not isinstance(address, str) or address not in devices:
            raise RequestError(f'device {address!r} is not in this node; use "*" or one of {", ".join(devices)}')
        return [devices[address]]

    def _state(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._server.settle()
        ports = self._server.ports
        return {
            "devices": {
                address: {**device.state(), "pid": ports[address].client_pid}
                for address, device in self._server.devices.items()
            }
        }

    def _one(self, request: Mapping[str, Any], do: str) -> Device:
        address = request.get("device")
        devices = self._server.devices
        if not isinstance(address, str) or address not in devices:
            raise RequestError(f"{do}: device must be one of {', '.join(devices)}, not {address!r}")
        return devices[address]

    def _read(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a client would read, without counting, faults, latency or what a read changes."""
        device = self._one(request, "read")
        region, offset, size = request.get("region"), _count(request, "offset"), _count(request, "size")
        if not isinstance(region, str) or region not in REGIONS:
            raise RequestError(f"read: region must be one of {', '.join(REGIONS)}, not {region!r}")
        reach = self._server.ports[device.address].reach.get(REGIONS[region], 0)
        if not 0 < size <= MAX_DATA or offset + size > reach:
            raise RequestError(
                f"read: {region} has {reach} bytes, of which {size} at {offset} cannot be read; {MAX_DATA} at once"
            )
        self._server.settle()
        return {"data": device.peek(region, offset, size).hex()}

    def _trace(self, request: dict[str, Any]) -> dict[str, Any]:
        """What clients made of one device since the counters were reset."""
        trace = self._server.ports[self._one(request, "trace").address].trace
        return {"entries": trace.entries(), "complete": trace.complete}

    def _set(self, request: dict[str, Any]) -> dict[str, Any]:
        devices = self._chosen(request)
        values = _knobs(request.get("knobs", {}))
        for key in ("mode", "active"):
            if request.get(key) is not None and request[key] not in MODES:
                raise RequestError(f"set: {key} must be one of {', '.join(MODES)}, not {request[key]!r}")
        power = request.get("power")
        if power is not None and power not in POWER_STATES:
            raise RequestError(f"set: power must be one of {', '.join(POWER_STATES)}, not {power!r}")
        if power is not None and any(device.spec.physical_function for device in devices):
            raise RequestError("set: a virtual function has no power of its own; set its physical function's")
        for device in devices:
            if power is not None:
                device.set_power(power)
            if request.get("mode") is not None:
                device.set_mode(request["mode"])
            if values:
                device.knobs.store(values)
            if request.get("active") is not None:
                device.set_active(request["active"])
        return {}

    def _restore(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._server.faults.clear()
        for address, device in self._server.devices.items():
            self._server.ports[address].wake()
            self._server.ports[address].drop()
            device.restore()
            self._server.ports[address].trace.clear()
        return {}

    def _clear_faults(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._server.faults.clear()
        return {}

    def _reset_counters(self, _request: dict[str, Any]) -> dict[str, Any]:
        for address, device in self._server.devices.items():
            device.counters = Counters()
            self._server.ports[address].trace.clear()
        return {}

    def _power_cycle(self, request: dict[str, Any]) -> dict[str, Any]:
        self._server.cut_power([device.address for device in self._chosen(request)])
        return {}

    def _repair(self, request: dict[str, Any]) -> dict[str, Any]:
        for device in self._chosen(request):
            device.repair()
            self._server.ports[device.address].wake()
        return {}

    def _quit(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._server.stop()
        return {}


def _count(request: Mapping[str, Any], key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RequestError(f"read: {key} must be a whole number from 0 up, not {value!r}")
    return value


def _knobs(raw: object) -> dict[int, int]:
    if not isinstance(raw, Mapping):
        raise RequestError('set: knobs must be an object such as {"CCM": 1}')
    found: dict[int, int] = {}
    for name, value in raw.items():
        number = number_of(name)
        if number is None:
            raise RequestError(f"set: knob {name!r} is unknown; use one of {', '.join(NAMES.values())}")
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 0xFFFF:
            raise RequestError(f"set: knob {name} must be a whole number from 0 to 65535, not {value!r}")
        found[number] = value
    return found
