# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A virtual function (SR-IOV): a device of its own for its user, and there only as long as its physical function is.

It has no security processor and no mode; its BAR0 says in `NV_PMC_BOOT_1` that it is virtual. A reset of the physical
function, or its VF Enable bit, takes it away; when it is there again, it is as after a reset of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .device import Device, Host
from .spec import DeviceSpec


class VirtualFunction(Device):
    """One virtual function behind one socket."""

    __slots__ = ("_absent", "_index", "_physical")

    def __init__(
        self, spec: DeviceSpec, host: Host, physical: Device, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._physical = physical
        self._index = len(physical.virtual_functions)
        self._absent = False
        super().__init__(spec, host, clock)
        physical.virtual_functions.append(self)

    def _is_absent(self) -> bool:
        return self._absent

    def follow(self) -> None:
        """Go or come back with the physical function."""
        absent = not self._physical.lets_be(self._index)
        if absent and not self._absent:
            self.counters.resets += 1
            self._host.note(self, "reset", kind="physical function")
            self._lose_everything()
        self._absent = absent
        self._refresh()

    def power_on(self) -> None:
        """Power is the physical function's; what this one had is lost."""
        self._lose_everything()
        self._refresh()

    def _lose_everything(self) -> None:
        self.config.reset()
        self._lose_volatile_state(bus=True)

    def advance(self, now: float) -> None:
        """Let everything happen whose time has come, in the physical function first."""
        if now >= self._physical.deadline:
            self._physical.advance(now)
        super().advance(now)

    def _set_deadline(self) -> None:
        super()._set_deadline()
        self.deadline = min(self.deadline, self._physical.deadline)
