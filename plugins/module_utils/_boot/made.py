# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries that a program makes of settings: it takes the settings' tokens and puts some of its own around them."""

from __future__ import annotations

from typing import Sequence


def squeezed(tokens: Sequence[str]) -> list[str]:
    """Tokens as a program leaves them that takes white space for one blank each, within quotes too."""
    return [" ".join(token.split()) for token in tokens]


def holds(entry: Sequence[str], settings: Sequence[str]) -> bool:
    """Whether the tokens of the settings, at least one, stand in an entry one after the other."""
    size = len(settings)
    return bool(size) and any(
        list(entry[start : start + size]) == list(settings) for start in range(len(entry) - size + 1)
    )


def named(tokens: Sequence[str], start: str) -> list[str]:
    """The tokens that start so, as in ``root=``."""
    return [token for token in tokens if token.startswith(start)]
