# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""/etc/kernel/cmdline: tokens in any number of lines; lines that start with # are comments."""

from __future__ import annotations

import re
from typing import Optional

from .cmdline import GAP, TOKEN, Piece, Wish, pieces, rewrite

CMDLINE = "/etc/kernel/cmdline"


def tokens_of(text: Optional[str]) -> list[str]:
    """The tokens of such a file."""
    return [piece.text for piece in _layout(text or "") if piece.kind == TOKEN]


def edited(text: str, wish: Wish) -> str:
    """Such a file after the wish; comments and layout stay."""
    old = _layout(text)
    fate = wish.fate([piece.text for piece in old if piece.kind == TOKEN])
    return "".join(piece.raw for piece in rewrite(old, fate))


def _layout(text: str) -> list[Piece]:
    found = []
    for part in re.split(r"(?m)(^[ \t]*#[^\n]*$)", text):
        found += [Piece(GAP, part, part)] if part.lstrip(" \t").startswith("#") else pieces(part)
    return found
