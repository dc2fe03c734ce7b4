# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The server: one thread, one event loop, every device of a node.

One thread, because the emulator shares its processors with what is being measured and because a device then needs no
lock. Nothing runs while nobody asks: devices work out what time has done to them when they are touched.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .connection import EPOLLIN, Dropped, Port
from .control_server import ControlServer
from .device import Device
from .faults import Fault, FaultSet
from .journal import Journal
from .node import Node
from .state_file import StateFile


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
        self.clock = clock
        self.faults = FaultSet(faults)
        self.journal: Journal | None = None
        self._state: StateFile | None = None
        self._stopping = False
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._control: ControlServer | None = None
        self.ports: dict[str, Port] = {}
        self.devices = {spec.address: Device(spec, self, clock) for spec in node.devices}
        saved = StateFile(Path(state)) if state is not None else None
        for address, knobs in (saved.load() if saved else {}).items():
            if address in self.devices:
                self.devices[address].load_knobs(knobs)
        self._state = saved
        self.sockets_dir = Path(sockets_dir)
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, lambda _events: None)
        try:
            self._open(log, control)
        except BaseException:
            self.close()
            raise

    def _open(self, log: str | Path | None, control: str | Path | None) -> None:
        if log is not None:
            self.journal = Journal(Path(log), self.clock)
        self.sockets_dir.mkdir(parents=True, exist_ok=True)
        for address, device in self.devices.items():
            self.ports[address] = Port(self, device, self.sockets_dir / f"{address}.sock")
        if control is not None:
            self._control = ControlServer(self, Path(control))
        self.knobs_changed()

    # --- event loop -----------------------------------------------------------------------------------------------

    def watch(self, descriptor: int, handler: Callable[[int], None], events: int = EPOLLIN) -> None:
        """Call the handler when the descriptor is ready; again to change what is waited for."""
        if descriptor in self._handlers:
            self._poll.modify(descriptor, events)
        else:
            self._poll.register(descriptor, events)
        self._handlers[descriptor] = handler

    def unwatch(self, descriptor: int) -> None:
        """Stop that; does nothing for a descriptor that is not watched."""
        if self._handlers.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def call_at(self, when: float, action: Callable[[], None]) -> None:
        """Run something later."""
        self._timer_number += 1
        heapq.heappush(self._timers, (when, self._timer_number, action))

    def run(self) -> None:
        """Serve until `stop`."""
        handlers, poll = self._handlers, self._poll.poll
        try:
            while not self._stopping:
                timeout = max(0.0, self._timers[0][0] - self.clock()) if self._timers else -1
                for descriptor, events in poll(timeout):
                    # An earlier handler of this round may have closed the descriptor.
                    handler = handlers.get(descriptor)
                    if handler is not None:
                        handler(events)
                while self._timers and self._timers[0][0] <= self.clock():
                    heapq.heappop(self._timers)[2]()
        finally:
            self.close()

    def stop(self) -> None:
        """End `run`; may be called from a signal handler or another thread."""
        self._stopping = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Close connections, remove sockets, save what has to be saved; harmless when called again."""
        if self._poll.closed:
            return
        if self._control is not None:
            self._control.close()
        for port in self.ports.values():
            port.close()
        self.knobs_changed()
        if self.journal is not None:
            self.journal.close()
        os.close(self._wake)
        self._poll.close()

    # --- what devices ask of their host ---------------------------------------------------------------------------

    def fire(self, device: Device, event: str, knob: str | None = None, region: str | None = None) -> list[Fault]:
        """The faults that strike on an event."""
        return self.faults.fire(event, device.address, knob, region)

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
        raise Dropped

    def cut_power(self, addresses: Iterable[str]) -> None:
        """Power off and on: the connections break, the devices boot with their knobs."""
        for address in addresses:
            self.ports[address].drop()
            with contextlib.suppress(Dropped):
                self.devices[address].power_on()

    def note(self, device: Device, op: str, **details: object) -> None:
        """Log something, if there is a log."""
        if self.journal is not None:
            port = self.ports.get(device.address)
            self.journal.add(device.address, port.client_pid if port else None, op, **details)

    def knobs_changed(self) -> None:
        """Save the persistent state, if it is kept."""
        if self._state is not None:
            self._state.save({address: device.knobs.named() for address, device in self.devices.items()})

    def settle(self) -> None:
        """Let every device catch up with the time, before somebody looks at all of them."""
        for device in self.devices.values():
            with contextlib.suppress(Dropped):
                device.advance(self.clock())
        if self.journal is not None:
            self.journal.flush()
