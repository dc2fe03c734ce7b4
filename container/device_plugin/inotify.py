# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Events of folders, from the kernel, in the event loop: nothing is looked at until something happens.

Where the kernel gives no more inotify instances or watches, folders are looked at by the clock instead.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)
# <sys/inotify.h>
ATTRIB, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x4, 0x8, 0x40, 0x80
CREATE, DELETE, DELETE_SELF, MOVE_SELF = 0x100, 0x200, 0x400, 0x800
Q_OVERFLOW, IGNORED = 0x4000, 0x8000
NAMES = CREATE | DELETE | MOVED_FROM | MOVED_TO | ATTRIB | DELETE_SELF | MOVE_SELF
# Not for /dev: each end of writing to /dev/null is one.
WRITES = CLOSE_WRITE
# Several watches of one folder are one to the kernel, which is to have the events of all.
MASK_ADD = 0x20000000
HEADER = struct.Struct("iIII")
LOOK_S = 0.25
Told = Callable[[], None]


@dataclass(eq=False)
class Watch:
    """A folder that is watched for somebody. While it is not there, the nearest folder above it that is."""

    folder: Path
    told: Told
    writes: bool
    number: int = -1  # the kernel's; -1: looked at by the clock
    place: Path | None = None


class Watcher:
    """Watches of folders. ``told`` is called after any event in the folder, and looks itself what it was."""

    def __init__(self, look_s: float = LOOK_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._look_s = look_s
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._watches: list[Watch] = []
        self._timer: asyncio.TimerHandle | None = None
        self._file = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file >= 0:
            self._loop.add_reader(self._file, self._read)

    def watch(self, folder: Path, told: Told, writes: bool = False) -> Watch:
        """Call ``told`` from now on, also when the folder comes or goes. ``writes``: when a file was written, too."""
        watch = Watch(folder, told, writes)
        self._watches.append(watch)
        self._arm(watch)
        return watch

    def end(self, watch: Watch) -> None:
        """Call no more."""
        self._watches.remove(watch)
        self._disarm(watch)

    def close(self) -> None:
        """End all."""
        for watch in list(self._watches):
            self.end(watch)
        if self._timer is not None:
            self._timer.cancel()
        if self._file >= 0:
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    def _arm(self, watch: Watch) -> None:
        """Watch the folder, or the nearest above it. What came in between is seen by who looks after this."""
        nearer = None
        for place in (watch.folder, *watch.folder.parents):
            if not place.is_dir():
                nearer = place
                continue
            mask = NAMES | MASK_ADD | (WRITES if watch.writes else 0)
            number = self._libc.inotify_add_watch(self._file, os.fsencode(place), mask) if self._file >= 0 else -1
            if number < 0 and ctypes.get_errno() in (errno.ENOENT, errno.ENOTDIR) and self._file >= 0:
                nearer = place  # it went just now
                continue
            if number < 0:
                self._look_by_the_clock()
            watch.number, watch.place = number, place
            if number >= 0 and nearer is not None and nearer.is_dir():  # it came just now
                self._disarm(watch)
                self._arm(watch)
            return

    def _disarm(self, watch: Watch) -> None:
        if watch.number >= 0 and all(one.number != watch.number for one in self._watches if one is not watch):
            self._libc.inotify_rm_watch(self._file, watch.number)
        watch.number = -1

    def _look_by_the_clock(self) -> None:
        if self._timer is None:
            reason = os.strerror(ctypes.get_errno())
            LOG.warning(
                "The kernel gives no more inotify watches (%s): folders are looked at each %g s. "
                "Raise fs.inotify.max_user_instances and max_user_watches of the host.",
                reason,
                self._look_s,
            )
            self._timer = self._loop.call_later(self._look_s, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._look_s, self._look)
        for watch in list(self._watches):
            if watch.number < 0:
                watch.told()

    def _read(self) -> None:
        try:
            data = os.read(self._file, 1 << 16)
        except BlockingIOError:
            return
        numbers: set[int] = set()
        gone: set[int] = set()
        at = 0
        while at < len(data):
            number, mask, _cookie, length = HEADER.unpack_from(data, at)
            at += HEADER.size + length
            if mask & Q_OVERFLOW:
                numbers.update(watch.number for watch in self._watches)
            if mask & (DELETE_SELF | MOVE_SELF | IGNORED):
                gone.add(number)
            numbers.add(number)
        for watch in [one for one in self._watches if one.number in numbers]:
            if watch.number in gone or watch.place != watch.folder:
                self._disarm(watch)
                self._arm(watch)
            watch.told()
