# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Finished folders, named by a hash of what went into them.

A folder is built under another name and renamed when it is complete, so a build that was killed half-way leaves
nothing that looks finished, and the next build starts afresh.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def forget(kind: str, cache: Path) -> None:
    """Remove what is there of a kind."""
    for folder in cache.glob(f"{kind}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def finished(kind: str, ingredients: object, build: Callable[[Path], None], cache: Path) -> Path:
    """The folder made from these ingredients, which is built when it is not there; older ones of its kind go."""
    key = hashlib.sha256(json.dumps(ingredients, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = cache / f"{kind}-{key}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            draft = cache / f"{kind}.draft"
            shutil.rmtree(draft, ignore_errors=True)
            forget(kind, cache)
            draft.mkdir()
            build(draft)
            draft.rename(folder)
    return folder
