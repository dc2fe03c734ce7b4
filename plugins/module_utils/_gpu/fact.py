# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a run has read back, kept where Ansible finds it as ``ansible_local.confidential_gpu``."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Mapping, Optional, Sequence

from .errors import NotPermitted, errno_words


def fact(devices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``devices`` (address to mode) and ``mode``: the one mode of all GPUs, 'mixed', or None when one is not known."""
    gpus = {device["mode_after"] for device in devices if device["kind"] == "gpu"}
    mode: Optional[str] = "mixed" if gpus else None
    if None in gpus:
        mode = None
    elif len(gpus) == 1:
        (mode,) = gpus
    return {"mode": mode, "devices": {device["address"]: device["mode_after"] for device in devices}}


def keep(path: str, content: Mapping[str, Any]) -> None:
    """Replace the fact file at once, so that a reader never sees half of it. Raises NotPermitted."""
    folder = os.path.dirname(os.path.abspath(path))
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(prefix=".confidential_gpu.", dir=folder)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise NotPermitted(
            "The fact file %s cannot be written: %s." % (path, errno_words(error)),
            "Run as root, or set fact_file to a path that is writable; the modes themselves are as reported.",
            path=path,
            errno=error.errno,
        ) from error
