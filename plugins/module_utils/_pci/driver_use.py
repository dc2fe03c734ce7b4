# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a device is used through the driver that is bound to it, other than vfio's.

A module's reference count is that of all its devices, and one for each module that builds on it (kernel/module/main.c,
ref_module): 0 proves that this one is idle too, more proves nothing about it. So the device is asked: what the kernel
made of it (network interfaces, disks, USB, sound cards, displays) and who has that open. A driver of which none of this
tells is not known to be idle.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator, Optional, Sequence

from .bus import Function
from .processes import Wanted, device_number

# Drivers whose users all come through the device's own files: processes that can be seen tell everything.
BY_FILES = ("snd_hda_intel", "nouveau")
# Drivers of USB controllers: all users come through the USB devices, which the kernel lists below the controller.
BY_USB = ("xhci_hcd", "ehci-pci", "ohci-pci", "uhci_hcd")
# Modules that build on a driver's and have a device only while a process has a file of theirs open, which counts there.
ONLY_BY_FILES = ("nvidia_uvm",)
# Drivers that only keep others away (drivers/pci/pci-stub.c).
NEVER_USE = ("pci-stub",)
# include/uapi/linux/if.h
IFF_UP = 0x1
# Documentation/admin-guide/devices.txt: NVIDIA's driver, one minor number for each GPU.
NVIDIA_MAJOR = 195


def add_files(function: Function, root: Path, wanted: Wanted) -> None:
    """The device nodes through which a process can use the function by its driver."""
    for kind, number, name in _nodes(_folder(function)):
        wanted.add_device(number, (function.address, "/dev/%s" % name), kind)
    minor = _nvidia_minor(function.address, root)
    if minor is not None:
        key = function.address, "/dev/nvidia%d" % minor
        wanted.add_device(os.makedev(NVIDIA_MAJOR, minor), key)
        wanted.add_file(root / "dev" / ("nvidia%d" % minor), key)


def users(function: Function, root: Path) -> list[str]:
    """What the host does with the function through its driver, in words; none seen is not yet idle."""
    folder = _folder(function)
    found = ["network interface %s is up" % name for name in _interfaces_up(folder)]
    found += ["disk %s is %s" % pair for pair in _disks_in_use(folder, root)]
    found += ["USB devices are attached to it" for _one in _usb_devices(folder)][:1]
    return found


def doubt(function: Function, root: Path, blind: str) -> str:
    """Why it is not known that the driver is idle; '' when it is. ``blind``: why not all processes were seen."""
    driver = function.driver()
    references = _references(root, str(driver))
    if references == 0 or driver in NEVER_USE:
        return ""
    if driver in BY_USB or (driver in BY_FILES and not blind):
        return ""
    if references is None:
        return "its driver %s does not say whether it is in use" % driver
    return "its driver %s has %d users, and which devices they use is not known" % (driver, references)


def _folder(function: Function) -> Optional[Path]:
    path = function.sysfs_path()
    return Path(os.path.realpath(path)) if path is not None else None


def _references(root: Path, driver: str) -> Optional[int]:
    """How many use the driver's module, idle modules that build on it apart; None if it is built in or does not say."""
    module = root / "sys/bus/pci/drivers" / driver / "module"
    count = _count(module)
    idle = [
        one for one in ONLY_BY_FILES if (module / "holders" / one).exists() and _count(module / "holders" / one) == 0
    ]
    return count - len(idle) if count is not None else None


def _count(module: Path) -> Optional[int]:
    try:
        return int((module / "refcnt").read_text())
    except (OSError, ValueError):
        return None


def _nodes(folder: Optional[Path]) -> Iterator[tuple[str, int, str]]:
    """What the kernel made of a device: 'char' or 'block', number, name."""
    for attribute in sorted(folder.glob("*/**/dev")) if folder is not None else []:
        number = device_number(attribute)
        if number is not None:
            yield "block" if _is_block(attribute.parent) else "char", number, attribute.parent.name


def _is_block(folder: Path) -> bool:
    try:
        return os.path.basename(os.readlink(folder / "subsystem")) == "block"
    except OSError:
        return False


def _interfaces_up(folder: Optional[Path]) -> Sequence[str]:
    names = []
    for flags in sorted(folder.glob("net/*/flags")) if folder is not None else []:
        try:
            if int(flags.read_text(), 16) & IFF_UP:
                names.append(flags.parent.name)
        except (OSError, ValueError):
            names.append(flags.parent.name)  # what is not known is in use
    return names


def _disks_in_use(folder: Optional[Path], root: Path) -> Iterator[tuple[str, str]]:
    disks = [one for one in (folder.glob("*/**/dev") if folder is not None else []) if _is_block(one.parent)]
    if not disks:
        return
    mounted, swaps = _mounted(root), _swaps(root)
    for attribute in sorted(disks):
        name, holders = attribute.parent.name, attribute.parent / "holders"
        if device_number(attribute) in mounted:
            yield name, "mounted"
        elif name in swaps:
            yield name, "swapped to"
        elif holders.is_dir() and os.listdir(holders):
            yield name, "part of another device"


def _mounted(root: Path) -> set[Optional[int]]:
    """The device numbers of mounted file systems (Documentation/filesystems/proc.rst, mountinfo: the third word)."""
    numbers: set[Optional[int]] = set()
    for line in _lines(root / "proc/self/mountinfo"):
        words = line.split()
        if len(words) > 2 and ":" in words[2]:
            major, _colon, minor = words[2].partition(":")
            numbers.add(os.makedev(int(major), int(minor)))
    return numbers


def _swaps(root: Path) -> set[str]:
    return {line.split()[0].rpartition("/")[2] for line in _lines(root / "proc/swaps")[1:] if line.split()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_bytes().decode("utf-8", "backslashreplace").splitlines()
    except OSError:
        return []


def _usb_devices(folder: Optional[Path]) -> Iterator[Path]:
    """Devices at a USB controller, beside its root hubs: '1-4', '1-4.2'."""
    for one in folder.glob("usb*/[0-9]*-[0-9]*") if folder is not None else []:
        if ":" not in one.name:
            yield one


def _nvidia_minor(address: str, root: Path) -> Optional[int]:
    # NVIDIA's driver: /proc/driver/nvidia/gpus/<address>/information has a line "Device Minor: 0"
    for line in _lines(root / "proc/driver/nvidia/gpus" / address / "information"):
        name, _colon, value = line.partition(":")
        if name.strip() == "Device Minor" and value.strip().isdigit():
            return int(value)
    return None
