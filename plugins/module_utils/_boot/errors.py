# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a kernel command line could not be read or set: what was seen, in what state the host is, what to do about it."""

from __future__ import annotations

from typing import Any

from .._core.errors import ExplainedError

NOTHING_CHANGED = "Nothing was changed."


class BootError(ExplainedError):
    """Something about the boot loader or the request keeps the command line from being read or set."""

    def __init__(self, cause: str, remedy: str, state: str = NOTHING_CHANGED, **seen: Any) -> None:
        super().__init__(cause, remedy, state, **seen)


class InvalidToken(BootError):
    """A token of the request cannot stand on a kernel command line."""


class NotUnderstood(BootError):
    """A file of the boot loader holds something that cannot be changed safely."""


class Shadowed(BootError):
    """What would be written would have no effect."""


class NotWritable(BootError):
    """A file of the boot loader cannot be read or written."""


class NoSpace(BootError):
    """A file system of the boot loader is full."""


class CommandMissing(BootError):
    """A command of the boot loader is not installed."""


class CommandFailed(BootError):
    """A command of the boot loader failed."""


class CommandTimeout(BootError):
    """A command of the boot loader did not end in time."""

    retryable = True


class UnknownLoader(BootError):
    """No boot loader that is known was found."""


class NothingBoots(BootError):
    """What boots this host was not found, or cannot be read: a change could not be read back."""


class Interrupted(BootError):
    """The run was told to stop."""

    retryable = True
