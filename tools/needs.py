# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Programs of this machine: which are there, and how they are run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# An ordinary user's PATH has no sbin on Debian.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class NotPossible(RuntimeError):
    """Something that this machine lacks, or could not do; the message names the remedy."""


def missing_packages(listed: Path) -> list[str]:
    """The packages of a file with lines "program package" whose program, or file by its path, is not there."""
    rows = (line.split() for line in listed.read_text().splitlines() if line and not line.startswith("#"))
    return sorted({package for program, package in rows if not _is_there(program)})


def _is_there(program: str) -> bool:
    return shutil.which(program, path=_path()) is not None or (program.startswith("/") and Path(program).exists())


def check_programs(listed: Path) -> None:
    """Raises NotPossible with the command that installs what is missing."""
    if missing := missing_packages(listed):
        raise NotPossible(f"programs are missing: apt-get install {' '.join(missing)}")


def run(command: Sequence[str], given: str = "", environment: Mapping[str, str] | None = None) -> str:
    """What a program prints when it is given this text. Raises NotPossible with the end of what it said."""
    surrounding = {**os.environ, "PATH": _path(), "LC_ALL": "C.UTF-8", **(environment or {})}
    try:
        done = subprocess.run(command, env=surrounding, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise NotPossible(f"there is no {command[0]}: make system-deps") from None
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise NotPossible(f"{' '.join(command[:2])} ended with status {done.returncode}: {said}")
    return done.stdout


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:{PATH}"
