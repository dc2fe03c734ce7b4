# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong: in the user's files, and on purpose."""

from __future__ import annotations


class DataError(ValueError):
    """A file or a request to the emulator that cannot be understood; the message names the key and what it may be."""


class ApiRefusal(Exception):
    """An error as the API answers it, in its envelope."""

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
