# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced at once, so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from typing import Any, Optional

from .errors import NotPermitted, errno_words


def read_json(path: str) -> Any:
    """What the file holds; None where there is no file, or one that is not JSON."""
    try:
        # Beside a socket folder that others may write to: a symlink is not followed, a FIFO is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            return json.load(file) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError, RecursionError):
        return None


def ensure_writable(path: str, what: str) -> None:
    """Raise the NotPermitted of ``replace_json`` beforehand, if it can be foreseen."""
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(folder) and not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    if os.path.isdir(folder) and os.access(folder, os.W_OK) and not os.path.isdir(path):
        return
    raise NotPermitted(
        "The %s %r cannot be written: %s is no folder that this user may write to." % (what, path, folder),
        "Run as root, or give a path that is writable.",
        path=path,
    )


def replace_json(path: str, content: Any, what: str) -> None:
    """Write the file, readable for all. Raises NotPermitted, in which ``what`` names the file's purpose."""
    try:
        replace(path, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
    except (OSError, ValueError) as error:
        words = errno_words(error) if isinstance(error, OSError) else str(error)
        raise NotPermitted(
            "The %s %r cannot be written: %s." % (what, path, words),
            "Run as root, or give a path that is writable.",
            path=path,
            errno=getattr(error, "errno", None),
        ) from error


def replace(path: str, content: bytes, like: Optional[str] = None, mode: int = 0o644) -> None:
    """Write the file, on the disk when this returns. Raises OSError, ValueError for a path that cannot be one.

    Owner, mode and labels are those of the file ``like``; without one, or where it is not there, ``mode``.
    """
    folder = os.path.dirname(os.path.abspath(path))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".confidential-gpu.", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like is not None and os.path.exists(like):
            _liken(draft, like)
        else:
            os.chmod(draft, mode)
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    settle(folder)


def _liken(draft: str, like: str) -> None:
    shutil.copystat(like, draft)
    now, then = os.stat(draft), os.stat(like)
    if (now.st_uid, now.st_gid) != (then.st_uid, then.st_gid):
        os.chown(draft, then.st_uid, then.st_gid)
    os.utime(draft)


def settle(folder: str) -> None:
    """Bring a folder's entries to the disk: a name that was replaced or removed may else come back. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
