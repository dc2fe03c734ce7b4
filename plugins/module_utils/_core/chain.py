# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An audit trail: JSON lines of which each holds the SHA-256 of the line before it.

A trail is a folder's files ``NAME.jsonl``, which is written to, and ``NAME.<first number>.jsonl``, which were.
The CC manager's image holds this file, too (container/cc_manager/chain.py is a link to it): it imports nothing of the
collection, and raises OSError and ValueError alone.

A line is canonical JSON in ASCII: ``number`` counts from 1 over all files, ``previous`` is the SHA-256 of the line
before (GENESIS for the first), ``digest`` that of the record without its own digest. The first record of each later
file names the files that are kept (``continued``), so that one that is taken away is missed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import stat
import time
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence

GENESIS = "0" * 64
VERSION = 1
FILE_MAX_BYTES = 1 << 20
FILES_KEPT = 8
LINE_MAX_BYTES = 64 << 10
LOCK_WAIT_S = 2.0
CONTINUED, REPAIRED, INTERRUPTED = "continued", "repaired", "interrupted"
NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
HASH = re.compile(r"[0-9a-f]{64}")


class Tail(NamedTuple):
    """The last record of a trail: its number, and the SHA-256 of its line. An empty trail's are 0 and GENESIS."""

    number: int = 0
    hash: str = GENESIS

    @property
    def text(self) -> str:
        """'12 <hash>', as it is kept elsewhere to anchor the trail."""
        return "%d %s" % self


def anchor(text: str) -> Optional[Tail]:
    """The Tail in a text of Tail.text; None if it is none."""
    number, _space, digest = text.partition(" ")
    return Tail(int(number), digest) if number.isdecimal() and HASH.fullmatch(digest) else None


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def canonical(record: Mapping[str, Any]) -> bytes:
    """The one way to write a record down. Raises ValueError for what JSON does not know."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def line_of(record: Mapping[str, Any]) -> bytes:
    """The record as a line, without the end of the line. Raises ValueError when it is too long."""
    line = canonical({**record, "digest": sha256(canonical(record))})
    if len(line) >= LINE_MAX_BYTES:
        raise ValueError("a record of %d bytes is longer than %d" % (len(line), LINE_MAX_BYTES))
    return line


def record_of(line: bytes) -> dict[str, Any]:
    """The record in a line. Raises ValueError unless it is, byte for byte, what line_of made."""
    try:
        record = json.loads(line)
        del record["digest"]
        HASH.fullmatch(record["previous"])
        is_number = isinstance(record["number"], int) and not isinstance(record["number"], bool)
        is_whole = line_of(record) == line and is_number
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError("no record: %s" % type(error).__name__) from error
    if not is_whole:
        raise ValueError("the record is not what its digest says")
    return dict(record)


# --- writing ----------------------------------------------------------------------------------------------------------


class Trail:
    """The trail NAME in a folder, for one writer at a time. Nothing is kept open between records."""

    def __init__(
        self,
        folder: str,
        name: str,
        file_max_bytes: int = FILE_MAX_BYTES,
        files_kept: int = FILES_KEPT,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not NAME.fullmatch(name):
            raise ValueError("%r is no name of a trail" % name)
        self._folder = folder
        self._name = name
        self._file_max_bytes = file_max_bytes
        self._files_kept = files_kept
        self._now = now
        self._path = os.path.join(folder, name + ".jsonl")
        self._known: Optional[Tail] = None  # as this process left it

    def repair(self) -> Tail:
        """Cut off a last line that a kill or a power cut has left torn, and record that; the tail.

        Raises OSError, ValueError.
        """
        if not os.path.lexists(self._path) and not _rotated(self._folder, self._name):
            return Tail()
        with self._locked():
            self._known = self._tail()[0]
            return self._known

    def append(self, event: str, fields: Mapping[str, Any]) -> Tail:
        """Add a record; it is on the disk when this returns. Raises OSError, ValueError: then it may not be there."""
        os.makedirs(self._folder, mode=0o750, exist_ok=True)
        with self._locked():
            tail, size = self._tail()
            records = [(event, dict(fields))]
            if self._known is not None and self._known != tail:
                records.insert(0, (INTERRUPTED, {"left": self._known._asdict(), "found": tail._asdict()}))
            for one, content in records:
                tail, size = self._add(tail, size, one, content)
            self._known = tail
            return tail

    def _add(self, tail: Tail, size: int, event: str, fields: Mapping[str, Any]) -> tuple[Tail, int]:
        line, after = self._line(tail, event, fields)
        if size and size + len(line) > self._file_max_bytes:
            os.rename(self._path, os.path.join(self._folder, _rotated_name(self._name, self._first_number())))
            size = 0
        if size:
            _append(self._path, size, line)
            return after, size + len(line)
        kept = _rotated(self._folder, self._name)[-self._files_kept :]
        begun = b""
        if kept:
            begun, tail = self._line(tail, CONTINUED, {"kept": kept})
            line, after = self._line(tail, event, fields)
        _replace(self._path, begun + line)
        for name in _rotated(self._folder, self._name)[: -self._files_kept]:
            os.unlink(os.path.join(self._folder, name))
        return after, len(begun + line)

    def _line(self, tail: Tail, event: str, fields: Mapping[str, Any]) -> tuple[bytes, Tail]:
        whole = {
            **fields,
            "event": event,
            "version": VERSION,
            "number": tail.number + 1,
            "previous": tail.hash,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._now())),
        }
        line = line_of(whole)
        return line + b"\n", Tail(tail.number + 1, sha256(line))

    def _tail(self) -> tuple[Tail, int]:
        """The tail and the size of the current file in bytes, 0: there is none. A torn line is cut off."""
        try:
            data = _read(self._path, self._file_max_bytes + 4 * LINE_MAX_BYTES)
        except FileNotFoundError:
            older = _rotated(self._folder, self._name)  # a kill came between the renaming and the new file
            data = _read(os.path.join(self._folder, older[-1]), 1 << 30) if older else b""
            return _tail_of(data), 0
        whole, newline, torn = data.rpartition(b"\n")
        if not torn:
            return _tail_of(data), len(data)
        if whole:
            tail = _tail_of(whole + newline)
        else:
            older = _rotated(self._folder, self._name)
            tail = _tail_of(_read(os.path.join(self._folder, older[-1]), 1 << 30)) if older else Tail()
        line, tail = self._line(tail, REPAIRED, {"cut_bytes": len(torn), "cut_sha256": sha256(torn)})
        # At once: a kill in between must not leave a trail that was cut and does not say it.
        _replace(self._path, whole + newline + line)
        return tail, len(whole + newline + line)

    def _first_number(self) -> int:
        with open(self._path, "rb") as file:
            return _number_of(file.readline(LINE_MAX_BYTES).rstrip(b"\n")) or 0

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two writers do not mix; one that hangs keeps nobody from a change of mode for longer than LOCK_WAIT_S."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(os.path.join(self._folder, ".%s.lock" % self._name), flags, 0o600)
        try:
            ends = time.monotonic() + LOCK_WAIT_S
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= ends:
                        raise
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)


def _append(path: str, size: int, line: bytes) -> None:
    """Add a line to a file of that size; what cannot be written whole is taken back. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if os.pwrite(descriptor, line, size) != len(line):
            raise OSError(errno.ENOSPC, "the record was not written whole", path)
        os.fsync(descriptor)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
    finally:
        os.close(descriptor)


