# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""PCI functions of this machine, through the kernel's sysfs under a root that tests replace."""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Optional, Sequence

from .._core.errors import ExplainedError, NotPermitted, errno_words
from . import bus
from .errors import Bar0Unreadable, DeviceGone, ResetFailed, ResetUnavailable

# include/linux/ioport.h, as printed in the third column of a ``resource`` file
IORESOURCE_MEM = 0x200
IORESOURCE_MEM_64 = 0x100000
IORESOURCE_UNSET = 0x20000000  # no address has been given to it
# PCI Code and ID Assignment: base class 06 is bridges. 0680, "other bridge", is what NVSwitches are: endpoints.
BRIDGES = 0x06
OTHER_BRIDGE = 0x0680

# For the lock and what is kept beside it: below /run, which is emptied at boot and where only root may create files. A
# pod of the GPU Operator sees this folder of the host and no other, so all programs on a host meet here.
STATE_FOLDER = "/run/nvidia/cc-manager"


class SysfsBus(bus.Bus):
    """/sys/bus/pci/devices below a root folder."""

    name = "sysfs"
    forgets = True

    def __init__(self, root: str = "/", state_folder: str = STATE_FOLDER) -> None:
        self.root = Path(root)
        self._state_folder = state_folder

    def find(self, takes: bus.Takes = bus.anything) -> list[bus.Function]:
        """Every function that the kernel lists and ``takes`` accepts, by address."""
        folder = self.root / "sys/bus/pci/devices"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [function for function in (SysfsFunction(folder / name, self.root) for name in names) if takes(function)]

    def lock_path(self) -> str:
        """In STATE_FOLDER, or the folder given instead."""
        return str(self.root / self._state_folder.lstrip("/") / "confidential-gpu.lock")


