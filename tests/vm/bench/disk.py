# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A bootable disk from a tar of a Debian, without loop devices and, under fakeroot, without being root.

GPT with a partition for the boot loader and one for the root file system. The file system is written by mke2fs
straight into its place; GRUB's core is made by the guest's own grub-mkimage, so that it fits the guest's own modules.
"""

from __future__ import annotations

import json
import os
import shlex
import struct
from pathlib import Path

from tools.needs import NotPossible, run

SECTOR = 512
DISK_BYTES = 3 << 30
CORE_FIRST, CORE_SECTORS = 2048, 2048
ROOT_FIRST = 4096
# Room for two unified images and a kernel with its initramfs.
ESP_FIRST, ESP_SECTORS = 2048, 1 << 20
LABEL = "vm-root"
ESP_LABEL = "VM-ESP"
BIOS_BOOT = "21686148-6449-6E6F-744E-656564454649"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
GRUB_MODULES = ["biosdisk", "part_gpt", "ext2", "normal", "search", "search_label", "serial", "configfile"]
# Where boot.img keeps the sector at which the core starts, and the core's first sector the list of its other blocks.
BOOT_CODE_BYTES = 440
BOOT_KERNEL_SECTOR = 0x5C
CORE_BLOCK_LIST = 0x1F4
# Two instructions that would take the drive from the partition table's flag; replaced by no-ops, as grub-install does.
BOOT_DRIVE_CHECK = 0x66


def make(tars: list[Path], image: Path, scratch: Path) -> None:
    """A disk that a BIOS starts, with GRUB; needs room for the unpacked tars in the folder for scratch."""
    _partition(image, f"start={CORE_FIRST}, size={CORE_SECTORS}, type={BIOS_BOOT}", ROOT_FIRST)
    root = scratch / "root"
    core = f"""
cp -r {root}/usr/lib/grub/i386-pc {root}/boot/grub/
{_grub_mkimage(root, scratch / "core.img")}
cp {root}/usr/lib/grub/i386-pc/boot.img {scratch}/boot.img
"""
    _fill(tars, image, root, ROOT_FIRST, core)
    _install_loader(image, scratch / "boot.img", scratch / "core.img")


def make_uefi(tars: list[Path], image: Path, scratch: Path) -> None:
    """A disk with an empty EFI system partition: the guest installs its boot loader itself, as an installer does."""
    _partition(image, f"start={ESP_FIRST}, size={ESP_SECTORS}, type={ESP}", ESP_FIRST + ESP_SECTORS)
    kib = ESP_SECTORS * SECTOR // 1024
    run(["mkfs.vfat", "-F", "32", "-n", ESP_LABEL, "--offset", str(ESP_FIRST), str(image), str(kib)])
    _fill(tars, image, scratch / "root", ESP_FIRST + ESP_SECTORS, "")


def _partition(image: Path, first: str, root_first: int) -> None:
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    run(["sfdisk", "--quiet", str(image)], f"label: gpt\n{first}\nstart={root_first}, type={LINUX}\n")


def _fill(tars: list[Path], image: Path, root: Path, root_first: int, more: str) -> None:
    """Write the root file system; ``more`` is done in the unpacked tree before."""
    kib = _root_sectors(image) // 2
    unpack = "\n".join(f"tar -x -p --numeric-owner -C {root} -f {tar}" for tar in tars)
    # One shell, so that under fakeroot the owners that tar sets are still known to mke2fs.
    script = f"""
set -e
mkdir {root}
{unpack}
{more}
mke2fs -q -t ext4 -L {LABEL} -m 0 -E offset={root_first * SECTOR},nodiscard -d {root} {image} {kib}k
"""
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    run([*as_root, "sh", "-c", script])


def _root_sectors(image: Path) -> int:
    sectors: int = json.loads(run(["sfdisk", "-J", str(image)]))["partitiontable"]["partitions"][1]["size"]
    return sectors


def _grub_mkimage(root: Path, core: Path) -> str:
    libraries = root / "usr/lib/x86_64-linux-gnu"
    words = [
        str(libraries / "ld-linux-x86-64.so.2"),
        "--library-path",
        str(libraries),
        str(root / "usr/bin/grub-mkimage"),
    ]
    words += ["-O", "i386-pc", "-d", str(root / "usr/lib/grub/i386-pc"), "-o", str(core)]
    return shlex.join([*words, "-p", "(hd0,gpt2)/boot/grub", *GRUB_MODULES])


def _install_loader(image: Path, boot: Path, core: Path) -> None:
    """What grub-install does on a disk with a partition of its own for the core."""
    code = bytearray(boot.read_bytes()[:BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, BOOT_KERNEL_SECTOR, CORE_FIRST)
    code[BOOT_DRIVE_CHECK : BOOT_DRIVE_CHECK + 2] = b"\x90\x90"
    body = bytearray(core.read_bytes())
    if len(body) > CORE_SECTORS * SECTOR:
        raise NotPossible(f"the boot loader's core has {len(body)} bytes, too many for its partition")
    struct.pack_into("<Q", body, CORE_BLOCK_LIST, CORE_FIRST + 1)
    with image.open("r+b") as file:
        file.write(code)
        file.seek(CORE_FIRST * SECTOR)
        file.write(body)
