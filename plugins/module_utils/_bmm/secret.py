# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A value that nothing shows by accident: no repr, no format, no error and no log line."""

from __future__ import annotations

from typing import Iterable

HIDDEN = "********"


class Secret:
    """Text that only ``reveal`` gives out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written to a file")


def without(secrets: Iterable[Secret], text: str) -> str:
    """The text with every secret in it hidden: what a server answers may hold what it was sent."""
    for secret in secrets:
        if secret:
            text = text.replace(secret.reveal(), HIDDEN)
    return text
