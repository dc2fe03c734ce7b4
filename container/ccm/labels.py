# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Values of labels, made from names that people gave."""

from __future__ import annotations

import re

MAX_CHARS = 63
VALID = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
OTHERS = re.compile(r"[^A-Za-z0-9._-]+")


def is_value(text: str) -> bool:
    """Whether the API server takes it."""
    return VALID.fullmatch(text) is not None


def value_of(text: str) -> str:
    """The text as a label value: what cannot be in one becomes a hyphen. Empty when nothing is left."""
    return OTHERS.sub("-", text).strip("-._")[:MAX_CHARS].strip("-._")
