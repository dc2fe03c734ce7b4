# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts whose entries another program makes than their files suggest: refused by name, and nothing is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_host import host, stand_ins, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import (
    NAMES,
    ROWS,
    Configuration,
    choose,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import BootError, UnknownLoader
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host
from ansible_collections.confidential.gpu.plugins.module_utils._boot.refusals import Refusal

DESIRED = Desired(add=("intel_iommu=on",), remove=("iommu=pt",))
EFI = "sys/firmware/efi/efivars/"
INTERFACE = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
GLOBAL = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"

Files = dict[str, "str | bytes"]

GRUB: Files = {"etc/default/grub": 'GRUB_CMDLINE_LINUX_DEFAULT="iommu=pt"\n'}
CMDLINE: Files = {"etc/kernel/cmdline": "root=/dev/vda2 rw iommu=pt\n"}
MENU: Files = {"boot/grub/grub.cfg": "linux /vmlinuz iommu=pt\n"}


def said(loader: str) -> Files:
    """Variables of a loader that speaks systemd's Boot Loader Interface."""
    return {EFI + "LoaderInfo" + INTERFACE: b"\6\0\0\0" + (loader + "\0").encode("utf-16-le")}


def started(title: str, program: str) -> Files:
    """Variables of firmware that started a program by its option 3."""
    option = b"\7\0\0\0\1\0\0\0" + (title + "\0" + program + "\0").encode("utf-16-le")
    return {EFI + "BootCurrent" + GLOBAL: b"\6\0\0\0\3\0", EFI + "Boot0003" + GLOBAL: option}


STUB: Files = {EFI + "StubInfo" + INTERFACE: b"\6\0\0\0s\0"}

ARCH = 'PRESETS=("default")\nALL_kver="/boot/vmlinuz-linux"\n  default_uki="/efi/EFI/Linux/arch-linux.efi"\n'
REFIND = started("rEFInd Boot Manager", "\\EFI\\refind\\refind_x64.efi")
ZBM = started("ZFSBootMenu", "\\EFI\\ZBM\\VMLINUZ.EFI")

REFUSED: dict[str, tuple[Files, list[str], str]] = {
    "arch with images of mkinitcpio": (
        {**CMDLINE, **STUB, **said("systemd-boot 257.9-1-arch"), "etc/mkinitcpio.d/linux.preset": ARCH},
        ["kernel-install", "mkinitcpio"],
        r"^mkinitcpio \(unified images\) makes what boots .*linux.preset has default_uki=.*mkinitcpio -P",
    ),
    "images of mkinitcpio, no loader that speaks": (
        {**CMDLINE, "etc/mkinitcpio.d/linux.preset": ARCH},
        ["kernel-install"],
        "^mkinitcpio",
    ),
    "dracut --uefi": (
        {**CMDLINE, **STUB, "etc/dracut.conf.d/uefi.conf": 'uefi="yes"\nkernel_cmdline="rw"\n'},
        ["kernel-install", "dracut"],
        r"^dracut.* /etc/dracut.conf.d/uefi.conf has uefi=.*kernel_cmdline",
    ),
    "a signed image of a package": (
        {**CMDLINE, **STUB, "usr/lib/modules/6.12/vmlinuz-virt.efi": "MZ"},
        ["kernel-install", "grubby"],
        r"^A signed unified image of a package.*/usr/lib/modules/6.12/vmlinuz-virt.efi came.*add-on",
    ),
    "layout=other": (
        {**CMDLINE, "etc/kernel/install.conf": "# mine\nlayout=other\n"},
        ["kernel-install"],
        r"/etc/kernel/install.conf has layout=other",
    ),
    "another generator of images": (
        {**CMDLINE, "usr/lib/kernel/install.conf": 'layout="uki"\nuki_generator=dracut\n'},
        ["kernel-install"],
        r"/usr/lib/kernel/install.conf has uki_generator=dracut",
    ),
    "limine that says so": (
        {**GRUB, **MENU, **said("Limine 9.3.0")},
        ["update-grub"],
        r"^Limine makes what boots on this host.*\(limine 9.3.0\). Nothing was changed. Edit cmdline in limine.conf",
    ),
    "limine by the firmware's option": (
        {**GRUB, **MENU, **started("Limine", "\\EFI\\limine\\BOOTX64.EFI")},
        ["update-grub"],
        r"^Limine .*name it as what started this kernel",
    ),
    "limine on a bios": ({**CMDLINE, "boot/limine/limine.conf": ""}, ["kernel-install"], "^Limine.*and no grub.cfg"),
    "refind": ({**GRUB, **MENU, **REFIND}, ["update-grub"], "^rEFInd.*refind_linux.conf"),
    "zfsbootmenu": ({**GRUB, **MENU, **ZBM}, ["update-grub"], "^ZFSBootMenu.*org.zfsbootmenu:commandline"),
    "zfsbootmenu by its settings": ({"etc/zfsbootmenu/config.yaml": "", **CMDLINE}, ["kernel-install"], "^ZFSBootMenu"),
    "u-boot": ({**CMDLINE, "boot/extlinux/extlinux.conf": ""}, ["kernel-install"], "^U-Boot.*U_BOOT_PARAMETERS"),
    "systemd-boot beside grub, without kernel-install": (
        {**GRUB, **MENU, **said("systemd-boot 252")},
        ["update-grub"],
        r"^systemd-boot .*what GRUB has does not boot",
    ),
    "BLSCFG without grubby": (
        {"etc/default/grub": "GRUB_ENABLE_BLSCFG=false\nGRUB_ENABLE_BLSCFG='true'\n"},
        ["grub2-mkconfig"],
        r"^GRUB with entries .*GRUB_ENABLE_BLSCFG=true.*Install grubby",
    ),
}


