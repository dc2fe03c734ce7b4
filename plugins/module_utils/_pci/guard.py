# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What code that is not ours reads a function through: bounded, and with an eye on whether the function is still there.

A function that has gone reads as all ones, which such code may take for a list without end, for a status, or for a
mode. An operation that goes on and on is ended, whatever it waits for.
"""

from __future__ import annotations

from .._core.wait import SYSTEM_CLOCK, Clock
from .bus import SANITY_OFFSET, VENDOR_ID, Function, Space
from .errors import DeviceGone

ALL_ONES = 0xFFFFFFFF
# The longest that NVIDIA's tool may rightly take for one operation is about 40 s: firewall 15 s, boot 10 s, twice 5 s
# for an answer of the FSP, 1 s for a queue. It then makes about 18,000 accesses, most of them in 1 ms polls.
OPERATION_LIMIT_S = 60.0
OPERATION_LIMIT_ACCESSES = 30_000
# How many accesses go by between two looks at the clock. A read of a dead device takes up to 50 ms (PCI Express
# completion time-out).
LOOK_EVERY_ACCESSES = 64


class Guard:
    """The budget of one operation on a function, shared by the function's spaces."""

    def __init__(self, function: Function, clock: Clock = SYSTEM_CLOCK) -> None:
        self._function = function
        self._clock = clock
        self.saw_ones = False
        self.until_look = LOOK_EVERY_ACCESSES
        self.begin()

    def begin(self) -> None:
        """A new operation: a full budget, and nothing seen."""
        self.saw_ones = False
        self.until_look = LOOK_EVERY_ACCESSES
        self._accesses = 0
        self._since = self._clock.now()

    def look(self) -> None:
        """Raise DeviceGone if the operation has used up its budget."""
        self.until_look = LOOK_EVERY_ACCESSES
        self._accesses += LOOK_EVERY_ACCESSES
        passed = self._clock.now() - self._since
        if self._accesses < OPERATION_LIMIT_ACCESSES and passed < OPERATION_LIMIT_S:
            return
        raise DeviceGone(
            "%s: one operation has made %d register accesses in %.0f s without an end: the device answers nonsense."
            % (self._function.address, self._accesses, passed),
            "Power-cycle the device; update its firmware if it stays.",
            device=self._function.address,
            accesses=self._accesses,
        )

    def ones(self) -> None:
        """All ones were read: raise DeviceGone if the function is no longer there."""
        self.saw_ones = True
        self.check_there()

    def check_there(self) -> None:
        """Raise DeviceGone if nobody answers in config space."""
        check_there(self._function)


class Guarded(Space):
    """A space of the function, counted and looked at."""

    def __init__(self, guard: Guard, space: Space) -> None:
        self._guard = guard
        self._read = space.read
        self._write = space.write
        self.size = space.size

    def read(self, offset: int, size: int) -> int:
        """As the space itself. Raises DeviceGone."""
        guard = self._guard
        guard.until_look -= 1
        if not guard.until_look:
            guard.look()
        value = self._read(offset, size)
        if value == ALL_ONES:
            guard.ones()
        return value

    def write(self, offset: int, data: int, size: int) -> None:
        """As the space itself. Raises DeviceGone."""
        guard = self._guard
        guard.until_look -= 1
        if not guard.until_look:
            guard.look()
        self._write(offset, data, size)


def check_there(function: Function) -> None:
    """Raise DeviceGone for an open function whose config space reads as all ones."""
    for register in (SANITY_OFFSET, VENDOR_ID):
        if function.config.read16(register) == 0xFFFF:
            raise DeviceGone(
                "%s: the device has fallen off the bus: config space at 0x%x reads 0xffff."
                % (function.address, register),
                "Look for PCIe errors in the kernel's log; power-cycle the host.",
                device=function.address,
                register=register,
                value=0xFFFF,
            )
