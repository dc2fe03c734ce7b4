# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Who uses a device: processes with its files open, and drivers that are in use.

Holders are looked for under an injected root: ``/proc/*/fd`` shows the processes that this process may see;
``claim`` finds the others, because the kernel opens a vfio group for one process at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Iterable, Iterator, NamedTuple, Optional

from .._core.errors import ExplainedError, NotPermitted, errno_words
from .bus import Function
from .errors import DeviceBusy

VFIO_DRIVERS = ("vfio-pci", "nvgrace_gpu_vfio_pci", "nvgrace-gpu-vfio-pci")


class Holder(NamedTuple):
    """A process (pid 0: not visible from here) and the file, or a driver, through which it holds a device."""

    address: str
    pid: int
    command: str
    file: str

    def words(self) -> str:
        """For a message."""
        if self.pid:
            return "process %d (%s) has %s open" % (self.pid, self.command, self.file)
        return "%s is in use" % self.file


def find(functions: Iterable[Function], root: str = "/") -> list[Holder]:
    """Everybody who uses one of the functions, this process apart."""
    base = Path(root)
    files: dict[str, list[str]] = {}  # a group's file belongs to every function of the group
    holders = []
    for function in functions:
        for path in device_files(function, base):
            files.setdefault(path, []).append(function.address)
        holder = _driver_in_use(function, base)
        if holder is not None:
            holders.append(holder)
    holders += _processes(files, base) if files else []
    return sorted(set(holders))


def device_files(function: Function, base: Path) -> list[str]:
    """The files through which a process can hold a function, as ``/proc/*/fd`` links name them."""
    files = []
    group = function.iommu_group()
    if group is not None:
        files += ["/dev/vfio/%d" % group, "/dev/vfio/noiommu-%d" % group]
    device = function.sysfs_path()
    if device is not None:
        real = "/" + os.path.relpath(os.path.realpath(device), os.path.realpath(base))
        resources = ["resource%d%s" % (number, kind) for number in range(6) for kind in ("", "_wc")]
        files += [os.path.join(real, name) for name in ("config", *resources)]
        folder = device / "vfio-dev"
        files += ["/dev/vfio/devices/%s" % name for name in (os.listdir(folder) if folder.is_dir() else [])]
        minor = _nvidia_minor(function.address, base)
        files += ["/dev/nvidia%s" % minor] if minor is not None else []
    return files


def _nvidia_minor(address: str, base: Path) -> Optional[str]:
    # NVIDIA's driver: /proc/driver/nvidia/gpus/<address>/information has a line "Device Minor: 0"
    try:
        lines = (base / "proc/driver/nvidia/gpus" / address / "information").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _colon, value = line.partition(":")
        if name.strip() == "Device Minor":
            return value.strip()
    return None


def _driver_in_use(function: Function, base: Path) -> Optional[Holder]:
    driver = function.driver()
    if driver is None or driver in VFIO_DRIVERS:
        return None
    module = base / "sys/bus/pci/drivers" / driver / "module"
    try:
        users = int((module / "refcnt").read_text())
    except (OSError, ValueError):
        return None
    return Holder(function.address, 0, "", "driver %s (%d users)" % (driver, users)) if users > 0 else None


def _processes(files: dict[str, list[str]], base: Path) -> list[Holder]:
    holders = []
    for process in (base / "proc").iterdir() if (base / "proc").is_dir() else []:
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        for path in (_open_files(process) | _mapped_bars(process)) & files.keys():
            for address in files[path]:
                holders.append(Holder(address, int(process.name), _command(process), path))
    return holders


def _open_files(process: Path) -> set[str]:
    targets = set()
    with contextlib.suppress(OSError):  # the process may end, or belong to somebody else
        for descriptor in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                targets.add(os.readlink(process / "fd" / descriptor))
    return targets


def _mapped_bars(process: Path) -> set[str]:
    """BARs that are mapped: a mapping outlives the descriptor it was made with."""
    try:
        maps = (process / "maps").read_bytes()
    except OSError:
        return set()
    if b"/resource" not in maps:
        return set()
    # address range, permissions, offset, device, inode, path
    fields = [os.fsdecode(line).split(None, 5) for line in maps.splitlines()]
    return {words[5] for words in fields if len(words) == 6}


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "?"


def busy(holders: Iterable[Holder]) -> ExplainedError:
    """The error that names who holds what."""
    listed = list(holders)
    return DeviceBusy(
        "In use: %s." % "; ".join("%s: %s" % (holder.address, holder.words()) for holder in listed),
        "Stop what uses the device (shut the virtual machine down, unload the driver), or wait for it with busy: wait.",
        device=listed[0].address,
        holders=[holder._asdict() for holder in listed],
    )


@contextlib.contextmanager
def claim(functions: Iterable[Function], root: str = "/") -> Iterator[None]:
    """Keep the vfio groups of the functions open, so that no virtual machine can start on them meanwhile.

    Raises DeviceBusy when a group is open elsewhere, even in a process that is not visible from here;
    NotPermitted when it may not be opened at all.
    """
    descriptors = []
    groups = {function.iommu_group(): function for function in functions if function.driver() in VFIO_DRIVERS}
    try:
        for group, function in groups.items():
            path = Path(root) / "dev/vfio" / str(group)
            try:
                descriptors.append(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    raise busy([Holder(function.address, 0, "", "vfio group %s" % group)]) from error
                raise NotPermitted(
                    "%s: the vfio group %s cannot be opened: %s." % (function.address, group, errno_words(error)),
                    "Run as root (become: true), in a container with the host's /dev/vfio.",
                    device=function.address,
                    errno=error.errno,
                ) from error
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
