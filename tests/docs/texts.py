# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The texts that people read, and what stands in them: fenced blocks, code spans, tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    *("*.md", "docs/**/*.md", "roles/*/README.md", "container/charts/*/README.md", "tests/*/README.md"),
    "gpu-admin-tools/*.md",
)
# Says what was, not what is.
HISTORY = ("CHANGELOG.md",)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, its language, its text."""

    where: str
    language: str
    text: str


def texts() -> dict[str, str]:
    """Path in the repository to text, for every Markdown file that people read."""
    found = {path for pattern in PATTERNS for path in ROOT.glob(pattern)}
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if name not in HISTORY}


def blocks(*languages: str) -> list[Block]:
    """Fenced blocks of these languages."""
    found = []
    for name, text in texts().items():
        for match in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(f"{name}:{line}", match[2], match[3]))
    return [block for block in found if block.language in languages]


def spans() -> list[tuple[str, str]]:
    """Code spans outside of fenced blocks, each with its file and line."""
    found = []
    for name, text in texts().items():
        bare = re.sub(r"^( *)```.*?^\1```", lambda part: "\n" * part[0].count("\n"), text, flags=re.M | re.S)
        for number, line in enumerate(bare.splitlines(), 1):
            found += [(f"{name}:{number}", span) for span in re.findall(r"`([^`]+)`", line)]
    return found


def table(path: str, head: str) -> list[list[str]]:
    """Rows of the tables of a file whose first column has this head; cells without blanks around them."""
    rows: list[list[str]] = []
    inside = False
    for line in (ROOT / path).read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if cells[0] == head:
            inside = True
        elif inside and set(line) - set("|- "):
            rows.append(cells)
    return rows


def names(cell: str) -> list[str]:
    """The code spans of a cell."""
    return re.findall(r"`([^`]+)`", cell)


def in_file(path: str) -> set[str]:
    """Names of the tests in a file."""
    return set(re.findall(r"^def (test_\w+)", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE))
