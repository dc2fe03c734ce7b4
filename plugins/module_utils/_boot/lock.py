# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time changes a host's kernel command line: two would take each other's files for their own.

The kernel drops the lock when its holder ends, however it ends, so nothing has to be cleaned up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Iterator

from .errors import NotWritable, RunInProgress
from .host import Host

LOCK = "/run/confidential-gpu-kernel-cmdline.lock"


@contextlib.contextmanager
def held(host: Host) -> Iterator[None]:
    """Hold the host's lock. Raises RunInProgress when another run has it, NotWritable when it cannot be made."""
    descriptor = _open(host)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise RunInProgress(
                "Another run is changing the kernel command line of this host (process %s holds %s)." % (holder, LOCK),
                "Wait until it has ended, then run again.",
                process=holder,
                path=LOCK,
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(host: Host) -> int:
    path = host.path(LOCK)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, str(error.errno))
        raise NotWritable(
            "The lock file %s cannot be opened: %s (%s)." % (LOCK, code, error.strerror),
            "Run as root (become: true), on a file system that is mounted writable.",
            path=LOCK,
            errno=error.errno,
        ) from error
