# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices on which settings were stored that no register shows, and which have not been reset since.

Of such a setting (the BAR0 filter, for one) only its stored value can be read. Whether it has been in force since the
last reset is known only to who stored it, so it is written down before the first write and struck out after the reset.
A run that is killed in between leaves the note to the next one. The mode at that moment is noted, too: a mode changes
at resets only, so another mode proves that there has been one, whoever did it.
"""

from __future__ import annotations

from typing import Iterable, Mapping

from .._core.files import read_json, replace_json


class Unproven:
    """The note, a file beside the lock; only who holds the lock changes it."""

    def __init__(self, lock_path: str) -> None:
        self._path = lock_path.rpartition(".lock")[0] + ".unproven"

    def modes(self) -> dict[str, str]:
        """The devices in doubt, each with the mode that it was in when it was noted."""
        noted = read_json(self._path)
        return {str(address): str(mode) for address, mode in noted.items()} if isinstance(noted, dict) else {}

    def add(self, modes: Mapping[str, str]) -> None:
        """Note devices with their modes, before they are written to. Raises NotPermitted."""
        self._set({**self.modes(), **modes})

    def remove(self, addresses: Iterable[str]) -> None:
        """Strike devices out, after they were reset or put back as they were."""
        gone = set(addresses)
        self._set({address: mode for address, mode in self.modes().items() if address not in gone})

    def _set(self, modes: dict[str, str]) -> None:
        if modes != self.modes():
            replace_json(self._path, modes, "note of unproven settings")