def _replace(path: str, content: bytes) -> None:
    """Write the file, with its name on the disk, or leave it as it was. Raises OSError."""
    draft = path + ".tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft)
    with os.fdopen(os.open(draft, flags, 0o640), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: str, limit: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("%s is no file" % path)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError("%s has more than %d bytes: no trail is that long" % (path, limit))
    return data


def _rotated_name(name: str, first: int) -> str:
    return "%s.%012d.jsonl" % (name, first)


def _rotated(folder: str, name: str) -> list[str]:
    """The files that are no longer written to, in their order."""
    pattern = re.compile(re.escape(name) + r"\.[0-9]{12}\.jsonl")
    try:
        return sorted(one for one in os.listdir(folder) if pattern.fullmatch(one))
    except FileNotFoundError:
        return []


def _tail_of(data: bytes) -> Tail:
    """Of whole lines. A last line that was tampered with is gone on from: ``checked`` finds it."""
    lines = data.split(b"\n")[:-1]
    for back, line in enumerate(reversed(lines)):
        number = _number_of(line)
        if number is not None:
            return Tail(number + back, sha256(lines[-1]))
    return Tail(len(lines), sha256(lines[-1])) if lines else Tail()


def _number_of(line: bytes) -> Optional[int]:
    with contextlib.suppress(ValueError):
        return int(record_of(line)["number"])
    found = re.findall(rb'"number":([0-9]{1,12})[,}]', line)
    return int(found[-1]) if found else None


# --- reading ----------------------------------------------------------------------------------------------------------


class Finding(NamedTuple):
    """What is not in order: ``what`` is modified, removed or truncated; ``number`` of the record, 0: not known."""

    what: str
    file: str
    line: int
    number: int
    text: str


class Checked(NamedTuple):
    """A trail as it was found. ``notes``: what a reader has to know and that breaks nothing."""

    name: str
    records: list[dict[str, Any]]
    tail: Tail
    findings: list[Finding]
    notes: list[str]

    @property
    def state(self) -> str:
        """whole, broken or empty."""
        return "broken" if self.findings else "whole" if self.tail.number else "empty"


def names(folder: str) -> list[str]:
    """The trails of a folder; none where there is no folder. Raises OSError."""
    pattern = re.compile(r"(%s)(?:\.[0-9]{12})?\.jsonl" % NAME.pattern)
    try:
        return sorted({found.group(1) for found in map(pattern.fullmatch, os.listdir(folder)) if found})
    except FileNotFoundError:
        return []


def check(folder: str, name: str, anchors: Iterable[Tail] = ()) -> Checked:
    """Read a trail and check it. Raises OSError, ValueError for a file that cannot be read."""
    files = [*_rotated(folder, name), name + ".jsonl"]
    contents = []
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            contents.append((file, _read(os.path.join(folder, file), 1 << 27)))
    return checked(name, contents, anchors)


def checked(name: str, files: Sequence[tuple[str, bytes]], anchors: Iterable[Tail] = ()) -> Checked:
    """Check the files of a trail, in their order.

    ``anchors``: tails that are known from elsewhere. Without one nobody can tell that the last records were cut off.
    """
    found = _Check(name)
    for file, data in files:
        found.file(file, data, is_last=file == files[-1][0])
    found.kept_files([file for file, _data in files])
    for one in anchors:
        found.anchor(one)
    return Checked(name, found.records, found.tail, found.findings, found.notes)


class _Check:
    def __init__(self, name: str) -> None:
        self._name = name
        self.records: list[dict[str, Any]] = []
        self.findings: list[Finding] = []
        self.notes: list[str] = []
        self.tail = Tail()
        self._hashes: dict[int, str] = {}
        self._last_was_bad = False
        self._is_first = True
        self._time = ""

    def file(self, file: str, data: bytes, is_last: bool) -> None:
        *lines, torn = data.split(b"\n")
        for place, line in enumerate(lines, 1):
            self._line(file, place, line)
        if torn and is_last:
            self.notes.append(
                "The last line of %s is torn (%d bytes): a kill, a power cut, or a change that was made by hand. "
                "The next record repairs it." % (file, len(torn))
            )
        elif torn:
            self._find("modified", file, len(lines) + 1, 0, "The file does not end with a whole line.")
        if not data and not is_last:
            self._find("removed", file, 1, 0, "The file is empty.")

    def _find(self, what: str, file: str, line: int, number: int, text: str) -> None:
        self.findings.append(Finding(what, file, line, number, text))

    def _line(self, file: str, place: int, line: bytes) -> None:
        expected = self.tail
        try:
            record = record_of(line)
        except ValueError as error:
            self._find("modified", file, place, expected.number + 1, "The record was changed: %s." % error)
            self.tail, self._last_was_bad, self._is_first = Tail(expected.number + 1, sha256(line)), True, False
            return
        number = record["number"]
        if self._is_first and number > 1 and record["event"] == CONTINUED and place == 1:
            self.notes.append("Records 1 to %d were dropped by rotation." % (number - 1))
        elif number > expected.number + 1:
            text = "%d records before number %d are missing." % (number - expected.number - 1, number)
            self._find("removed", file, place, number, text)
        elif number <= expected.number:
            self._find("modified", file, place, number, "Number %d is there again, or out of order." % number)
        elif record["previous"] != expected.hash and not self._last_was_bad:
            text = "The record does not follow on the one before it: one of the two was changed."
            self._find("modified", file, place, number, text)
        if record["event"] == INTERRUPTED:
            self._find("truncated", file, place, number, _interrupted(record))
        if record["event"] == REPAIRED:
            self.notes.append("Number %d: a torn line of %s bytes was cut off." % (number, record.get("cut_bytes")))
        if str(record.get("time", "")) < self._time:
            self.notes.append("Number %d: the clock went back to %s." % (number, record.get("time")))
        self._time = str(record.get("time", ""))
        self.tail, self._last_was_bad, self._is_first = Tail(number, sha256(line)), False, False
        self._hashes[number] = self.tail.hash
        self.records.append(record)

    def kept_files(self, files: Sequence[str]) -> None:
        """A file that the last rotation has kept must be there."""
        kept = next((one.get("kept") for one in reversed(self.records) if one["event"] == CONTINUED), None)
        for name in kept if isinstance(kept, list) else ():
            if name not in files:
                self._find("removed", str(name), 0, 0, "The file is gone, with all its records.")

    def anchor(self, one: Tail) -> None:
        """Hold the trail against a tail that is known from elsewhere."""
        if one.number > self.tail.number:
            text = "Number %d, which is known from elsewhere, is not there: the end was cut off." % one.number
            self._find("truncated", self._name + ".jsonl", 0, one.number, text)
        elif one.number and one.number in self._hashes and self._hashes[one.number] != one.hash:
            text = "Number %d is another record than the one that is known from elsewhere." % one.number
            self._find("modified", self._name + ".jsonl", 0, one.number, text)
        elif one.number and one.number not in self._hashes and not self.findings:
            self.notes.append("Number %d, which is known from elsewhere, was dropped by rotation." % one.number)


def _interrupted(record: Mapping[str, Any]) -> str:
    try:
        left, found = record["left"]["number"], record["found"]["number"]
    except (KeyError, TypeError):
        left = found = "?"
    return "The writer had left the trail at number %s and found it at number %s." % (left, found)
