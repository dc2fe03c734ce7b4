# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A host's record of a rollout: whose change it is, how far it is, and the modes before it.

It is the host's part of the lock of a fleet: while it is open, no other rollout may begin here. It holds what no later
look at the devices can tell, the modes before the change; how the devices are now is read from the devices.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, Mapping, NamedTuple, Optional

from .._core import files
from .._core.errors import InvalidRequest, NotPermitted, errno_words
from .errors import HeldByAnother, RecordUnreadable

# The host is taken; its change has begun; its wave has passed the gates; all is done and the host is free.
CLAIMED, BEGUN, PASSED, ENDED = "claimed", "begun", "passed", "ended"
STATES = (CLAIMED, BEGUN, PASSED, ENDED)
LARGEST = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TEXTS = ("name", "mode", "by", "since", "state")


class Request(NamedTuple):
    """Who wants to begin. ``now``: ISO 8601 in UTC. ``take_over``: a rollout whose record may be replaced."""

    name: str
    mode: str
    by: str
    now: str
    undo: bool = False
    take_over: str = ""


class Record(NamedTuple):
    """``before``: mode by PCI address, as it was read before the first change. ``undo``: it is being put back."""

    name: str
    mode: str
    by: str
    since: str
    state: str
    undo: bool = False
    before: Mapping[str, str] = {}

    @property
    def is_open(self) -> bool:
        """Whether the host is taken."""
        return self.state != ENDED

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**self._asdict(), "before": dict(self.before)}


def checked_name(name: str) -> str:
    """The name of a rollout. Raises InvalidRequest."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            "%r is not a rollout's name." % name,
            "Use letters, digits, '.', '_' and '-', at most 63, the first a letter or a digit.",
        )
    return name


def begin(old: Optional[Record], request: Request, before: Optional[Mapping[str, str]] = None) -> Record:
    """The record with which ``request`` has the host; with ``before``, the change begins.

    Raises HeldByAnother, InvalidRequest.

    Begun again under the same name, the modes that were there at first stay.
    """
    if old is None or old.name != request.name:
        if old is not None and old.is_open and old.name != request.take_over:
            raise held_by_another(old)
        if request.undo:
            raise InvalidRequest(
                "There is no record of the rollout %s here, so nothing is known that could be put back." % request.name,
                "Give the name of the rollout that changed this host, or set the mode with cc_mode.",
            )
        old = Record(request.name, request.mode, request.by, request.now, CLAIMED)
    elif not request.undo and request.mode != old.mode:
        raise InvalidRequest(
            "The rollout %s was begun for mode %s, not %s." % (old.name, old.mode, request.mode),
            "Give the new one another name (rollout_name).",
        )
    turned = request.undo != old.undo
    if before is None and not turned:
        return old
    if not old.is_open:
        old = old._replace(by=request.by, since=request.now)
    state = CLAIMED if before is None else BEGUN
    return old._replace(state=state, undo=request.undo, before={**(before or {}), **old.before})


def passed(old: Optional[Record], name: str) -> Optional[Record]:
    """The record when the wave has passed. Raises HeldByAnother."""
    ours = _ours(old, name)
    return ours._replace(state=PASSED) if ours is not None and ours.state == BEGUN else ours


def end(old: Optional[Record], name: str) -> Optional[Record]:
    """The record that lets others begin. Raises HeldByAnother."""
    ours = _ours(old, name)
    return ours._replace(state=ENDED) if ours is not None else None


def held_by_another(record: Record) -> HeldByAnother:
    """What to say to one who comes second."""
    return HeldByAnother(
        "The rollout %s (mode %s) has this host: begun by %s at %s, state %s."
        % (record.name, record.mode, record.by, record.since, record.state),
        "Let it finish, or run it again with rollout_name=%s to resume it. If it is given up for good, take the host "
        "over with rollout_take_over=%s; the modes that were there before it are then no longer known."
        % (record.name, record.name),
        record=record.as_dict(),
    )


def _ours(old: Optional[Record], name: str) -> Optional[Record]:
    if old is not None and old.name != name and old.is_open:
        raise held_by_another(old)
    return old if old is not None and old.name == name else None


def read(path: str) -> Optional[Record]:
    """The record, None where there is none. Raises RecordUnreadable: what cannot be read may be another's."""
    try:
        # A symlink is not followed, a FIFO is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, errno_words(error)) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _unreadable(path, "it is not a file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST)
    finally:
        os.close(descriptor)
    try:
        return _record(json.loads(content.decode()))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unreadable(path, "it holds no record of a rollout (%s)" % error) from error


def _record(found: Any) -> Record:
    """Raises ValueError, TypeError, KeyError."""
    texts = {name: found[name] for name in _TEXTS}
    before = found["before"]
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    if wrong or texts["state"] not in STATES or not isinstance(found["undo"], bool) or not isinstance(before, dict):
        raise ValueError("unexpected %s" % (", ".join(wrong) or "state, undo or before"))
    if not all(isinstance(mode, str) for mode in before.values()):
        raise ValueError("unexpected mode in before")
    return Record(undo=found["undo"], before=before, **texts)


def write(path: str, record: Record) -> None:
    """Replace the file, for root's eyes only. Raises NotPermitted."""
    try:
        text = json.dumps(record.as_dict(), indent=2, sort_keys=True) + "\n"
        files.replace(path, text.encode(), mode=0o600)
    except (OSError, ValueError) as error:
        words = errno_words(error) if isinstance(error, OSError) else str(error)
        raise NotPermitted(
            "The record of the rollout %r cannot be written: %s." % (path, words),
            "Run as root (become: true), or give a path that is writable.",
            path=path,
            errno=getattr(error, "errno", None),
        ) from error


def _unreadable(path: str, why: str) -> RecordUnreadable:
    return RecordUnreadable(
        "The record %s cannot be read: %s. It may be that of another rollout." % (path, why),
        "Run as root (become: true). If the record is broken, look at it, see that no rollout is at work, remove it.",
        path=path,
    )
