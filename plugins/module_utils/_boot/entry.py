# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What boots, one by one: an entry of the boot menu, an image, a deployment. Nothing here reaches a file."""

from __future__ import annotations

from collections import Counter
from typing import Iterable, NamedTuple, Sequence

from .cmdline import normal


class Entry(NamedTuple):
    """One thing of this system that boots, as it was read where the boot loader finds it.

    ``tokens`` are those that the kernel gets, variables expanded, without BOOT_IMAGE. ``line`` counts from one; 0 where
    lines mean nothing. ``is_recovery``: a reduced start, which need not have what is added. ``is_default``: it boots
    next unless somebody chooses another one; where that is not known, no entry has it.
    """

    path: str
    title: str
    tokens: tuple[str, ...]
    line: int = 0
    is_recovery: bool = False
    is_default: bool = False

    @property
    def where(self) -> str:
        """File, line and title, for a message."""
        place = "%s, line %d" % (self.path, self.line) if self.line else self.path
        return "%s (%s)" % (place, self.title) if self.title else place

    def is_same_as(self, other: Entry) -> bool:
        """Whether both are the same entry, perhaps at different times."""
        return (self.path, self.title) == (other.path, other.title)


def default(entries: Sequence[Entry]) -> Entry:
    """The entry that boots next; where that is not known, the first that is not for recovery. At least one is given."""
    for entry in entries:
        if entry.is_default:
            return entry
    return next((entry for entry in entries if not entry.is_recovery), entries[0])


def lost(expected: Iterable[str], tokens: Iterable[str]) -> list[str]:
    """What is missing of the expected tokens, each as often as it was expected; spellings do not count."""
    left = Counter(map(normal, tokens))
    found = []
    for token in expected:
        if left[normal(token)] > 0:
            left[normal(token)] -= 1
        else:
            found.append(token)
    return found
