# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which process has which file open or mapped, by what the file is and not by how it is called.

A character device is its number, whatever node it was opened through. A file of sysfs is its inode: each network
namespace has a sysfs of its own, with other device numbers and the same inodes (fs/kernfs), so the end of the path
stands in for the device number there.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Iterable, Iterator, Mapping, NamedTuple, Optional, Union

# include/linux/proc_ns.h, PROC_PID_INIT_INO: the namespace in which every process of the host can be seen.
FIRST_PID_NAMESPACE = "pid:[4026531836]"
# What a descriptor can be that no device is: not worth a look, and a file of a dead network file system can hang it.
NO_FILES = ("socket:", "pipe:", "anon_inode:", "/memfd:", "net:", "mnt:")
# One line of /proc/PID/maps: device, inode, path (Documentation/filesystems/proc.rst).
_MAPPED = re.compile(rb"^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) +(/.*)$", re.MULTILINE)

Identity = tuple[Union[str, int], ...]
Key = tuple[str, str]  # a function's address, and what its file is called


class Opened(NamedTuple):
    """A process that has one of the files open or mapped."""

    pid: int
    command: str
    key: Key


class Processes(NamedTuple):
    """What other processes have open. ``blind``: why some may not have been seen, '' if all were."""

    opened: tuple[Opened, ...] = ()
    blind: str = ""


class Wanted:
    """Files to look for: from identity to the keys that are given back. A file may belong to several functions."""

    def __init__(self) -> None:
        self.keys: dict[Identity, list[Key]] = {}

    def add_file(self, path: Path, key: Key) -> None:
        """A file, or a device node, that may or may not be there."""
        try:
            found = os.stat(path)
        except OSError:
            return
        for identity in identities(found, os.fspath(path)):
            self._add(identity, key)

    def add_device(self, number: int, key: Key, kind: str = "char") -> None:
        """A device by its number ('char' or 'block'); its node may lie anywhere, or nowhere."""
        self._add((kind, number), key)

    def _add(self, identity: Identity, key: Key) -> None:
        keys = self.keys.setdefault(identity, [])
        if key not in keys:
            keys.append(key)


def identities(found: os.stat_result, path: str) -> Iterator[Identity]:
    """What a file is: a device's number, or device and inode; for sysfs also inode and the end of the path."""
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        yield "char" if stat.S_ISCHR(found.st_mode) else "block", found.st_rdev
        return
    yield "file", found.st_dev, found.st_ino
    yield "sysfs", found.st_ino, _tail(path)


def _tail(path: str) -> str:
    """The folder and the name: '0000:17:00.0/config'."""
    return "/".join(path.split("/")[-2:])


def look(root: Path, wanted: Wanted) -> Processes:
    """Look at every process. One that ends meanwhile has nothing open."""
    opened: set[Opened] = set()
    proc = root / "proc"
    blind = _blindness(proc)
    for process in _processes(proc):
        try:
            keys = {*_open_keys(process, wanted.keys), *_mapped_keys(process, wanted.keys)}
        except PermissionError:
            blind = blind or "the files of process %s cannot be seen" % process.name
            continue
        opened |= {Opened(int(process.name), _command(process), key) for key in keys}
    return Processes(tuple(sorted(opened)), blind)


def _blindness(proc: Path) -> str:
    """Why this /proc may not show all of the host's processes."""
    try:
        namespace = os.readlink(proc / "self/ns/pid")
        os.listdir(proc / "1/fd")
    except OSError:
        return "the processes of the host cannot be seen"
    return "" if namespace == FIRST_PID_NAMESPACE else "only processes of this container can be seen"


def _processes(proc: Path) -> Iterator[Path]:
    try:
        names = os.listdir(proc)
    except OSError:
        return
    for name in names:
        if name.isdigit() and int(name) != os.getpid():
            yield proc / name


def _open_keys(process: Path, keys: Mapping[Identity, list[Key]]) -> Iterator[Key]:
    folder = os.fspath(process / "fd")
    for descriptor in _listed(folder):
        link = "%s/%s" % (folder, descriptor)
        try:
            target = os.readlink(link)
            if target.startswith(NO_FILES):
                continue
            found = os.stat(link)
        except OSError:
            continue
        yield from _known(identities(found, target), keys)


def _listed(folder: str) -> list[str]:
    """The names in a folder; none when its process has ended. Raises PermissionError."""
    try:
        return os.listdir(folder)
    except PermissionError:
        raise
    except OSError:
        return []


def _mapped_keys(process: Path, keys: Mapping[Identity, list[Key]]) -> Iterator[Key]:
    """A mapping outlives the descriptor that it was made with."""
    try:
        text = (process / "maps").read_bytes()
    except PermissionError:
        raise
    except OSError:
        return
    for major, minor, inode, path in _MAPPED.findall(text):
        device = os.makedev(int(major, 16), int(minor, 16))
        number = int(inode)
        yield from _known((("file", device, number), ("sysfs", number, _tail(os.fsdecode(path)))), keys)


def _known(found: Iterable[Identity], keys: Mapping[Identity, list[Key]]) -> Iterator[Key]:
    return (key for identity in found for key in keys.get(identity, ()))


def _command(process: Path) -> str:
    """The command's name; a name can be any bytes."""
    try:
        return (process / "comm").read_bytes().decode("utf-8", "backslashreplace").strip()
    except OSError:
        return "?"


def device_number(file: Path) -> Optional[int]:
    """The number in an attribute ``dev`` of sysfs ('240:3'); None where there is none."""
    try:
        major, _colon, minor = file.read_text(encoding="ascii").strip().partition(":")
        return os.makedev(int(major), int(minor))
    except (OSError, ValueError):
        return None
