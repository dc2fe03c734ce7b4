# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian packages from the archive that this machine's own apt uses, or from the one that DEBIAN_MIRROR names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.needs import NotPossible, run

SETTING = "DEBIAN_MIRROR"
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def mirror(label: str = "Debian") -> str:
    """The address of a Debian archive; with the label Debian-Security, of its security updates, or nothing."""
    chosen = os.environ.get(SETTING)
    if chosen:
        return chosen if label == "Debian" else ""
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(SITE) $(REPO_URI)", "Created-By: Packages"]
    targets = subprocess.run(command, capture_output=True, text=True, check=False)
    for line in targets.stdout.splitlines():
        words = line.split()
        if words[:2] == ["Debian", label]:
            return words[3].rstrip("/")
    if label != "Debian":
        return ""
    raise NotPossible(f"apt on this machine knows no Debian archive: run apt-get update, or set {SETTING} to one")


def sources(suite: str = SUITE, security: bool = False, backports: bool = False) -> str:
    """Lines for apt."""
    suites = [suite, f"{suite}-updates"] + ([f"{suite}-backports"] if backports else [])
    lines = [f"deb [signed-by={KEYRING}] {mirror()} {name} main" for name in suites]
    if security and (updates := mirror("Debian-Security")):
        lines.append(f"deb [signed-by={KEYRING}] {updates} {suite}-security main")
    return "\n".join(lines)


def mmdebstrap(
    target: Path,
    packages: Sequence[str],
    options: Sequence[str],
    *,
    suite: str = SUITE,
    apt_sources: str = "",
    environment: Mapping[str, str] | None = None,
) -> None:
    """Packages and what they need as a folder, or as a tar by the target's name. Raises NotPossible."""
    command = ["mmdebstrap", "--quiet", f"--include={','.join(packages)}", *options, suite, str(target), "-"]
    run(command, apt_sources or sources(suite), environment)
