# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time changes the devices of a bus: a file lock that says who holds it.

The kernel drops the lock when its holder ends, however it ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import sys
import time
from typing import Iterator

from .errors import NotPermitted, RunInProgress, errno_words
from .wait import SYSTEM_CLOCK, Clock, poll


@contextlib.contextmanager
def held(path: str, wait_s: float, clock: Clock = SYSTEM_CLOCK) -> Iterator[None]:
    """Hold the lock file; wait up to ``wait_s`` seconds for another run. Raises RunInProgress, NotPermitted."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise NotPermitted(
            "The lock file %s cannot be opened: %s." % (path, errno_words(error)),
            "Run as root (become: true).",
            errno=error.errno,
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotPermitted("The lock file %s is not a file." % path, "Remove what is there.", path=path)
        try:
            poll(lambda: _locked(descriptor), wait_s, 0.05, clock)
        except TimeoutError as error:
            raise _in_progress(descriptor, path) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(_self()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _self() -> dict[str, object]:
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {"pid": os.getpid(), "command": os.path.basename(sys.argv[0]), "since": since}


def _in_progress(descriptor: int, path: str) -> RunInProgress:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = "process %s (%s) since %s" % (holder["pid"], holder["command"], holder["since"])
    except (ValueError, KeyError, TypeError, RecursionError):
        holder, who = {}, "an unnamed process"
    return RunInProgress(
        "Another run is working on these devices: %s holds %s." % (who, path),
        "Wait until it ends, or let this run wait for it with busy: wait.",
        holder=holder,
        path=path,
    )
