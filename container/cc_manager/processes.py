# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: to end them all, by their ids, and to bury those that nobody waits for.

Ansible's workers and modules are in sessions and process groups of their own; what they have in common is a variable
that they inherit. Only processes below this one are looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

# From the request to end to the kill.
GRACE_S = 1.0
LOOK_S = 0.05


def below(pid: int) -> Iterator[int]:
    """The children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is gone
            # "4711 (a name, with any character) S 1 ...": the parent is the second field behind the name.
            parent = (one / "stat").read_bytes().rpartition(b")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(one.name))
    left = [pid]
    while left:
        found = children.pop(left.pop(), [])
        yield from found
        left += found


def marked(mark: bytes) -> dict[int, int]:
    """The processes below this one with ``NAME=value`` in their environment: a descriptor for each id.

    The descriptor stands for that process even when another has its id by then. The caller closes it.
    """
    found = {}
    for pid in below(os.getpid()):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found[pid] = descriptor
            else:
                os.close(descriptor)
    return found


def end(mark: bytes, over: threading.Event) -> None:
    """Ask the marked processes to end, then kill them, until ``over`` is set: by whoever waits for them."""
    how, waited_s = signal.SIGTERM, 0.0
    asked: set[int] = set()
    while True:
        for pid, descriptor in marked(mark).items():
            if pid not in asked or how == signal.SIGKILL:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(descriptor, how)
                asked.add(pid)
            os.close(descriptor)
        if over.wait(LOOK_S):
            return
        waited_s += LOOK_S
        if waited_s >= GRACE_S:
            how = signal.SIGKILL


class Orphans:
    """A container's first process inherits every process whose parent ended first, and has to bury it.

    Whoever started a process waits for it; so nothing is taken from him as long as he is at it. ``gets_them``: this is
    such a process.
    """

    def __init__(self, gets_them: bool) -> None:
        self._gets_them = gets_them
        self._lock = threading.Lock()
        self._waiting = 0

    @contextlib.contextmanager
    def someone_waits(self) -> Iterator[None]:
        """While somebody waits for children of his own. At the last one's end the dead are buried."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting and self._gets_them:
                    _bury()


def _bury() -> None:
    with contextlib.suppress(ChildProcessError):  # there are no children
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
