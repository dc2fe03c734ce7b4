# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Listening sockets that replace what an earlier run left over, and nothing that is still served."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

BACKLOG = 16


def listen(path: Path) -> socket.socket:
    """A non-blocking listening socket at the path. Raises OSError, EADDRINUSE when another process listens there."""
    if _is_served(path):
        raise OSError(errno.EADDRINUSE, f"another emulator or device server listens on {path}")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except BlockingIOError:  # a full queue of clients is one that somebody made
            return True
        except OSError:
            return False
        return True
