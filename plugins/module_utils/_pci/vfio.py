# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's vfio groups: which file a group has, and opening it, which the kernel lets one process do at a time.

Kernel (drivers/vfio/group.c): a group opens for one process, and not while a device of it is open through its character
device (``/dev/vfio/devices``). Opening a group touches no device; only asking it for a device does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from .processes import device_number

DRIVERS = ("vfio-pci", "nvgrace_gpu_vfio_pci", "nvgrace-gpu-vfio-pci", "vfio-pci-core")
CLASS = "sys/class/vfio"
# Where a node may be made: a container's own /dev; /run; and wherever temporary files go.
NODE_FOLDERS = ("/dev", "/run", tempfile.gettempdir())


class Group(NamedTuple):
    """A group's name ('27', 'noiommu-27'), the file in our /dev, and its device number where the kernel tells it."""

    name: str
    path: Path
    number: Optional[int]


def group(root: Path, iommu_group: int) -> Optional[Group]:
    """The vfio group of an IOMMU group; None when the kernel has none: no device at vfio, or no groups built in."""
    for name in ("%d" % iommu_group, "noiommu-%d" % iommu_group):
        number = device_number(root / CLASS / name / "dev")
        path = root / "dev/vfio" / name
        if number is not None or path.exists():
            return Group(name, path, number)
    return None


def character_devices(device: Path) -> dict[str, int]:
    """The device's own files in /dev/vfio/devices, name to number; none on kernels that have groups only."""
    numbers = {node.name: device_number(node / "dev") for node in sorted((device / "vfio-dev").glob("*"))}
    return {name: number for name, number in numbers.items() if number is not None}


class Opener:
    """Opens groups. Both return a descriptor; raise OSError: EBUSY when another process has it."""

    def by_file(self, path: Path) -> int:
        """Through the file in /dev."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def by_number(self, number: int) -> int:
        """Through a node of our own, made for the moment: /dev of a container has what was there at its start."""
        refused: Optional[OSError] = None
        for folder in NODE_FOLDERS:
            try:
                with _node(folder, number) as path:
                    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise
                refused = refused or error  # no folder, read-only, mounted nodev: another may do
        raise refused or FileNotFoundError(errno.ENOENT, "no folder for a device node")


@contextlib.contextmanager
def _node(folder: str, number: int) -> Iterator[str]:
    private = tempfile.mkdtemp(prefix=".confidential-gpu-", dir=folder)
    try:
        path = os.path.join(private, "group")
        os.mknod(path, stat.S_IFCHR | 0o600, number)
        yield path
    finally:
        shutil.rmtree(private, ignore_errors=True)


def open_group(found: Group, opener: Opener) -> int:
    """A descriptor of the group. Raises OSError."""
    if found.number is None:
        return opener.by_file(found.path)
    with contextlib.suppress(FileNotFoundError):
        if _number_of(found.path) in (None, found.number):
            return opener.by_file(found.path)
    return opener.by_number(found.number)


def _number_of(path: Path) -> Optional[int]:
    """The device number of a node; None for what is no node, which only trees made by tests have."""
    found = os.stat(path)
    return found.st_rdev if stat.S_ISCHR(found.st_mode) else None