class SysfsFunction(bus.Function):
    """One folder of /sys/bus/pci/devices."""

    def __init__(self, path: Path, root: Path = Path("/")) -> None:
        self.path = path
        self.root = root
        self.address = path.name
        self.vendor_id = _number(path / "vendor")
        self.device_id = _number(path / "device")
        self.class_code = _number(path / "class")
        self._config: Optional[_ConfigFile] = None
        self._bars: dict[int, _BarMap] = {}

    def open(self) -> None:
        """Open config space; BARs are mapped when first asked for. Raises NotPermitted, DeviceGone."""
        if self._config is not None:
            return
        try:
            self._config = _ConfigFile(self.path / "config")
        except OSError as error:
            cause = "%s: config space cannot be opened: %s." % (self.address, errno_words(error))
            if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
                remedy = "Run as root (become: true), in a container with /sys writable."
                raise NotPermitted(cause, remedy, device=self.address, errno=error.errno) from error
            remedy = "Check with lspci that the device is still on the bus; rescan the bus or power-cycle the host."
            raise DeviceGone(cause, remedy, device=self.address, errno=error.errno) from error

    def close(self) -> None:
        """Close config space and unmap the BARs."""
        for mapped in self._bars.values():
            mapped.close()
        self._bars.clear()
        if self._config is not None:
            self._config.close()
            self._config = None

    @property
    def config(self) -> bus.Space:
        """The config space of an open function."""
        if self._config is None:
            raise RuntimeError("open() comes first")
        return self._config

    def bars(self) -> Sequence[bus.BarSpan]:
        """The memory BARs that have an address, as the kernel's ``resource`` file lists them."""
        lines = _text(self.path / "resource").splitlines()[:6]
        spans = [_span(number, line) for number, line in enumerate(lines)]
        return [span for span in spans if span is not None]

    def map_bar(self, number: int) -> bus.Space:
        """The BAR of that number, mapped. Raises Bar0Unreadable."""
        if number not in self._bars:
            self._bars[number] = self._map(number)
        return self._bars[number]

    def _map(self, number: int) -> _BarMap:
        span = next((span for span in self.bars() if span.number == number), None)
        if span is None:
            raise no_bar(self.address, number)
        try:
            return _BarMap(self.path / ("resource%d" % number), min(span.size, 32 << 20))
        except OSError as error:
            lockdown = _text(self.root / "sys/kernel/security/lockdown")
            locked = bool(lockdown) and "[none]" not in lockdown
            raise Bar0Unreadable(
                "%s: BAR%d cannot be mapped: %s%s."
                % (self.address, number, errno_words(error), ", kernel lockdown is %s" % lockdown if locked else ""),
                "Kernel lockdown (Secure Boot) forbids access to device registers: boot without it to change modes."
                if locked
                else "Run as root, in a container with /sys writable and no security profile that forbids it.",
                device=self.address,
                errno=error.errno,
                lockdown=lockdown,
            ) from error

    def reset_method(self) -> Optional[str]:
        """The kernel's list of methods ('flr bus'); 'unnamed' from kernels that have no such list.

        A list that is empty means that an administrator has disabled all of them; the file ``reset`` stays there.
        """
        if not (self.path / "reset").exists():
            return None
        if (self.path / "reset_method").exists():
            return _text(self.path / "reset_method") or None
        return "unnamed"

    def reset(self) -> None:
        """Ask the kernel for a reset; it saves and restores config space. Raises ResetUnavailable, ResetFailed."""
        try:
            descriptor = os.open(self.path / "reset", os.O_WRONLY)
            try:
                os.write(descriptor, b"1")
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise no_reset_method(self.address) from error
        except OSError as error:
            raise reset_refused(self.address, error, self.driver()) from error

    def sysfs_path(self) -> Optional[Path]:
        """Its folder below /sys/bus/pci/devices."""
        return self.path

    def virtual_functions(self) -> Sequence[bus.Function]:
        """By the kernel's links ``virtfn0``, ``virtfn1``, ..."""
        names = sorted(filter(None, (_linked(link) for link in self.path.glob("virtfn*"))))
        return [SysfsFunction(self.path.parent / name, self.root) for name in names]

    def siblings(self) -> Sequence[bus.Function]:
        """By the addresses of the same slot."""
        slot = self.address.rpartition(".")[0]
        names = sorted(name for name in os.listdir(self.path.parent) if name.rpartition(".")[0] == slot)
        others = [SysfsFunction(self.path.parent / name, self.root) for name in names if name != self.address]
        return [one for one in others if not one.is_bridge and not one.is_virtual]

    @property
    def is_bridge(self) -> bool:
        """True for what joins buses: it stays with its driver, and vfio does not mind it in a group."""
        return self.class_code >> 16 == BRIDGES and self.class_code >> 8 != OTHER_BRIDGE

    def power_control(self) -> Optional[str]:
        """'on' or 'auto'; None where the kernel has no runtime power management for it."""
        return _text(self.path / "power/control") or None

    def set_power_control(self, setting: str) -> None:
        """Write power/control. Raises NotPermitted."""
        try:
            (self.path / "power/control").write_text(setting)
        except OSError as error:
            raise NotPermitted(
                "%s: power/control cannot be set to %s: %s." % (self.address, setting, errno_words(error)),
                "Run as root (become: true), in a container with /sys writable.",
                device=self.address,
                errno=error.errno,
            ) from error

    def driver(self) -> Optional[str]:
        """The driver's name."""
        return _linked(self.path / "driver")

    @property
    def is_virtual(self) -> bool:
        """True for a virtual function: the kernel links its physical one."""
        return (self.path / "physfn").is_symlink()

    def iommu_group(self) -> Optional[int]:
        """The group's number; None when the IOMMU is off."""
        name = _linked(self.path / "iommu_group")
        return int(name) if name is not None and name.isdigit() else None


def no_bar(address: str, number: int) -> ExplainedError:
    """The error for a device whose registers have no place in the host's memory."""
    return Bar0Unreadable(
        "%s: BAR%d has no address: the host found no room for it, so the device's registers cannot be reached."
        % (address, number),
        "Switch on decoding above 4 GiB in the firmware's set-up, or boot with pci=realloc; the kernel's log has the "
        "reason (dmesg, BAR %d)." % number,
        device=address,
        bar=number,
    )