def laid_out(root: Path, files: Files, available: list[str]) -> Host:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return host(root, available)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_by_name(kind: str, tmp_path: Path) -> None:
    files, available, words = REFUSED[kind]
    machine = laid_out(tmp_path, files, available)
    before = tree(tmp_path)
    with pytest.raises(UnknownLoader, match=words) as caught:
        Configuration(machine, DESIRED).run()
    assert "Nothing was changed." in str(caught.value)
    assert caught.value.remedy
    assert tree(tmp_path) == before
    assert stand_ins(machine).calls == []


@pytest.mark.parametrize("kind", REFUSED)
def test_no_name_gets_around_a_refusal(kind: str, tmp_path: Path) -> None:
    files, available, _words = REFUSED[kind]
    machine = laid_out(tmp_path, files, available)
    before = tree(tmp_path)
    for name in NAMES:
        with pytest.raises(BootError):
            Configuration(machine, DESIRED, name).run()
    assert tree(tmp_path) == before
    assert stand_ins(machine).changing == []


@pytest.mark.parametrize(
    ("files", "available", "name"),
    [
        ({**GRUB, **MENU, "etc/mkinitcpio.d/linux.preset": ARCH}, ["grub-mkconfig"], "grub"),
        ({**GRUB, **MENU, "etc/dracut.conf.d/x.conf": "uefi=yes\n"}, ["update-grub"], "grub-dropin"),
        ({**GRUB, **MENU, "boot/limine.conf": "", "boot/refind_linux.conf": ""}, ["update-grub"], "grub-dropin"),
        ({**GRUB, **MENU, "boot/limine.conf": "", **said("GRUB 2.14")}, ["update-grub"], "grub-dropin"),
        ({**CMDLINE, **said("systemd-boot 257"), "boot/limine.conf": ""}, ["kernel-install"], "kernel-install"),
        ({**CMDLINE, **said("systemd-boot 257"), **REFIND}, ["kernel-install"], "kernel-install"),
        ({**CMDLINE, **STUB, "etc/mkinitcpio.d/l.preset": '#default_uki="x"\n'}, ["kernel-install"], "kernel-install"),
        (
            {**CMDLINE, "etc/kernel/install.conf": "layout=uki\nuki_generator=ukify\n"},
            ["kernel-install"],
            "kernel-install",
        ),
        ({**GRUB, **MENU, **started("debian", "\\EFI\\debian\\shimx64.efi")}, ["update-grub"], "grub-dropin"),
        ({**GRUB, "usr/lib/modules/6.12/vmlinuz-virt.efi": "", **MENU}, ["update-grub"], "grub-dropin"),
        ({"etc/default/grub": "GRUB_ENABLE_BLSCFG=true\n"}, ["grubby", "grub2-mkconfig"], "grubby"),
    ],
)
def test_what_is_left_over_from_another_loader_does_not_count(
    files: Files, available: list[str], name: str, tmp_path: Path
) -> None:
    assert choose(laid_out(tmp_path, files, available)).name == name


def test_every_row_says_what_to_do() -> None:
    refusals = [row for row in ROWS if isinstance(row, Refusal)]
    assert len({row.program for row in refusals}) == len(refusals)
    assert all(row.remedy.endswith(".") for row in refusals)
    assert all(row.looked_for and row.name for row in ROWS if not isinstance(row, Refusal))


def test_a_variable_that_is_cut_off(tmp_path: Path) -> None:
    machine = laid_out(tmp_path, {**GRUB, **MENU, EFI + "BootCurrent" + GLOBAL: b"\6\0\0\0"}, ["update-grub"])
    assert choose(machine).name == "grub-dropin"
