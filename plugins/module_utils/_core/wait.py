# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The one place that waits."""

from __future__ import annotations

import time
from typing import Callable, Optional, TypeVar

Seen = TypeVar("Seen")


class Clock:
    """Seconds that only grow, and a way to let some pass."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that many seconds pass."""
        time.sleep(seconds)


SYSTEM_CLOCK = Clock()


def poll(until: Callable[[], Optional[Seen]], timeout_s: float, every_s: float, clock: Clock = SYSTEM_CLOCK) -> Seen:
    """Ask ``until`` every ``every_s`` seconds, at least once, and return its first true answer.

    Raises TimeoutError when ``timeout_s`` have passed without one.
    """
    deadline = clock.now() + timeout_s
    while True:
        seen = until()
        if seen:
            return seen
        if clock.now() >= deadline:
            raise TimeoutError("nothing after %g s" % timeout_s)
        clock.sleep(every_s)
