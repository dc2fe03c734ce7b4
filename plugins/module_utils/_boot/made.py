# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries that a program makes of settings: it takes the settings' tokens and puts some of its own around them."""

from __future__ import annotations

from typing import Optional, Sequence


def place(entry: Sequence[str], settings: Sequence[str]) -> Optional[int]:
    """Where in an entry the tokens of the settings stand, one after the other; None when they do not, or are none."""
    size = len(settings)
    for start in range(len(entry) - size + 1) if size else ():
        if list(entry[start : start + size]) == list(settings):
            return start
    return None


def made(entry: Sequence[str], settings: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The tokens that an entry has once it is made of ``wanted``, when it was made of ``settings`` until now.

    What the program puts in front and behind stays. An entry that was not made of these settings, or not of all of
    them, shows nothing of the kind: then it is ``wanted`` alone.
    """
    start = place(entry, settings)
    if start is None:
        return tuple(wanted)
    return (*entry[:start], *wanted, *entry[start + len(settings) :])
