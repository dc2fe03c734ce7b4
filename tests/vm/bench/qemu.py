# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A QEMU with `vfio-user-pci` (10.1 or later), unpacked into a folder of its own and run through its own loader.

Nothing is installed: the machine's own Debian may be older, and its libraries with it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tools import cache, debian
from tools.needs import check_programs

from .places import CACHE, PROGRAMS

FROM_BACKPORTS = ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "qemu-utils", "seabios"]
OTHERS = ["ipxe-qemu", "libc6"]
FIRMWARE = ["ovmf"]
LIBRARIES = "usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True)
class Qemu:
    """An unpacked QEMU."""

    tree: Path

    def command(self, program: str) -> list[str]:
        """How to start one of its programs, by the program's name."""
        libraries = self.tree / LIBRARIES
        loader = libraries / "ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", str(libraries), str(self.tree / "usr/bin" / program)]

    def system(self) -> list[str]:
        """How to start the machine emulator."""
        firmware = [self.tree / "usr/share" / name for name in ("qemu", "seabios")]
        return self.command("qemu-system-x86_64") + [word for path in firmware for word in ("-L", str(path))]

    def environment(self) -> dict[str, str]:
        """Where it finds its own modules."""
        return {**os.environ, "QEMU_MODULE_DIR": str(self.tree / LIBRARIES / "qemu")}


def fetch() -> Qemu:
    """The QEMU in the cache; fetched at the first time."""
    return Qemu(cache.finished("qemu", [debian.SUITE, FROM_BACKPORTS, OTHERS], _unpack, CACHE))


def uefi() -> tuple[Path, Path]:
    """UEFI for a machine: its code, and its variables as they are on a new machine."""

    def unpack(folder: Path) -> None:
        check_programs(PROGRAMS)
        debian.mmdebstrap(folder, FIRMWARE, ["--variant=extract"])

    files = cache.finished("uefi", [debian.SUITE, FIRMWARE], unpack, CACHE) / "usr/share/OVMF"
    return files / "OVMF_CODE_4M.fd", files / "OVMF_VARS_4M.fd"


def _unpack(folder: Path) -> None:
    check_programs(PROGRAMS)
    packages = [f"{name}/{debian.SUITE}-backports" for name in FROM_BACKPORTS] + OTHERS
    debian.mmdebstrap(folder, packages, ["--variant=extract"], apt_sources=debian.sources(backports=True))
