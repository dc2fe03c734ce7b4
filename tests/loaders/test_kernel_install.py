# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""systemd's own kernel-install: its entries are read, and a change reaches them; so is an image of objcopy."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from loader_root import Confined, change, host

from ansible_collections.confidential.gpu.plugins.module_utils._boot import pe
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import choose
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import NothingBoots
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import VerifyMismatch

MACHINE = "0123456789abcdef0123456789abcdef"
KERNELS = ("6.1.0-9", "6.12.1")


def debian(root: Path, cmdline: str, entry_token: str | None = None, layout: str | None = "type1") -> Host:
    """A host with systemd-boot whose entries kernel-install made of that file."""
    files = {"etc/kernel/cmdline": cmdline, "etc/machine-id": MACHINE + "\n", "etc/os-release": "ID=debian\n"}
    for version in KERNELS:
        files.update({"boot/%s-%s" % (name, version): name for name in ("vmlinuz", "initrd.img")})
        files["usr/lib/modules/%s/modules.builtin" % version] = ""
    files["boot/efi/loader/entries.srel"] = "type1\n"
    files.update({"etc/kernel/entry-token": entry_token + "\n"} if entry_token else {})
    machine = host(root, files, {})
    (root / "boot/efi/loader/entries").mkdir()
    for version in KERNELS:
        machine.run(["kernel-install", "add", version, "/boot/vmlinuz-" + version, "/boot/initrd.img-" + version])
    (root / "boot/efi/loader/entries.srel").write_text(layout + "\n" if layout else "")
    assert isinstance(machine.commands, Confined)
    machine.commands.calls.clear()
    return machine


def version(machine: Host) -> int:
    match = re.search(r"\d+", machine.run(["kernel-install", "--version"]).out)
    assert match
    return int(match.group())


def test_entries_are_read_and_made_anew(tmp_path: Path) -> None:
    machine = debian(tmp_path, "root=/dev/vda2 ro iommu=pt quiet\n")
    assert [entry.title for entry in choose(machine).entries()] == ["Linux 6.12.1", "Linux 6.1.0-9"]
    expected = 'root=/dev/vda2 ro quiet intel_iommu=on dyndbg="file iommu.c +p" systemd.machine_id=' + MACHINE
    assert change(machine).result()["after"] == expected
    texts = [path.read_text() for path in (tmp_path / "boot/efi/loader/entries").glob("*.conf")]
    assert [re.findall(r"options\s+(.*)\n", text) for text in texts] == [[expected]] * 2
    assert (tmp_path / "boot/efi" / MACHINE / "6.12.1/initrd.img-6.12.1").read_text() == "initrd.img"


def test_comments_are_what_this_release_takes_them_for(tmp_path: Path) -> None:
    machine = debian(tmp_path, "root=/dev/vda2 ro\n# was: iommu=pt\nquiet\n", "debian")
    words = "root=/dev/vda2 ro %squiet" % ("" if version(machine) >= 254 else "# was: ")
    assert change(machine).result()["after"] == words + ' intel_iommu=on dyndbg="file iommu.c +p"'


def test_another_layout_makes_no_entry_and_is_no_success(tmp_path: Path) -> None:
    machine = debian(tmp_path, "root=/dev/vda2 ro iommu=pt\n", layout="other")
    entries = {path: path.read_text() for path in (tmp_path / "boot/efi/loader/entries").glob("*.conf")}
    with pytest.raises(VerifyMismatch, match=r"6.12.1.conf, line \d+ \(Linux 6.12.1\) does not have.*put back"):
        change(machine)
    assert (tmp_path / "etc/kernel/cmdline").read_text() == "root=/dev/vda2 ro iommu=pt\n"
    assert {path: path.read_text() for path in entries} == entries


def test_without_entries_nothing_is_run(tmp_path: Path) -> None:
    machine = debian(tmp_path, "root=/dev/vda2 ro iommu=pt\n")
    for path in (tmp_path / "boot/efi/loader/entries").glob("*.conf"):
        path.unlink()
    with pytest.raises(NothingBoots, match="Nothing was changed"):
        change(machine)
    assert isinstance(machine.commands, Confined)
    assert machine.commands.calls == []


def test_an_image_that_objcopy_wrote(tmp_path: Path) -> None:
    """As images were made before there was ukify: objcopy adds the section."""
    (tmp_path / "kernel").write_bytes(b"\x7f" * 3000)
    (tmp_path / "cmdline").write_text("root=/dev/vda2 ro iommu=pt\n")
    make = ["objcopy", "-I", "binary", "-O", "pei-x86-64", "-B", "i386:x86-64", "kernel", "stub.efi"]
    add = ["objcopy", "--target=pei-x86-64", "--add-section", ".cmdline=cmdline", "stub.efi", "image.efi"]
    for command in (make, add):
        subprocess.run(command, cwd=tmp_path, check=True, stdin=subprocess.DEVNULL)
    assert pe.cmdlines(tmp_path / "stub.efi") == []
    assert pe.cmdlines(tmp_path / "image.efi") == ["root=/dev/vda2 ro iommu=pt\n"]
