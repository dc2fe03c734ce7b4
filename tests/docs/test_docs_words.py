# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Plain technical English: the words of words.txt do not come back."""

from __future__ import annotations

import re
from pathlib import Path

from docs.texts import texts

WORDS = Path(__file__).with_name("words.txt")


def rules() -> dict[str, str]:
    """Pattern to what is said instead."""
    lines = [line for line in WORDS.read_text().splitlines() if line and not line.startswith("#")]
    return {pattern: instead for pattern, _equals, instead in (line.partition(" = ") for line in lines)}


def prose(text: str) -> str:
    """A text without fenced blocks, code spans and the targets of links; its lines keep their numbers."""
    text = re.sub(r"^( *)```.*?^\1```", lambda part: "\n" * part[0].count("\n"), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]+`|\]\([^)]*\)|https?://\S+", "", text)


def test_texts_are_in_plain_technical_english() -> None:
    found = [
        f"{path}:{number}: {word[0]!r}; say: {instead}"
        for path, text in texts().items()
        for number, line in enumerate(prose(text).splitlines(), 1)
        for pattern, instead in rules().items()
        if (word := re.search(pattern, line, re.IGNORECASE))
    ]
    assert found == []


def test_a_word_is_found_in_prose_and_not_in_code() -> None:
    assert re.findall(r"\btold\b", prose("It is told `told` to\n```sh\ntold\n```\n[x](told.md)\n")) == ["told"]
