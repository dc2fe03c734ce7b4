# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time changes a thing: a file lock that says who holds it.

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
from typing import Iterator, NamedTuple

from .errors import NotPermitted, RunInProgress, errno_words
from .wait import SYSTEM_CLOCK, Clock, poll


class Locked(NamedTuple):
    """What a lock is for: what another run is doing, and what to do about it."""

    doing: str
    remedy: str


DEVICES = Locked("working on these devices", "Wait until it ends, or let this run wait for it with busy: wait.")


@contextlib.contextmanager
def held(path: str, wait_s: float, clock: Clock = SYSTEM_CLOCK, what: Locked = DEVICES) -> Iterator[None]:
    """Hold the lock file; wait up to ``wait_s`` seconds for another run. Raises RunInProgress, NotPermitted."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Only root may know the holder, and nobody else may hold it. Without O_NONBLOCK a FIFO would keep us waiting.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise NotPermitted(
            "The lock file %s cannot be opened: %s." % (path, errno_words(error)),
            "Run as root (become: true).",
            path=path,
            errno=error.errno,
        ) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotPermitted("The lock file %s is not a file." % path, "Remove what is there.", path=path)
        try:
            poll(lambda: _locked(descriptor), wait_s, 0.05, clock)
        except TimeoutError as error:
            raise _in_progress(descriptor, path, what) from error
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


def _in_progress(descriptor: int, path: str, what: Locked) -> RunInProgress:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        who = "process %s (%s) since %s" % (holder["pid"], holder["command"], holder["since"])
    except (ValueError, KeyError, TypeError, RecursionError):
        holder, who = {}, "an unnamed process"
    return RunInProgress(
        "Another run is %s: %s holds %s." % (what.doing, who, path),
        what.remedy,
        holder=holder,
        path=path,
    )
