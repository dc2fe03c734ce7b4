# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Where Debian packages come from: the mirror that this machine's own apt uses, or the one that a person names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SETTING = "VM_DEBIAN_MIRROR"
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PROGRAMS = Path(__file__).resolve().parent.parent / "packages.txt"


class NotPossible(RuntimeError):
    """Something that this machine lacks; the message names the remedy."""


def mirror() -> str:
    """The address of a Debian archive."""
    if chosen := os.environ.get(SETTING):
        return chosen
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in targets.stdout.splitlines():
        origin, label, *site = line.split()
        if origin == label == "Debian" and site:
            return site[0]
    raise NotPossible(f"apt on this machine knows no Debian archive: run apt-get update, or set {SETTING} to one")


def missing_packages() -> list[str]:
    """The packages of packages.txt whose program is not there."""
    rows = (line.split() for line in PROGRAMS.read_text().splitlines() if line and not line.startswith("#"))
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return sorted({package for program, package in rows if shutil.which(program, path=path) is None})


def check_programs() -> None:
    """Raises NotPossible with the command that installs what is missing."""
    if missing := missing_packages():
        raise NotPossible(f"programs are missing: apt-get install {' '.join(missing)}")


def mmdebstrap(target: Path, packages: list[str], *options: str, suite: str = SUITE, backports: bool = False) -> None:
    """Run mmdebstrap; what it says is shown when it fails."""
    suites = [suite, f"{suite}-updates"] + ([f"{suite}-backports"] if backports else [])
    sources = "\n".join(f"deb [signed-by={KEYRING}] {mirror()} {one} main" for one in suites)
    command = ["mmdebstrap", "--quiet", f"--include={','.join(packages)}", *options, suite, str(target), "-"]
    run(command, input=sources)


def run(command: list[str], **options: object) -> None:
    """Run a program of the build; raises NotPossible with the end of what it said."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "LC_ALL": "C"}
    done = subprocess.run(  # type: ignore[call-overload]
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if done.returncode:
        raise NotPossible(f"{command[0]} ended with status {done.returncode}: {done.stdout[-3000:]}")
