# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One CC manager at work on a node: a file lock on the host, held for as long as the process lives.

A pod that was deleted by force, or whose node was cut off, may still work when the next one starts. Two that follow the
same label put components back under each other's changes; the lock of a run only keeps their writes apart. Where the
lock cannot be had nothing is done: whether another CC manager is at work is not known then.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)
NAME = ".cc-manager.lock"
AGAIN_S = 1.0


class Alone:
    """The lock, in a folder of the host. The kernel drops it when the process ends, however it ends."""

    def __init__(self, folder: str, again_s: float = AGAIN_S) -> None:
        self._path = os.path.join(folder, NAME)
        self._again_s = again_s
        self._descriptor: int | None = None
        self._released = threading.Event()
        self._said = ""

    def take(self, taken: Callable[[], None]) -> None:
        """Call ``taken`` when the lock is held: at once, or later and from a thread, as soon as it can be had."""
        if self._try():
            taken()
        else:
            threading.Thread(target=self._wait, args=(taken,), name="lock", daemon=True).start()

    def release(self) -> None:
        """Let the next one work."""
        self._released.set()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _wait(self, taken: Callable[[], None]) -> None:
        while not self._released.wait(self._again_s):
            if self._try():
                taken()
                return

    def _try(self) -> bool:
        try:
            self._descriptor = _locked(self._path)
        except BlockingIOError:
            self._say(f"Another CC manager works on this node; waiting for its end. It holds {self._path}.")
        except OSError as error:
            self._say(
                f"Whether another CC manager works on this node is not known, so nothing is done: {error}. "
                f"Let {os.path.dirname(self._path)} be a folder of the host that this process can write to."
            )
        return self._descriptor is not None

    def _say(self, text: str) -> None:
        """Once, and not at each try."""
        if text != self._said:
            LOG.warning("%s", text)
        self._said = text


def _locked(path: str) -> int:
    """The open, locked file. Raises OSError; BlockingIOError when somebody else holds it."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    # Others may be able to write to the folder: no link is followed, and a pipe is not waited for.
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{path} is not a file of this user; remove it")
        os.fchmod(descriptor, 0o600)  # whoever can open it can hold it
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.lstat(path), found):
            raise BlockingIOError(f"{path} was removed and made again")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
