# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A device of this machine through sysfs, with descriptors and a mapping that the kernel lets nobody write through.

`config` and `resource0` are opened O_RDONLY; a shared mapping of such a descriptor can neither be written nor be made
writable later (mm/mmap.c: VM_MAYWRITE is taken away), so a mistake here ends the process and changes no device.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from .bar0_words import REACH
from .errors import RecordingError
from .use import Use

# include/linux/ioport.h, in the third column of the file `resource`.
IORESOURCE_MEM, IORESOURCE_UNSET = 0x200, 0x20000000
AS_ROOT = "run as root, on a kernel without lockdown (Secure Boot)"


class SysfsSource:
    """A device that nobody uses, open for reading. Raises RecordingError for any other, before it is opened."""

    def __init__(self, address: str, root: Path = Path("/")) -> None:
        self._path = root / "sys/bus/pci/devices" / address
        self._descriptor = -1
        self._map: mmap.mmap | None = None
        self._words: memoryview[int] | None = None
        self._use = Use(address, root)
        try:
            self._check_power()
            self._descriptor = self._open("config")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of everything, of the claim last."""
        if self._words is not None:
            self._words.release()
        if self._map is not None:
            self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._words = self._map = None
        self._descriptor = -1
        self._use.release()

    def _check_power(self) -> None:
        """Before config space is opened: reading it would wake a device in D3cold (drivers/pci/access.c)."""
        state, control = _text(self._path / "power_state"), _text(self._path / "power/control")
        if state != "D0":
            unknown = "the kernel does not say in which power state it is (Linux 5.11 does)"
            seen = f"it is in {state}" if state else unknown
            raise RecordingError(
                f"{self._path.name}: {seen}, and a recorder wakes nothing; where nobody uses it, write `on` to "
                f"{self._path}/power/control, and record again"
            )
        if control == "auto":
            raise RecordingError(
                f"{self._path.name}: the kernel may put it to sleep while it is read; write `on` to "
                f"{self._path}/power/control, and record again"
            )

    def config(self, offset: int) -> int:
        """The aligned dword of config space."""
        try:
            data = os.pread(self._descriptor, 4, offset)
        except OSError as error:
            raise RecordingError(f"{self._path}/config cannot be read at {offset:#x}: {error.strerror}") from None
        if len(data) != 4:
            # 64 bytes without CAP_SYS_ADMIN, 256 on a host that cannot reach the rest (drivers/pci/pci-sysfs.c).
            raise RecordingError(
                f"{self._path}/config ends before {offset:#x}; {AS_ROOT}, with memory-mapped config space (MMCONFIG)"
            )
        return int.from_bytes(data, "little")

    def bar_bytes(self, number: int) -> int:
        """The size of the BAR whose register has this number; 0 for none."""
        lines = _text(self._path / "resource").splitlines()
        try:
            start, end, flags = (int(word, 16) for word in lines[number].split()[:3])
        except (IndexError, ValueError):
            return 0
        if not flags & IORESOURCE_MEM:
            return 0
        if not start or flags & IORESOURCE_UNSET:
            raise RecordingError(
                f"{self._path.name}: BAR{number} has no address; switch on decoding above 4 GiB in the firmware's "
                "set-up, or boot with pci=realloc"
            )
        return end - start + 1

    def register(self, offset: int) -> int:
        """The aligned dword of BAR0, by one load of that width."""
        if self._words is None:
            self._words = self._mapped()
        if offset + 4 > REACH:
            raise RecordingError(f"register {offset:#x} is beyond what is mapped")
        return self._words[offset // 4]

    def _mapped(self) -> memoryview[int]:
        descriptor = self._open("resource0")
        try:
            self._map = mmap.mmap(descriptor, REACH, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise RecordingError(f"{self._path}/resource0 cannot be mapped: {error}; {AS_ROOT}") from None
        finally:
            os.close(descriptor)
        return memoryview(self._map).cast("I")

    def _open(self, name: str) -> int:
        try:
            return os.open(self._path / name, os.O_RDONLY | os.O_SYNC | os.O_CLOEXEC)
        except OSError as error:
            raise RecordingError(f"{self._path}/{name} cannot be opened: {error.strerror}; {AS_ROOT}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="backslashreplace").strip()
    except OSError:
        return ""
