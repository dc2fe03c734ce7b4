# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The folder of sockets: made before a container mounts it, so that no stranger can plant a socket.

A container runtime makes a missing folder itself, as root's and with mode 0755, whatever was meant.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ..machine import Machine
from .config import Folder


class BadFolder(Exception):
    """What is in its place, or above it, is not to be trusted, or cannot be changed."""


def ensure(folder: Folder, machine: Machine) -> None:
    """Make it, or mend its owner and mode. Raises BadFolder."""
    place = machine.at(folder.path)
    try:
        _ensure(folder, place)
    except OSError as error:
        remedy = ""
        if isinstance(error, PermissionError):
            remedy = f" Without capabilities it takes the group {folder.gid}, and CHOWN for another owner than oneself."
        raise BadFolder(f"{folder.path}: {error.strerror or error}.{remedy}") from error


def _ensure(folder: Folder, place: Path) -> None:
    for parent in reversed([one for one in place.parents if not one.exists()]):
        parent.mkdir(mode=0o755, exist_ok=True)
    above = os.stat(place.parent)
    if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
        raise BadFolder(
            f"{folder.path}: everybody can write to the folder above it and replace it. Take that right away."
        )
    with contextlib.suppress(FileExistsError):
        os.mkdir(place, 0o700)  # nobody's until it is as it should be
    found = os.lstat(place)
    if not stat.S_ISDIR(found.st_mode):
        raise BadFolder(f"{folder.path} is no folder. Remove what is in its place.")
    if _is_as_desired(found, folder):
        return  # not even opened: root without capabilities may not read what is another's
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if stat.S_IMODE(found.st_mode) != folder.mode:  # first, while it is ours
            os.fchmod(descriptor, folder.mode)
        if (found.st_uid, found.st_gid) != (folder.uid, folder.gid):
            os.fchown(descriptor, folder.uid, folder.gid)
    finally:
        os.close(descriptor)


def _is_as_desired(found: os.stat_result, folder: Folder) -> bool:
    return (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (folder.uid, folder.gid, folder.mode)
