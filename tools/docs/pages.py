# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which files of the repository are pages of the site, and where their links lead."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

# Files outside of docs/ and the names of their pages.
OTHERS = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "container/charts/device-plugin/README.md": "chart-device-plugin.md",
    "container/charts/cc-manager/README.md": "chart-cc-manager.md",
    "gpu-admin-tools/PROVENANCE.md": "provenance.md",
    "tests/cluster/README.md": "bench-cluster.md",
    "tests/vm/README.md": "bench-vm.md",
}
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


class BrokenLink(Exception):
    """A link to a file that the repository does not have."""


def pages(root: Path) -> dict[str, str]:
    """Path of a Markdown file in the repository to the name of its page. Pages of docs/ keep their names."""
    guides = sorted((root / "docs").rglob("*.md"))
    return {str(path.relative_to(root)): str(path.relative_to(root / "docs")) for path in guides} | {
        path: name for path, name in OTHERS.items() if (root / path).exists()
    }


def outside_fences(text: str) -> Iterator[tuple[bool, str]]:
    """The lines, each with whether it is text: no part of a fenced block."""
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = re.match(r" *(```+|~~~+)", line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            yield False, line
        else:
            yield not fence, line


def rewritten(root: Path, path: str, names: Mapping[str, str], repository: str) -> str:
    """The text of a page, its links good on the site: to other pages, and to the repository for all other files.

    Raises BrokenLink.
    """
    here = PurePosixPath(path).parent
    page = PurePosixPath(names[path]).parent

    def lead(found: re.Match[str]) -> str:
        target, anchor = os.path.normpath(here / found[1]), found[2] or ""
        if not (root / target).exists():
            raise BrokenLink(f"{path}: there is no {target}")
        if target in names:
            return os.path.relpath(names[target], page) + anchor
        if target.startswith("docs/"):
            return os.path.relpath(target.removeprefix("docs/"), page)
        return f"{repository}/blob/main/{target}{anchor}"

    lines = outside_fences((root / path).read_text(encoding="utf-8"))
    return "".join(LINK.sub(lead, line) if is_text else line for is_text, line in lines)