def no_reset_method(address: str) -> ExplainedError:
    """The error for a device that nothing can reset."""
    return ResetUnavailable(
        "%s: there is no way to reset the device (no reset method, no function-level reset)." % address,
        "Power-cycle the host to make a staged mode active; where reset_method of the device in sysfs is empty, write "
        "default to it.",
        device=address,
    )


def reset_refused(address: str, error: OSError, driver: Optional[str]) -> ExplainedError:
    """The error for a reset that was refused with an errno."""
    return ResetFailed(
        "%s: the reset was refused with %s; bound driver: %s." % (address, errno_words(error), driver or "none"),
        "Stop what uses the device, then run again: the staged mode becomes active with the next reset.",
        device=address,
        errno=error.errno,
        driver=driver,
    )


class _ConfigFile(bus.Space):
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_SYNC)
        self.size = os.fstat(self._descriptor).st_size
        self._name = path.parent.name

    def read(self, offset: int, size: int) -> int:
        try:
            data = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise DeviceGone(
                "%s: config space cannot be read at 0x%x: %s." % (self._name, offset, errno_words(error)),
                "Look for PCIe errors in the kernel's log; power-cycle the host.",
                device=self._name,
                register=offset,
                errno=error.errno,
            ) from error
        if len(data) != size and offset + size <= self.size:
            # drivers/pci/pci-sysfs.c, pci_read_config: without CAP_SYS_ADMIN a file ends after 64 bytes
            raise NotPermitted(
                "%s: config space cannot be read at 0x%x: the kernel shows this process the beginning only."
                % (self._name, offset),
                "Run as root (become: true), in a container with the capability SYS_ADMIN.",
                device=self._name,
                register=offset,
            )
        if len(data) != size:
            return (1 << 8 * size) - 1  # config space that ends before the offset reads as all ones
        return int.from_bytes(data, "little")

    def write(self, offset: int, data: int, size: int) -> None:
        try:
            os.pwrite(self._descriptor, data.to_bytes(size, "little"), offset)
        except OSError as error:
            if error.errno != errno.EPERM:
                raise DeviceGone(
                    "%s: config space cannot be written at 0x%x: %s." % (self._name, offset, errno_words(error)),
                    "Look for PCIe errors in the kernel's log; power-cycle the host.",
                    device=self._name,
                    register=offset,
                    errno=error.errno,
                ) from error
            raise NotPermitted(
                "%s: config space cannot be written at 0x%x: %s." % (self._name, offset, errno_words(error)),
                "Kernel lockdown (Secure Boot) forbids it: boot without lockdown to change modes.",
                device=self._name,
                errno=error.errno,
            ) from error

    def close(self) -> None:
        os.close(self._descriptor)


class _BarMap(bus.Space):
    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        descriptor = os.open(path, os.O_RDWR | os.O_SYNC)
        try:
            self._map = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        finally:
            os.close(descriptor)
        # A cast view makes each access one load or store of exactly that width, as registers need.
        view = memoryview(self._map)
        self._views: dict[int, memoryview[int]] = {1: view.cast("B"), 2: view.cast("H"), 4: view.cast("I")}

    def read(self, offset: int, size: int) -> int:
        return self._views[size][offset // size]

    def write(self, offset: int, data: int, size: int) -> None:
        self._views[size][offset // size] = data

    def close(self) -> None:
        for view in self._views.values():
            view.release()
        self._views.clear()
        self._map.close()


def _span(number: int, line: str) -> Optional[bus.BarSpan]:
    try:
        start, end, flags = (int(word, 16) for word in line.split()[:3])
    except ValueError:
        return None
    if not flags & IORESOURCE_MEM or flags & IORESOURCE_UNSET or not start:
        return None
    return bus.BarSpan(start, end - start + 1, bool(flags & IORESOURCE_MEM_64), number)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="backslashreplace").strip()
    except OSError:
        return ""


def _linked(link: Path) -> Optional[str]:
    """The name of what a link of sysfs names; None for no link, also one that goes at this moment."""
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return None


def _number(path: Path) -> int:
    text = _text(path)
    return int(text, 0) if text else 0
