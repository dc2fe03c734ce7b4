# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The root of the one tree of errors: each says in one sentence what was seen, in one what to do about it.

A caller that retries asks ``retryable``; a caller that reports uses ``as_dict()``, whose ``seen`` holds what the
message was made from (device, register and value, RPC code, errno, command, process).
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Sequence

if TYPE_CHECKING:
    from .answers import Problem


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

    def as_dict(self) -> Problem:
        """The error as plain data: kind, cause, state, remedy, retryable, seen."""
        return {
            "kind": type(self).__name__,
            "cause": self.cause,
            "state": self.state,
            "remedy": self.remedy,
            "retryable": self.retryable,
            "seen": self.seen,
        }


class InvalidRequest(ExplainedError):
    """The request itself cannot be carried out; nothing was touched."""


class NotPermitted(ExplainedError):
    """The process lacks a right that it needs, or the sight of what it has to know."""


class RunInProgress(ExplainedError):
    """Another run is at work on the same thing."""

    retryable = True


class VerifyMismatch(ExplainedError):
    """What was read back after the change is not what was asked for."""


class Several(ExplainedError):
    """More than one thing has a problem; ``errors`` holds each."""

    def __init__(self, errors: Sequence[ExplainedError]) -> None:
        super().__init__(
            "%d devices have a problem: %s" % (len(errors), " ".join(error.cause for error in errors)),
            " ".join(dict.fromkeys(error.remedy for error in errors)),
            " ".join(dict.fromkeys(error.state for error in errors if error.state)),
            errors=[error.as_dict() for error in errors],
        )
        self.errors = list(errors)
        self.retryable = all(error.retryable for error in errors)


def raise_all(errors: Sequence[ExplainedError]) -> None:
    """Raise the one error, or all of them as one; return when there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(errors)


def errno_words(error: OSError) -> str:
    """'EBUSY (Device or resource busy)' of an OSError."""
    code = error.errno or 0
    return "%s (%s)" % (errno.errorcode.get(code, str(code)), os.strerror(code) if code else str(error))
