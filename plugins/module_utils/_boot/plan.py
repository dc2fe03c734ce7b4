# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan for a boot loader's files and commands, and what became of it; ``change`` carries it out."""

from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Sequence, Union

from .cmdline import Desired
from .entry import Entry
from .host import Host

MARKER = "/var/lib/confidential-gpu/kernel-cmdline.unfinished"


class Edit(NamedTuple):
    """A file to change; ``change`` makes the new text of the present one (None: no such file).

    ``copy``, for a file in a folder of which a program reads every file: what its copy is called, without time and ~.
    """

    path: str
    before: Optional[str]
    change: Callable[[Optional[str]], Optional[str]]
    copy: str = ""

    @property
    def after(self) -> Optional[str]:
        """The new text, from the text at the time of planning."""
        return self.change(self.before)


def fixed(path: str, before: Optional[str], after: Optional[str], copy: str = "") -> Edit:
    """An edit whose new text is known already (None: the file goes)."""
    return Edit(path, before, lambda _now: after, copy)


class Run(NamedTuple):
    """A command to run."""

    argv: tuple[str, ...]


Step = Union[Edit, Run]


class Plan(NamedTuple):
    """What takes a boot loader to the wanted command line.

    ``protects`` are patterns of small files that the commands write and that are put back when one fails; ``repair``
    are the commands that then make the rest good again, ``stays`` says what cannot be taken back once a command ran.
    ``checks`` are run last.

    ``before`` and ``after`` are the tokens of the entry that boots by default. ``expected`` says of single entries
    which tokens they have afterwards, ``keeps`` what every other one has that is not for recovery.
    """

    desired: Desired
    before: tuple[str, ...]
    after: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    checks: tuple[Run, ...] = ()
    protects: tuple[str, ...] = ()
    repair: tuple[Run, ...] = ()
    space: tuple[tuple[str, int], ...] = ()
    expected: tuple[Entry, ...] = ()
    keeps: tuple[str, ...] = ()
    stays: str = ""

    @property
    def is_change(self) -> bool:
        """True when anything has to be done."""
        return bool(self.steps)

    def expects(self, entry: Entry) -> Sequence[str]:
        """The tokens that an entry has to have afterwards; it may have more."""
        return next((one.tokens for one in self.expected if one.is_same_as(entry)), self.keeps)

    @property
    def edits(self) -> list[Edit]:
        """The files to change."""
        return [step for step in self.steps if isinstance(step, Edit)]

    @property
    def commands(self) -> list[list[str]]:
        """The commands to run, checks included."""
        return [list(step.argv) for step in (*self.steps, *self.checks) if isinstance(step, Run)]


class Done:
    """What was done, and the tokens that were read back after it."""

    def __init__(self) -> None:
        self.after: tuple[str, ...] = ()
        self.backup_files: list[str] = []
        self.commands: list[list[str]] = []


def unfinished(host: Host) -> bool:
    """Whether the run before this one was killed half-way."""
    return host.exists(MARKER)
