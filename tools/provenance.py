# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where files come from: an in-toto statement with SLSA's provenance, version 1.

Subjects are files by name and hash; materials are the commit and the lock files, by hash too.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
# What was run, and what ran it.
BUILD_TYPE, BUILDER = "make release", "tools/release.py"


def statement(root: Path, repository: str, files: Iterable[Path], epoch: int, changed: bool) -> str:
    """The document. ``changed``: files of the working tree were not those of the commit."""
    commit = git(root, "rev-parse", "HEAD")
    locks = [*sorted((root / "requirements").glob("*.txt")), *sorted((root / "tests/cluster/go").rglob("go.sum"))]
    source = {"uri": f"git+{repository}@{commit}", "digest": {"gitCommit": commit}}
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document: dict[str, Any] = {
        "_type": STATEMENT,
        "subject": [{"name": path.name, "digest": {"sha256": sha256(path)}} for path in sorted(files)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": f"{repository}#{BUILD_TYPE}",
                "externalParameters": {"repository": repository, "commit": commit, "workingTreeChanged": changed},
                "internalParameters": {"SOURCE_DATE_EPOCH": epoch},
                "resolvedDependencies": [source, *(_material(root, lock) for lock in locks)],
            },
            "runDetails": {
                "builder": {"id": f"{repository}#{BUILDER}"},
                # Equal sources give an equal document, so the time is the sources', not the clock's.
                "metadata": {"invocationId": commit, "startedOn": when, "finishedOn": when},
            },
        },
    }
    return json.dumps(document, indent=1) + "\n"


def _material(root: Path, lock: Path) -> Mapping[str, object]:
    return {"name": str(lock.relative_to(root)), "digest": {"sha256": sha256(lock)}}


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git(root: Path, *words: str) -> str:
    """What git prints, without the last line's end. Raises CalledProcessError."""
    return subprocess.run(["git", *words], cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout.rstrip("\n")
