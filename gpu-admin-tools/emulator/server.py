# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The server: one thread, one event loop, every device of a node.

One thread, because the emulator shares its processors with what is being measured and because a device then needs no
lock. Nothing runs while nobody asks: devices work out what time has done to them when they are touched.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .connection import Dropped, Port
from .control_server import ControlServer
from .device import Device
from .faults import Access, Fault, FaultSet
from .journal import Journal
from .loop import EventLoop
from .node import Node
from .state_file import StateFile
from .trace import EVENTS
from .virtual_function import VirtualFunction


class Server:
    """Serves a node's devices until stopped."""

    def __init__(
        self,
        node: Node,
        sockets_dir: str | Path,
        *,
        faults: Iterable[Fault] = (),
        log: str | Path | None = None,
        state: str | Path | None = None,
        control: str | Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.node = node
        self.loop = EventLoop(clock)
        self.faults = FaultSet(faults)
        self.journal: Journal | None = None
        self._state: StateFile | None = None
        self._control: ControlServer | None = None
        self.ports: dict[str, Port] = {}
        self.devices: dict[str, Device] = {}
        for spec in node.devices:
            if spec.physical_function is None:
                self.devices[spec.address] = Device(spec, self, clock)
            else:
                physical = self.devices[spec.physical_function]
                self.devices[spec.address] = VirtualFunction(spec, self, physical, clock)
        saved = StateFile(Path(state)) if state is not None else None
        for address, knobs in (saved.load() if saved else {}).items():
            if address in self.devices:
                self.devices[address].load_knobs(knobs)
        self._state = saved
        self.sockets_dir = Path(sockets_dir)
        try:
            self._open(log, control)
        except BaseException:
            self.close()
            raise

    def _open(self, log: str | Path | None, control: str | Path | None) -> None:
        if log is not None:
            self.journal = Journal(Path(log), self.loop.clock)
        self.sockets_dir.mkdir(parents=True, exist_ok=True)
        for address, device in self.devices.items():
            self.ports[address] = Port(
                self.loop, self.faults, self.journal, device, self.sockets_dir / f"{address}.sock"
            )
        if control is not None:
            self._control = ControlServer(self, Path(control))
        self.knobs_changed()

    def run(self) -> None:
        """Serve until `stop`."""
        try:
            self.loop.run()
        finally:
            self.close()

    def stop(self) -> None:
        """End `run`; may be called from a signal handler or another thread."""
        self.loop.stop()

    def close(self) -> None:
        """Close connections, remove sockets, save what has to be saved; harmless when called again."""
        if self.loop.closed:
            return
        if self._control is not None:
            self._control.close()
        for port in self.ports.values():
            port.close()
        self.knobs_changed()
        if self.journal is not None:
            self.journal.close()
        self.loop.close()

    # --- what devices ask of their host ---------------------------------------------------------------------------

    def fire(self, device: Device, event: str, knob: str | None = None, access: Access | None = None) -> list[Fault]:
        """The faults that strike on an event."""
        return self.faults.fire(event, device.address, knob, access)

    def perform(self, device: Device, fault: Fault) -> None:
        """Do what a fault does to connections or power, then give up the access it struck."""
        port = self.ports[device.address]
        if fault.action == "kill_client":
            port.kill_client()
        elif fault.action == "disconnect":
            port.drop()
        elif fault.action == "hang":
            port.hang()
        elif fault.action == "power_cut":
            self.cut_power([device.address])
        elif fault.action == "power_cut_all":
            self.cut_power(self.devices)
        elif fault.action in ("drip", "babble"):
            port.misbehave(fault.action, fault.seconds)
            return
        raise Dropped

    def cut_power(self, addresses: Iterable[str]) -> None:
        """Power off and on: the connections break, virtual functions' too; the devices boot with their knobs."""
        chosen = set(addresses)
        whose = {address: device.spec.physical_function for address, device in self.devices.items()}
        for address in [address for address in self.devices if address in chosen or whose[address] in chosen]:
            self.ports[address].drop()
            with contextlib.suppress(Dropped):
                self.devices[address].power_on()

    def note(self, device: Device, op: str, **details: object) -> None:
        """Trace what a client made the device do; log everything, if there is a log."""
        port = self.ports.get(device.address)
        client = port.client_pid if port else None
        if port is not None and op in EVENTS:
            port.trace.append((self.loop.clock(), client, {"op": op, **details}))
        if self.journal is not None:
            self.journal.add(device.address, client, op, **details)

    def knobs_changed(self) -> None:
        """Save the persistent state, if it is kept."""
        if self._state is not None:
            self._state.save({address: device.knobs.named() for address, device in self.devices.items()})

    def settle(self) -> None:
        """Let every device catch up with the time, before somebody looks at all of them."""
        for device in self.devices.values():
            with contextlib.suppress(Dropped):
                device.advance(self.loop.clock())
        if self.journal is not None:
            self.journal.flush()
