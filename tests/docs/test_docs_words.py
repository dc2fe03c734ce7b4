# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Plain technical English: the words of words.txt do not come back.

What is left of them stands in words-left.txt, a number for each file and word. It only shrinks: more is a failure, and
so is less, until the list says so. ``python tests/docs/test_docs_words.py`` writes the list again where numbers have
become smaller; ``--accept`` also where they have not, for a branch that was begun before the check.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
LEFT = HERE / "words-left.txt"
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))

from docs.texts import texts  # noqa: E402  (needs the path above)

Counts = dict[tuple[str, str], int]


def rules() -> dict[str, str]:
    """Pattern to what is said instead."""
    lines = [line for line in (HERE / "words.txt").read_text().splitlines() if line and not line.startswith("#")]
    return {pattern: instead for pattern, _equals, instead in (line.partition(" = ") for line in lines)}


def prose(text: str) -> str:
    """A text without fenced blocks, code spans and the targets of links."""
    text = re.sub(r"^( *)```.*?^\1```", lambda part: "\n" * part[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)|https?://\S+", "", text)


def found() -> Counts:
    """How often each pattern stands in each text."""
    counts: Counts = {}
    for path, text in texts().items():
        for pattern in rules():
            if number := len(re.findall(pattern, prose(text), re.IGNORECASE)):
                counts[path, pattern] = number
    return counts


def left() -> Counts:
    """The list of what is left."""
    rows = [line.split("\t") for line in LEFT.read_text().splitlines() if line and not line.startswith("#")]
    return {(path, pattern): int(number) for path, pattern, number in rows}


def differences(counts: Counts, allowed: Counts) -> tuple[list[str], list[str]]:
    """What is more than the list allows, and what is less."""
    more = [
        f"{path}: {counts[path, pattern]} x {pattern}, {allowed.get((path, pattern), 0)} allowed: {rules()[pattern]}"
        for path, pattern in counts
        if counts[path, pattern] > allowed.get((path, pattern), 0)
    ]
    less = [
        f"{path}: {pattern}" for (path, pattern), number in allowed.items() if counts.get((path, pattern), 0) < number
    ]
    return more, less


def test_no_such_word_is_new() -> None:
    more, _less = differences(found(), left())
    assert more == []


def test_the_list_shrinks_with_the_texts() -> None:
    _more, less = differences(found(), left())
    assert less == [], "run: python tests/docs/test_docs_words.py"


def test_a_word_is_found_in_prose_and_not_in_code() -> None:
    assert re.findall(r"\btold\b", prose("It is told `told` to\n```sh\ntold\n```\n[x](told.md)\n")) == ["told"]


def main() -> int:
    """Write the list again."""
    counts = found()
    more, _less = differences(counts, left() if LEFT.exists() else {})
    if more and "--accept" not in sys.argv:
        print("\n".join(more))
        return 1
    head = "".join(line for line in (HERE / "words.txt").read_text().splitlines(keepends=True)[:2])
    rows = "".join(f"{path}\t{pattern}\t{number}\n" for (path, pattern), number in sorted(counts.items()))
    LEFT.write_text(
        f"{head}#\n# Words that are left: file, pattern of words.txt, how often. This list only shrinks.\n{rows}"
    )
    print(f"{sum(counts.values())} words left in {len({path for path, _pattern in counts})} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
