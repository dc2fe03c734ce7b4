# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Small JSON files that are replaced at once, so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from .errors import NotPermitted, errno_words


def read_json(path: str) -> Any:
    """What the file holds; None where there is no file, or one that is not JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
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
        folder = os.path.dirname(os.path.abspath(path))
        os.makedirs(folder, mode=0o755, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=".confidential_gpu.", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, sort_keys=True)
                file.write("\n")
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except (OSError, ValueError) as error:
        words = errno_words(error) if isinstance(error, OSError) else str(error)
        raise NotPermitted(
            "The %s %r cannot be written: %s." % (what, path, words),
            "Run as root, or give a path that is writable.",
            path=path,
            errno=getattr(error, "errno", None),
        ) from error
