# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The guest: a stock Debian, and the few files that let a test in.

Its kernel command line comes from its own boot loader's files, as on a machine that somebody installed, because
changing it is what is tested. The IOMMU is switched off on it, since Debian's kernel would switch it on by itself.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools import cache, debian
from tools.needs import check_programs, run

from . import disk
from .places import CACHE, PROGRAMS

PACKAGES = [
    *("linux-image-cloud-amd64", "grub-pc", "systemd-sysv", "udev", "kmod", "initramfs-tools"),
    *("openssh-server", "iproute2", "pciutils", "procps", "python3", "python3-venv", "runc"),
]
# Instead of GRUB; ukify makes unified kernel images.
UEFI_PACKAGES = [*(name for name in PACKAGES if name != "grub-pc"), "systemd-boot", "systemd-boot-efi", "systemd-ukify"]
GUEST = "guest.tar"
KERNEL, INITRAMFS = "vmlinuz", "initrd.img"
COMMAND_LINE, WITH_IOMMU = "quiet intel_iommu=off", "quiet intel_iommu=on"
# Emulated without hardware's help and on a busy machine, the timer's first ticks come late; the kernel would panic. And
# an emulated processor leaks nothing, while a kernel that guards against it takes half as long again for every process.
CONSOLE = "console=ttyS0 no_timer_check mitigations=off"
ROOT_FILE_SYSTEM = f"root=LABEL={disk.LABEL} ro"
FILES = {
    "etc/hostname": "vm\n",
    "etc/hosts": "127.0.0.1 localhost vm\n",
    "etc/fstab": f"LABEL={disk.LABEL} / ext4 defaults 0 1\n",
    "etc/default/grub": (
        f'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\nGRUB_CMDLINE_LINUX_DEFAULT="{COMMAND_LINE}"\n'
        f'GRUB_CMDLINE_LINUX="{CONSOLE}"\nGRUB_TERMINAL=serial\n'
    ),
    # What update-grub would have written at installation; only the guest can run it, at its first use.
    "boot/grub/grub.cfg": (
        f"set timeout=0\nmenuentry Debian {{\n  search --no-floppy --label --set=root {disk.LABEL}\n"
        f"  linux /vmlinuz {ROOT_FILE_SYSTEM} {CONSOLE} {COMMAND_LINE}\n  initrd /initrd.img\n}}\n"
    ),
    # The addresses of QEMU's own network; asking for them by DHCP would cost a second.
    "etc/systemd/network/10-vm.network": "[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n",
    # What this machine's disk needs, and no more: an emulated processor is at the usual initramfs for minutes.
    "etc/initramfs-tools/conf.d/vm": "MODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "etc/systemd/journald.conf.d/vm.conf": "[Journal]\nStorage=volatile\nForwardToConsole=no\n",
}
UNITS = {"multi-user.target.wants": "systemd-networkd.service"}
# Work that a machine in a test has no use for.
MASKED = ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"]
SMALLER = ["--aptopt=Apt::Install-Recommends false", "--dpkgopt=path-exclude=/usr/share/doc/*"]


@dataclass(frozen=True)
class Image:
    """A disk that no test writes to, and the key that opens it."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The raw disk."""
        return self.folder / "disk.img"

    @property
    def key(self) -> Path:
        """The private ssh key for root."""
        return self.folder / "key"

    def past_the_boot_loader(self) -> list[str]:
        """QEMU's options that start the disk's own kernel with the IOMMU on, for tests that are not about the roles."""
        files = ["-kernel", str(self.folder / KERNEL), "-initrd", str(self.folder / INITRAMFS)]
        return [*files, "-append", f"{ROOT_FILE_SYSTEM} {CONSOLE} {WITH_IOMMU}"]


def build() -> Image:
    """The image in the cache, with GRUB for a BIOS; built at the first time."""
    return _image("image", _guest("guest", PACKAGES), FILES, disk.make)


def build_uefi() -> Image:
    """The same without a boot loader, for a machine with UEFI: its first start is past the boot loader."""
    files = {name: text for name, text in FILES.items() if "grub" not in name}
    files["etc/fstab"] += f"LABEL={disk.ESP_LABEL} /efi vfat umask=0077 0 2\n"
    files["efi/.keep"] = ""
    return _image("image-uefi", _guest("guest-uefi", UEFI_PACKAGES), files, disk.make_uefi)


def _guest(kind: str, packages: list[str]) -> Path:
    def fetch(folder: Path) -> None:
        check_programs(PROGRAMS)
        debian.mmdebstrap(folder / GUEST, packages, ["--variant=minbase", *SMALLER])

    return cache.finished(kind, [debian.SUITE, packages, SMALLER], fetch, CACHE) / GUEST


def _image(kind: str, guest: Path, files: Mapping[str, str], make: Callable[[list[Path], Path, Path], None]) -> Image:
    def build(folder: Path) -> None:
        check_programs(PROGRAMS)
        image = Image(folder)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vm", "-f", str(image.key)])
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            extra = Path(scratch) / "extra"
            _write_extra(extra, {**files, "root/.ssh/authorized_keys": image.key.with_suffix(".pub").read_text()})
            make([guest, *_packed(extra)], image.disk, Path(scratch))
        for name in (KERNEL, INITRAMFS):
            run(["sh", "-c", f"tar -x -O --wildcards -f {guest} './boot/{name}-*' > {folder / name}"])

    ingredients = [guest.parent.name, files, UNITS, MASKED, KERNEL, INITRAMFS, Path(disk.__file__).read_text()]
    return Image(cache.finished(kind, ingredients, build, CACHE))


def _packed(extra: Path) -> list[Path]:
    """The files as a tar that gives them to root, whoever runs this."""
    tar = extra.with_suffix(".tar")
    run(["tar", "-C", str(extra), "--owner=0", "--group=0", "--numeric-owner", "--mode=go-w", "-cf", str(tar), "."])
    return [tar]


def _write_extra(extra: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = extra / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    # A file that root alone may look at, as ssh makes it.
    (extra / "root/.ssh").chmod(0o700)
    units = extra / "etc/systemd/system"
    for target, unit in UNITS.items():
        (units / target).mkdir(parents=True, exist_ok=True)
        os.symlink(f"/usr/lib/systemd/system/{unit}", units / target / unit)
    for unit in MASKED:
        os.symlink("/dev/null", units / unit)
