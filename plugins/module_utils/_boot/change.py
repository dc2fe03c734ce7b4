# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A plan carried out: all of it, or as if it had never begun.

What a run that was killed leaves behind is whole files, old or new, and the marker: the next run then repeats the
loader's commands though its files are right.
"""

from __future__ import annotations

import errno
import glob
import os
import time
from pathlib import Path
from typing import Callable, Optional, Sequence

from .._core.errors import ExplainedError, errno_words
from .errors import NOTHING_CHANGED, BootError, NoSpace, NotWritable
from .host import Host, missing
from .plan import MARKER, Done, Edit, Plan

# Besides the files themselves: room for what a loader's command writes.
SPARE = 1 << 20

RESTORED = "Every file was put back as it was."


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
