# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices on which settings were stored that no register shows, and which have not been reset since.

Of such a setting (the BAR0 filter, for one) only its stored value can be read. Whether it has been in force since the
last reset is known only to who stored it, so it is written down before the first write and struck out after the reset.
A run that is killed in between leaves the note to the next one.
"""

from __future__ import annotations

from typing import Iterable

from .files import read_json, replace_json


class Unproven:
    """The note, a file beside the lock; only who holds the lock changes it."""

    def __init__(self, lock_path: str) -> None:
        self._path = lock_path.rpartition(".lock")[0] + ".unproven"

    def addresses(self) -> frozenset[str]:
        """The devices in doubt."""
        noted = read_json(self._path)
        return frozenset(str(address) for address in noted) if isinstance(noted, list) else frozenset()

    def add(self, addresses: Iterable[str]) -> None:
        """Note devices, before they are written to. Raises NotPermitted."""
        self._set(self.addresses() | frozenset(addresses))

    def remove(self, addresses: Iterable[str]) -> None:
        """Strike devices out, after they were reset or put back as they were."""
        self._set(self.addresses() - frozenset(addresses))

    def _set(self, addresses: frozenset[str]) -> None:
        if addresses != self.addresses():
            replace_json(self._path, sorted(addresses), "note of unproven settings")
