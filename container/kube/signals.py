# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Signals that are heard at once, whatever the main thread waits for.

Python runs handlers in the main thread, between two of its steps. A signal that comes right before the thread begins to
wait, or that another thread gets, interrupts no wait: its handler would run when the wait is over.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

AGAIN_S = 0.1
STOPS = (signal.SIGTERM, signal.SIGINT)


def end_at_once() -> None:
    """Until there is another handler, a stop ends the process, which has done nothing yet.

    The kernel keeps a signal without a handler from a container's first process, and to import a program takes a while.
    """
    for one in STOPS:
        signal.signal(one, lambda *_: os._exit(0))


@contextlib.contextmanager
def heard(numbers: Sequence[signal.Signals], handler: Callable[[], None]) -> Iterator[None]:
    """While this lasts, call ``handler`` in the main thread, in which this is begun, soon after the first signal."""
    reader, writer = socket.socketpair()
    writer.setblocking(False)  # Python writes to it from within the signal
    done = threading.Event()
    main_thread = threading.get_ident()

    def handle(*_signal: object) -> None:
        done.set()
        handler()

    def insist() -> None:
        """Interrupt the main thread again and again until it has heard."""
        with contextlib.suppress(OSError):  # the end
            for number in reader.recv(1):
                while not done.wait(AGAIN_S):
                    signal.pthread_kill(main_thread, number)

    before = {number: signal.signal(number, handle) for number in numbers}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=insist, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, one in before.items():
            signal.signal(number, one)
        done.set()
        writer.close()
        thread.join()
        reader.close()
