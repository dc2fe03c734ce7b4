# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""/etc/kernel/cmdline: tokens in any number of lines; lines that start with # are comments.

Whether they are is up to the program that reads the file: see loaders/kernel_install.py. For one that knows no
comments, ``comments`` is false, and their words are tokens like all others.
"""

from __future__ import annotations

import re
from typing import Optional

from .cmdline import GAP, TOKEN, Desired, Fate, Piece, pieces, rewrite

CMDLINE = "/etc/kernel/cmdline"

_COMMENT = re.compile(r"(?m)(^[ \t]*#[^\n]*$)")


def has_comments(text: Optional[str]) -> bool:
    """Whether there is a line that starts with #."""
    return bool(_COMMENT.search(text or ""))


def tokens_of(text: Optional[str], comments: bool = True) -> list[str]:
    """The tokens of such a file."""
    return [piece.text for piece in _layout(text or "", comments) if piece.kind == TOKEN]


def edited(text: str, desired: Desired, comments: bool = True) -> str:
    """Such a file after the request; comments and layout stay."""
    return applied(text, desired.fate(tokens_of(text, comments)), comments)


def applied(text: str, fate: Fate, comments: bool = True) -> str:
    """Such a file after a fate of its tokens; comments and layout stay."""
    return "".join(piece.raw for piece in rewrite(_layout(text, comments), fate))


def _layout(text: str, comments: bool) -> list[Piece]:
    if not comments:
        return pieces(text)
    found = []
    for part in _COMMENT.split(text):
        found += [Piece(GAP, part, part)] if part.lstrip(" \t").startswith("#") else pieces(part)
    return found
