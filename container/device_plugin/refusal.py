# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What cannot be meant is refused, with the place where it stands and what would be right."""

from __future__ import annotations


class BadConfig(ValueError):
    """The configuration is refused: file, key, what is wrong, and the remedy."""

    def __init__(self, file: str, key: str, problem: str, remedy: str) -> None:
        super().__init__(f"{file}: {key + ': ' if key else ''}{problem}. {remedy}")
        self.key = key
