# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts of the loaders other than GRUB's own for what has to hold of every loader, with any files that they accept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from boot_host import GENERATED, StandIns
from boot_property import Case, plain_files
from hypothesis import strategies as st
from test_boot_cmdline import GAPS, LINES, TOKENS

ENTRIES = "boot/efi/loader/entries"
SYSTEMD_BOOT = {"sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f": "    systemd-boot 257"}
COMMENTS = st.lists(TOKENS, max_size=3).map(lambda tokens: "\n# %s\n" % " ".join(tokens))
CMDLINES = st.lists(LINES | COMMENTS, min_size=1, max_size=3).map("".join)
ONE_LINE = st.lists(TOKENS, max_size=5).map(" ".join)


def _made(*calls: tuple[str, ...]) -> Callable[[StandIns], None]:
    """The loader's own programs have made the entries, as after an installation."""

    def prepare(programs: StandIns) -> None:
        for folder in (ENTRIES, "boot/efi/EFI/Linux"):
            (programs.root / folder).mkdir(parents=True, exist_ok=True)
        for name, *arguments in calls:
            getattr(programs, name)(list(arguments))

    return prepare


@st.composite
def kernel_install(draw: st.DrawFn, layout: str) -> Case:
    """Two kernels, any file, and a release of systemd that knows comments or none."""
    kernels = ("6.1.0", "6.12.1")
    files = {
        "etc/kernel/cmdline": draw(CMDLINES),
        "etc/kernel/entry-token": "tok\n",
        "etc/kernel/install.conf": "layout=%s\n" % layout,
        "systemd-version": draw(st.sampled_from(["252", "257", "261"])),
        "boot/efi/loader/entries.srel": "type1\n",
    }
    for version in kernels:
        files.update({"usr/lib/modules/%s/x" % version: "", "boot/vmlinuz-%s" % version: ""})
    calls = [("_kernel_install", "add", version, "/boot/vmlinuz-" + version) for version in kernels]
    return Case(files, ["kernel-install"], _made(*calls), outputs=(ENTRIES + "/*", "boot/efi/EFI/Linux/*"))


@st.composite
def sdbootutil(draw: st.DrawFn) -> Case:
    """The file, and files of ours and of the vendor beside it."""
    files = {
        "etc/kernel/cmdline": draw(CMDLINES) + "\n",
        "etc/sysconfig/bootloader": 'LOADER_TYPE="grub2-bls"\n',
        "usr/lib/modules/6.1/vmlinuz": "",
    }
    for name in draw(st.lists(st.sampled_from(["etc/kernel/cmdline.d/1", "usr/kernel/cmdline.d/2"]), unique=True)):
        files[name] = draw(ONE_LINE) + "\n"
    made, outputs = _made(("_sdbootutil", "add-all-kernels")), (ENTRIES + "/*",)
    return Case(files, ["sdbootutil"], made, False, ("root=UUID=cc33",), outputs, lambda text: text.count("#"))


@st.composite
def proxmox(draw: st.DrawFn) -> Case:
    """A first line, and others that nobody reads."""
    files = {
        **SYSTEMD_BOOT,
        "etc/kernel/proxmox-boot-uuids": "1A2B-3C4D\n",
        "dev/disk/by-uuid/1A2B-3C4D": "",
        "esp/1A2B-3C4D/loader/entries/x": "",
        "boot/vmlinuz-6.1": "",
        "etc/kernel/cmdline": "root=ZFS=a %s\n%s" % (draw(ONE_LINE), draw(LINES)),
    }
    commands = ["proxmox-boot-tool", "unshare"]
    return Case(files, commands, _made(("_proxmox_boot_tool", "refresh")), outputs=("esp/*",))


@st.composite
def rpm_ostree(draw: st.DrawFn) -> Case:
    """A deployment's own tokens."""
    tokens = ["root=x", *draw(st.lists(TOKENS.filter(lambda token: " " not in token), max_size=6))]
    tokens.insert(draw(st.integers(0, len(tokens))), "ostree=/ostree/boot.1/os/1f/0")
    entry = "version 1\nlinux /x\noptions %s\n" % " ".join(tokens)
    files = {"run/ostree-booted": "", "boot/loader/entries/ostree-1.conf": entry}
    return Case(files, ["rpm-ostree"], of_generator=("root=x",), outputs=("run/ostree/*",))


@st.composite
def kernelstub(draw: st.DrawFn) -> Case:
    """A list of options, as the program itself keeps it."""
    user = {"kernel_options": draw(st.lists(TOKENS, max_size=6)), "esp_path": "/boot/efi", "setup_loader": True}
    user.update({"manage_mode": True, "force_update": False, "live_mode": False})
    text = json.dumps({"default": {"kernel_options": ["quiet"]}, "user": user}, indent=2)
    files = {"etc/kernelstub/configuration": text, "boot/vmlinuz-6.1": ""}
    own = ("root=UUID=1234", "ro")

    def outside(text: str) -> object:
        configuration = json.loads(text)
        del configuration["user"]["kernel_options"]
        return configuration

    outputs = (ENTRIES + "/*", "etc/*")
    return Case(files, ["kernelstub"], _made(("_kernelstub",)), False, own, outputs, outside)


@st.composite
def bootc(draw: st.DrawFn) -> Case:
    """Files of arrays, with comments between."""
    files = {}
    for name in draw(st.lists(st.sampled_from(["10-a", "99-z"]), unique=True, min_size=1)):
        values = ",\n  # x\n ".join(json.dumps(token) for token in draw(st.lists(TOKENS, max_size=4)))
        files["usr/lib/bootc/kargs.d/%s.toml" % name] = "# a\nkargs = [%s]\n" % values
    outputs = ("usr/lib/bootc/kargs.d/*",)
    return Case(files, ["bootc"], outputs=outputs, outside=lambda text: re.sub(r"\[[^\]]*\]", "", text))


@st.composite
def flatcar(draw: st.DrawFn) -> Case:
    """The file of the OEM partition."""
    append, console = draw(ONE_LINE).replace('"', '\\"'), draw(ONE_LINE).replace('"', '\\"')
    text = '# Flatcar\nset linux_console="%s"\nset  linux_append="%s"%sset x=1\n' % (console, append, draw(GAPS) + "\n")
    mounts = "/dev/sda6 /oem btrfs rw 0 0\n"
    files = {"etc/os-release": "ID=flatcar\n", "oem/grub.cfg": text, "proc/mounts": mounts}
    return Case(files, [], outputs=(), outside=lambda text: re.sub(r"(?m)^(set +linux_\w+=).*", r"\1", text))


@st.composite
def transactional_update(draw: st.DrawFn) -> Case:
    """SUSE's file, on a root file system of snapshots."""
    files = {"etc/default/grub": draw(plain_files()), "proc/mounts": "/dev/sda3 / btrfs ro 0 0\n"}
    generate = GENERATED["transactional-update"]
    commands = ["transactional-update", "btrfs"]
    own = ("root=UUID=0a1b2c3d", "ro", "single")
    outputs = (".snapshots/*", "default-snapshot")
    return Case(files, commands, lambda programs: programs._generate(generate), True, own, outputs)


OTHERS: dict[str, st.SearchStrategy[Case]] = {
    "kernel-install": kernel_install("bls"),
    "kernel-install, images": kernel_install("uki"),
    "sdbootutil": sdbootutil(),
    "proxmox-boot-tool": proxmox(),
    "rpm-ostree": rpm_ostree(),
    "kernelstub": kernelstub(),
    "bootc": bootc(),
    "flatcar": flatcar(),
    "transactional-update": transactional_update(),
}
