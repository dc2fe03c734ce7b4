# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The control socket's client: what a test says to the emulator behind the back of the code under test."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any


class ControlError(RuntimeError):
    """The emulator refused a request, or is gone."""


class ControlClient:
    """One connection to a running emulator; every method is one request and waits for its answer."""

    def __init__(self, path: str | Path, timeout_s: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise ControlError(f"no emulator at {path}: {error}") from error
        self._received = b""

    def request(self, do: str, **arguments: object) -> dict[str, Any]:
        """Any request, by name."""
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            self._socket.sendall(json.dumps({"do": do, **given}).encode() + b"\n")
            while b"\n" not in self._received:
                data = self._socket.recv(1 << 16)
                if not data:
                    raise ControlError("the emulator closed the control connection")
                self._received += data
        except OSError as error:
            raise ControlError(f"the emulator does not answer: {error}") from error
        line, self._received = self._received.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        if not answer.pop("ok"):
            raise ControlError(answer["error"])
        return answer

    def state(self, device: str | None = None) -> dict[str, Any]:
        """All devices by address, or one."""
        devices: dict[str, Any] = self.request("state")["devices"]
        if device is None:
            return devices
        found: dict[str, Any] = devices[device]
        return found

    def read(self, device: str, region: str, offset: int, size: int) -> bytes:
        """What a client would read of `config`, `bar0` or `bar1`: not counted, not slowed, changing nothing.

        Any number of controllers may look while a client has the device.
        """
        return bytes.fromhex(self.request("read", device=device, region=region, offset=offset, size=size)["data"])

    def config(self, device: str) -> bytes:
        """The whole config space, to compare before and after."""
        return self.read(device, "config", 0, 4096)

    def trace(self, device: str) -> list[dict[str, Any]]:
        """What clients made of the device since `reset_counters` or `restore`, in order.

        Each entry has `t` (seconds), `client` (process id) and `op`: `write` (with region, offset, size, value, whether
        or not it was applied), `knob_read`, `knob_write`, `rpc`, `reset`, `reset_refused`. Raises ControlError when
        there were more than the emulator keeps.
        """
        answer = self.request("trace", device=device)
        if not answer["complete"]:
            raise ControlError(f"{device}: more happened than is kept; call reset_counters before what is looked at")
        entries: list[dict[str, Any]] = answer["entries"]
        return entries

    def set(
        self,
        device: str = "*",
        *,
        knobs: dict[str, int] | None = None,
        active: str | None = None,
        mode: str | None = None,
        power: str | None = None,
    ) -> None:
        """Set knobs, the active mode, or (mode) both so that they agree; the power state: d0, d3hot, d3cold."""
        self.request("set", device=device, knobs=knobs, active=active, mode=mode, power=power)

    def restore(self) -> None:
        """Everything as after the start."""
        self.request("restore")

    def fault(self, **rule: object) -> None:
        """Add a fault rule; keys as in a fault file."""
        self.request("fault", **rule)

    def clear_faults(self) -> None:
        """Drop every fault rule; what they have done stays."""
        self.request("clear_faults")

    def reset_counters(self) -> None:
        """Count from zero, trace again."""
        self.request("reset_counters")

    def power_cycle(self, device: str = "*") -> None:
        """Cut the power and give it back."""
        self.request("power_cycle", device=device)

    def repair(self, device: str = "*") -> None:
        """End what a lasting fault has done; the device boots."""
        self.request("repair", device=device)

    def quit(self) -> None:
        """End the emulator."""
        self.request("quit")

    def close(self) -> None:
        """Close the connection; the emulator goes on."""
        self._socket.close()

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
