# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries of the Boot Loader Specification and GRUB's environment block, as the boot loaders read them."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_host import host

from ansible_collections.confidential.gpu.plugins.module_utils._boot import bls, grubenv
from ansible_collections.confidential.gpu.plugins.module_utils._boot.entry import Entry, default, lost

FEDORA = """\
# made by kernel-install
title Fedora Linux (6.17.5)
version 6.17.5
linux /vmlinuz-6.17.5
options root=UUID=1 ro
options\t$kernelopts $tuned_params "a=b c"
"""


def test_options_of_several_lines_with_the_variables_put_in() -> None:
    file = bls.parse("/boot/loader/entries/0a-6.17.5+3-1.conf", FEDORA)
    assert file.id == "0a-6.17.5"
    assert file.entry({"kernelopts": "x y=1"}) == Entry(
        file.path, "Fedora Linux (6.17.5)", ("root=UUID=1", "ro", "x", "y=1", '"a=b c"'), 5
    )
    assert file.entry({"tuned_params": "z"}, is_default=True).tokens == ("root=UUID=1", "ro", "z", '"a=b c"')


def test_the_rescue_entry_is_told(tmp_path: Path) -> None:
    assert bls.parse("/b/0a-0-rescue.conf", "linux /x\noptions ro\n").entry({}).is_recovery
    assert bls.parse("/b/rescue.conf", "version 0-rescue-0a\nlinux /x\n").entry({}).is_recovery
    assert not bls.parse("/b/0a-6.1-rescued.conf", "version 6.10-rescued\nlinux /x\n").entry({}).is_recovery


def test_only_what_starts_a_kernel_counts(tmp_path: Path) -> None:
    for name, text in (
        ("boot/loader/entries/b.conf", "linux /b\noptions b\n"),
        ("boot/loader/entries/a.conf", "linux /a\n"),
        ("boot/loader/entries/firmware.conf", "efi /shell.efi\n"),
        ("boot/loader/entries/other.txt", "linux /a\n"),
        ("boot/efi/loader/entries/c.conf", "efi /EFI/Linux/x.efi\noptions c\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "efi").symlink_to("boot/efi")
    found = bls.files(host(tmp_path, []))
    assert [file.path for file in found] == [
        "/boot/loader/entries/a.conf",
        "/boot/loader/entries/b.conf",
        "/efi/loader/entries/c.conf",
    ]
    assert found[0].entry({}).tokens == ()


def test_the_environment_block(tmp_path: Path) -> None:
    block = grubenv.HEADER + "saved_entry=a b\nkernelopts=root=/dev/x ro c=d\\\\e \nlines=a\\\nb=c\nempty=\n"
    block += "#" * (1024 - len(block))
    assert grubenv.parse(block) == {
        "saved_entry": "a b",
        "kernelopts": "root=/dev/x ro c=d\\e ",
        "lines": "a\nb=c",
        "empty": "",
    }
    machine = host(tmp_path, [])
    assert grubenv.variables(machine) == {}
    (tmp_path / "boot/grub").mkdir(parents=True)
    (tmp_path / "boot/grub/grubenv").write_text(block)
    assert grubenv.variables(machine)["saved_entry"] == "a b"
    assert grubenv.place(machine) == "/boot/grub/grubenv"


@pytest.mark.parametrize("end", ["", "\n", "garbage", "=x\n", "\\"])
def test_a_block_that_is_damaged_has_the_variables_that_are_whole(end: str) -> None:
    assert grubenv.parse(grubenv.HEADER + "a=1\n" + end) == {"a": "1"}


def test_which_entry_boots_by_default() -> None:
    rescue, first, chosen = Entry("r", "", (), is_recovery=True), Entry("1", "", ()), Entry("2", "", (), 7, False, True)
    assert default([rescue, first, chosen]) is chosen
    assert default([rescue, first]) is first
    assert default([rescue]) is rescue
    assert chosen.where == "2, line 7"
    assert Entry("a", "t", ()).where == "a (t)"


def test_what_is_lost_counts_every_one() -> None:
    assert sorted(lost(["a", "b", "a"], ["a", "c"])) == ["a", "b"]
    assert lost(["a"], ["b", "a"]) == []
