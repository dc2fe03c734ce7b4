# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The root of the one tree of errors: each says in one sentence what was seen, in one what to do about it.

A caller that retries asks ``retryable``; a caller that reports uses ``as_dict()``, whose ``seen`` holds what the
message was made from (device, register and value, RPC code, errno, command, process).
"""

from __future__ import annotations

from typing import Any


class ExplainedError(Exception):
    """Something keeps this collection from doing what was asked for."""

    retryable = False

    def __init__(self, cause: str, remedy: str, state: str = "", **seen: Any) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy
        # In what state the host or the devices were left, as far as the cause does not say it.
        self.state = state
        self.seen = seen

    def __str__(self) -> str:
        return " ".join(filter(None, [self.cause, self.state, self.remedy]))

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data: kind, cause, state, remedy, retryable, seen."""
        return {
            "kind": type(self).__name__,
            "cause": self.cause,
            "state": self.state,
            "remedy": self.remedy,
            "retryable": self.retryable,
            "seen": self.seen,
        }
