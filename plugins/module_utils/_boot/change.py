# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan for a boot loader's files and commands, and carrying it out: all of it, or as if it had never begun.

What a run that was killed leaves behind is whole files, old or new, and the marker: the next run then repeats the
loader's commands though its files are right.
"""

from __future__ import annotations

import errno
import glob
import os
import time
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Sequence, Union

from .._core.errors import ExplainedError, errno_words
from .cmdline import Wish
from .entry import Entry
from .errors import NOTHING_CHANGED, BootError, NoSpace, NotWritable
from .host import Host, missing

MARKER = "/var/lib/confidential-gpu/kernel-cmdline.unfinished"

# Besides the files themselves: room for what a loader's command writes.
SPARE = 1 << 20

RESTORED = "Every file was put back as it was."


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

    wish: Wish
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


def carry_out(plan: Plan, host: Host, verify: Callable[[], Sequence[str]], keep_backups: bool = True) -> Done:
    """Do the steps, the checks and ``verify``, which reads back; when any of it fails, put everything back."""
    _refuse_beforehand(plan, host)
    done = Done()
    undo = _Undo(plan, host)
    try:
        undo.begin()
        for step in plan.steps:
            if isinstance(step, Edit):
                _edit(step, host)
            else:
                undo.commands_ran = True
                done.commands.append(list(step.argv))
                host.run(step.argv)
        for check in plan.checks:
            done.commands.append(list(check.argv))
            host.run(check.argv)
        done.after = tuple(verify())
        done.backup_files = undo.finish(keep_backups)
    except BaseException as error:
        left = undo.roll_back()
        if isinstance(error, OSError):
            raise explained(error, left) from error
        if isinstance(error, ExplainedError):
            error.state = left
        raise
    return done


def unfinished(host: Host) -> bool:
    """Whether the run before this one was killed half-way."""
    return host.exists(MARKER)


def _edit(edit: Edit, host: Host) -> None:
    now = host.text(edit.path)
    new = edit.change(now)
    if new is None:
        host.disk.remove(host.path(edit.path))
    elif new != now:
        host.disk.replace(host.path(edit.path), new.encode("utf-8", "surrogateescape"))


def _refuse_beforehand(plan: Plan, host: Host) -> None:
    for argv in [*plan.commands, *[list(run.argv) for run in plan.repair]]:
        if not host.commands.has(argv[0]):
            raise missing(argv[0])
    for edit in plan.edits:
        if not host.disk.writable(host.path(edit.path)):
            raise NotWritable(
                "%s cannot be written." % edit.path,
                "Run as root (become: true), on a file system that is mounted writable.",
                path=edit.path,
            )
    needs = [*plan.space, *((edit.path, len(edit.before or "") + len(edit.after or "")) for edit in plan.edits)]
    for path, size in needs:
        free = host.disk.free(host.path(path))
        if free < size + SPARE:
            raise NoSpace(
                "%s has %d bytes free, and %d are needed." % (path, free, size + SPARE),
                "Remove old kernels or other files, then run again.",
                path=path,
                free=free,
                needed=size + SPARE,
            )


def explained(error: OSError, left: str) -> BootError:
    """What the disk refused, with the state that the host was left in."""
    words = errno_words(error)
    name = str(error.filename or "A file")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(
            "%s could not be written: %s." % (name, words), "Remove old kernels or other files, then run again.", left
        )
    is_a_right = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return NotWritable(
        "%s could not be read or written: %s." % (name, words),
        "Run as root (become: true), on a file system that is mounted writable."
        if is_a_right
        else "Look what is there: a file or folder of another kind, or a disk that fails.",
        left,
        errno=error.errno,
    )


class _Undo:
    """What is needed to make a plan undone."""

    def __init__(self, plan: Plan, host: Host) -> None:
        self.plan = plan
        self.host = host
        self.before: dict[Path, Optional[bytes]] = {}
        self.backups: dict[Path, Path] = {}
        self.commands_ran = False
        self.marker = host.path(MARKER)

    def begin(self) -> None:
        """Remember every file, copy those that the plan edits, set the marker."""
        edited = {self.host.path(edit.path): self.host.path(edit.copy or edit.path) for edit in self.plan.edits}
        for path in (*sorted(edited), *self._protected()):
            self.before[path] = self.host.disk.read(path)
        for path in sorted(edited):
            content = self.before[path]
            if content is not None:
                backup = Path("%s.%d.%s~" % (edited[path], os.getpid(), time.strftime("%Y-%m-%d@%H:%M:%S")))
                self.host.disk.replace(backup, content, like=path)
                self.backups[path] = backup
        if self.plan.commands:
            self.host.disk.replace(self.marker, b"")

    def _protected(self) -> list[Path]:
        found = []
        for pattern in self.plan.protects:
            found += [Path(name) for name in glob.glob(str(self.host.path(pattern)))]
        return sorted(found)

    def roll_back(self) -> str:
        """Put every file back; what state that leaves the host in."""
        disk = self.host.disk
        touched = self.commands_ran
        failed = []
        for path in {**dict.fromkeys(self._protected()), **self.before}:
            content = self.before.get(path)
            try:
                if disk.read(path) == content:
                    continue
                touched = True
                if content is None:
                    disk.remove(path)
                else:
                    disk.replace(path, content)
            except OSError:
                failed.append(path)
        if failed:
            kept = [str(self.backups[path]) for path in failed if path in self.backups]
            return "%s could not be put back%s." % (
                ", ".join(str(path) for path in failed),
                "; copies of the former files: %s" % ", ".join(kept) if kept else "",
            )
        left = self._repair()
        self._tidy(keep_backups=False)
        return left if touched else NOTHING_CHANGED

    def _repair(self) -> str:
        for run in self.plan.repair if self.commands_ran else ():
            try:
                self.host.run(run.argv)
            except BootError as error:
                return "%s But what its commands had written may be left: %s" % (RESTORED, error.cause)
        return "%s %s" % (RESTORED, self.plan.stays) if self.plan.stays and self.commands_ran else RESTORED

    def finish(self, keep_backups: bool) -> list[str]:
        """Remove the marker and, unless they are to be kept, the copies; the names of the copies that are kept."""
        self._tidy(keep_backups)
        return [str(path) for path in self.backups.values()]

    def _tidy(self, keep_backups: bool) -> None:
        unwanted: Sequence[Path] = [] if keep_backups else list(self.backups.values())
        for path in (*unwanted, self.marker):
            try:
                self.host.disk.remove(path)
            except OSError:
                continue
        if not keep_backups:
            self.backups.clear()
