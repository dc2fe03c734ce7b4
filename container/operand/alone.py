# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One operand at work on a node: a file lock on the host, held for as long as the process lives.

A pod that was deleted by force, or whose node was cut off, may still work when the next one starts. Two that follow the
same label put components back under each other's changes; the lock of a run only keeps their writes apart.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Callable

LOG = logging.getLogger(__name__)
NAME = ".cc-manager.lock"


class Alone:
    """The lock, in a folder of the host. The kernel drops it when the process ends, however it ends."""

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, NAME)
        self._descriptor: int | None = None

    def take(self, taken: Callable[[], None]) -> None:
        """Call ``taken`` when the lock is held: at once, or later and from a thread when somebody else holds it.

        Where there is no room for a lock, nobody can be waited for: then it is as if it were held.
        """
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.warning("Another operand works on this node; waiting for its end. It holds %s.", self._path)
            threading.Thread(target=self._wait, args=(taken,), name="lock", daemon=True).start()
            return
        except OSError as error:
            LOG.warning("Whether another operand works on this node is not known: %s", error)
        taken()

    def _wait(self, taken: Callable[[], None]) -> None:
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        taken()

    def release(self) -> None:
        """Let the next one work."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
