# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the recorder needs of a device: three ways to read, and none to write."""

from __future__ import annotations

from typing import Protocol


class Source(Protocol):
    """A device that is open for reading. Every method raises RecordingError."""

    def config(self, offset: int) -> int:
        """The aligned dword of config space."""

    def bar_bytes(self, number: int) -> int:
        """The size of the BAR whose register has this number; 0 for none."""

    def register(self, offset: int) -> int:
        """The aligned dword of BAR0."""

    def close(self) -> None:
        """Let go of it."""
