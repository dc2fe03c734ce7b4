# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One thread that waits for sockets and for the time."""

from __future__ import annotations

import contextlib
import heapq
import os
import select
import time
from collections.abc import Callable

EPOLLIN, EPOLLOUT = select.EPOLLIN, select.EPOLLOUT


class EventLoop:
    """Calls handlers when descriptors are ready and actions when their time has come, until stopped."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._stopping = False
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_number = 0
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self._wake, lambda _events: None)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._poll.closed

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
        """Wait and call until `stop`."""
        handlers, poll = self._handlers, self._poll.poll
        while not self._stopping:
            timeout = max(0.0, self._timers[0][0] - self.clock()) if self._timers else -1
            for descriptor, events in poll(timeout):
                # An earlier handler of this round may have closed the descriptor.
                handler = handlers.get(descriptor)
                if handler is not None:
                    handler(events)
            while self._timers and self._timers[0][0] <= self.clock():
                heapq.heappop(self._timers)[2]()

    def stop(self) -> None:
        """End `run`; may be called from a signal handler or another thread."""
        self._stopping = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._wake)
        self._poll.close()
