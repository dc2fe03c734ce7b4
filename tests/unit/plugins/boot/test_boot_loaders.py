# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Loaders other than GRUB's own: what boots is read, not what was written; what they cannot do is refused."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest
from boot_host import Described, host, stand_ins, tree
from boot_programs import image

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, split
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline_file import edited
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration, choose
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    CommandFailed,
    NothingBoots,
    NotUnderstood,
    NotWritable,
    Shadowed,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host, Result
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import VerifyMismatch

DESIRED = Desired(add=("intel_iommu=on",), remove=("iommu=pt",))


def laid_out(name: str, root: Path) -> Host:
    described = Described(name)
    described.build(root)
    return host(root, described.commands)


def change(machine: Host, desired: Desired = DESIRED, **options: bool) -> Configuration:
    configuration = Configuration(machine, desired)
    configuration.run(**options)
    return configuration


def after(machine: Host, desired: Desired = DESIRED) -> str:
    """What boots after the request; check mode has to say the same before, and a second run has nothing to do."""
    planned = change(machine, desired, only_plan=True).result()["after"]
    found: str = change(machine, desired).result()["after"]
    assert planned == found
    assert not change(machine, desired).is_change
    return found


SYSTEMD_BOOT = "boot/efi/loader/entries/0a1b-6.12.43.conf"


# kernel-install


def test_an_entry_that_was_never_made_anew_is_made(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    (tmp_path / "etc/kernel/cmdline").write_text("root=UUID=aa11 ro quiet intel_iommu=on\n")
    run = change(machine)
    assert run.result()["backup_files"] == []
    assert run.result()["after"] == "root=UUID=aa11 ro quiet intel_iommu=on systemd.machine_id=0a1b"


def test_kernel_install_that_makes_nothing_is_no_success(tmp_path: Path) -> None:
    """Without entries.srel and a folder of the entry token its layout is ``other``: it ends well and writes nothing."""
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    (tmp_path / "boot/efi/loader/entries.srel").unlink()
    before = tree(tmp_path)
    with pytest.raises(
        VerifyMismatch, match=r"0a1b-6.12.43.conf, line 3 \(Linux\) does not have .*intel_iommu=on is missing"
    ):
        change(machine)
    assert tree(tmp_path) == before


def test_without_entries_nothing_is_written(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    for path in (tmp_path / "boot/efi/loader/entries").glob("*.conf"):
        path.unlink()
    before = tree(tmp_path)
    with pytest.raises(
        NothingBoots, match=r"installed kernel \(6.12.43\).*/boot/efi/loader/entries.*Nothing was changed"
    ):
        change(machine)
    assert tree(tmp_path) == before


def test_the_entry_that_the_firmware_starts_next_is_the_default(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    (tmp_path / "boot/vmlinuz-6.12.38").touch()
    (tmp_path / "boot/efi/loader/entries/0a1b-6.12.38.conf").write_text("linux /x\noptions root=UUID=aa11 old\n")
    read = choose(machine).read
    assert "old" not in read()
    (tmp_path / "boot/efi/loader/loader.conf").write_text("timeout 3\ndefault *-6.12.38.conf\n")
    assert "old" in read()
    variables = tmp_path / "sys/firmware/efi/efivars"
    variables.mkdir(parents=True)
    name = "LoaderEntryOneShot-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
    (variables / name).write_bytes(b"\7\0\0\0" + "0a1b-6.12.43.conf\0".encode("utf-16-le"))
    assert "old" not in read()


def test_the_newest_kernel_comes_first_without_a_default(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    for version in ("6.9.1", "6.12.43", "6.12.5"):
        (tmp_path / "usr/lib/modules" / version).mkdir(exist_ok=True)
        (tmp_path / "boot" / ("vmlinuz-" + version)).touch()
        path = tmp_path / "boot/efi/loader/entries" / ("0a1b-%s.conf" % version)
        path.write_text("linux /x\noptions v=%s\n" % version)
    assert [entry.tokens for entry in choose(machine).entries()] == [("v=6.12.43",), ("v=6.12.5",), ("v=6.9.1",)]


def test_tokens_of_an_addon_count(tmp_path: Path) -> None:
    machine = laid_out("fedora-43-uki", tmp_path)
    (tmp_path / "efi/loader/addons").mkdir()
    (tmp_path / "efi/loader/addons/all.addon.efi").write_bytes(image("for.all=1"))
    (tmp_path / "efi/EFI/Linux/0a1b-6.17.5.efi.extra.d").mkdir()
    (tmp_path / "efi/EFI/Linux/0a1b-6.17.5.efi.extra.d/one.addon.efi").write_bytes(image("iommu=pt"))
    assert choose(machine).read()[-2:] == ["for.all=1", "iommu=pt"]
    with pytest.raises(VerifyMismatch, match=r"0a1b-6.17.5.efi does not have .*: iommu=pt is present"):
        change(machine)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not start with MZ"),
        (b"MZ" + b"\0" * 62, "no PE header"),
        (image("a")[:100], "unpack"),
        (image("a" * 50)[:-30], "ends inside of its section"),
        (image("a").replace(b"\x64\x86\x02", b"\x64\x86\xff"), "255 sections"),
    ],
)
def test_an_image_that_is_none(content: bytes, words: str, tmp_path: Path) -> None:
    machine = laid_out("fedora-43-uki", tmp_path)
    (tmp_path / "efi/EFI/Linux/0a1b-6.17.5.efi").write_bytes(content)
    with pytest.raises(NotUnderstood, match="0a1b-6.17.5.efi is not a unified kernel image: .*" + words):
        change(machine)


@pytest.mark.parametrize(
    ("version", "result"),
    [
        ("253", "root=UUID=aa11 ro # by hand: quiet intel_iommu=on"),
        ("254", "root=UUID=aa11 ro quiet intel_iommu=on"),
    ],
)
def test_comments_are_tokens_before_systemd_254(version: str, result: str, tmp_path: Path) -> None:
    machine = laid_out("debian-12-systemd-boot", tmp_path)
    (tmp_path / "systemd-version").write_text(version)
    (tmp_path / "etc/kernel/cmdline").write_text("root=UUID=aa11 ro\n# by hand: iommu=pt\nquiet\n")
    entry = tmp_path / "boot/efi/loader/entries/debian-6.1.0-41-amd64.conf"
    entry.write_text("linux /x\noptions root=UUID=aa11 ro quiet\n")
    assert after(machine) == result
    text = (tmp_path / "etc/kernel/cmdline").read_text()
    assert ("iommu=pt" in text) is (version == "254")


def test_comments_are_tokens_of_an_image_before_systemd_261(tmp_path: Path) -> None:
    machine = laid_out("fedora-43-uki", tmp_path)
    (tmp_path / "systemd-version").write_text("258")
    (tmp_path / "etc/kernel/cmdline").write_text("root=UUID=bb22\n# iommu=pt\n")
    assert after(machine) == "root=UUID=bb22 # intel_iommu=on systemd.machine_id=0a1b"


def test_the_program_is_not_asked_for_its_version_without_comments(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    change(machine, only_plan=True)
    assert stand_ins(machine).calls == []


def test_a_kernel_without_an_image(tmp_path: Path) -> None:
    machine = laid_out("debian-13-systemd-boot", tmp_path)
    (tmp_path / "boot/vmlinuz-6.12.43").unlink()
    with pytest.raises(NothingBoots, match="none in /usr/lib/modules"):
        change(machine)


def test_vendors_kernel_cmdline(tmp_path: Path) -> None:
    machine = laid_out("fedora-43-uki", tmp_path)
    (tmp_path / "usr/lib/kernel").mkdir(parents=True)
    (tmp_path / "usr/lib/kernel/cmdline").write_text("vendor\n")
    assert after(machine) == "vendor intel_iommu=on systemd.machine_id=0a1b"
    assert (tmp_path / "etc/kernel/cmdline").read_text() == "vendor intel_iommu=on\n"


# sdbootutil


def test_another_snapshot_that_boots_next(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-systemd-boot", tmp_path)
    (tmp_path / "boot/efi/loader/loader.conf").write_text("default opensuse-tumbleweed-6.17.5-1-default-1.conf\n")
    before = tree(tmp_path)
    with pytest.raises(Shadowed, match=r"boots next is .*default-1.conf.*not the running snapshot.*set-default"):
        change(machine)
    assert tree(tmp_path) == before


def test_a_copy_is_not_read_as_settings(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-grub2-bls", tmp_path)
    copies = change(machine).result()["backup_files"]
    assert [Path(copy).parent.name for copy in copies] == ["kernel", "kernel"]
    assert sorted(path.name for path in (tmp_path / "etc/kernel/cmdline.d").iterdir()) == ["20-iommu"]


def test_a_vendors_file_is_hidden_by_ours(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-grub2-bls", tmp_path)
    desired = Desired(remove=("console",))
    assert "console" not in after(machine, desired)
    assert (tmp_path / "usr/kernel/cmdline.d/10-vendor").read_text() == "console=tty0\n"
    assert (tmp_path / "etc/kernel/cmdline.d/10-vendor").read_text() == "\n"


@pytest.mark.parametrize("kind", ["grub2", "grub2-efi", "none"])
def test_a_host_of_suse_whose_setting_names_grub(kind: str, tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-grub2-bls", tmp_path)
    (tmp_path / "etc/sysconfig/bootloader").write_text('LOADER_TYPE="%s"\n' % kind)
    assert choose(machine).name == "grub"


def test_without_an_entry_of_this_snapshot(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-systemd-boot", tmp_path)
    mounts = tmp_path / "proc/mounts"
    mounts.write_text(mounts.read_text().replace("snapshots/2", "snapshots/7"))
    with pytest.raises(NothingBoots, match=r"No entry of this system \(snapshot @/.snapshots/7/snapshot\)"):
        change(machine)


def test_cmdline_of_the_running_kernel(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-grub2-bls", tmp_path)
    (tmp_path / "etc/kernel/cmdline").unlink()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cmdline").write_text("BOOT_IMAGE=/x splash=silent root=UUID=cc33\n")
    assert "intel_iommu=on" in after(machine)
    assert (tmp_path / "etc/kernel/cmdline").read_text() == "splash=silent root=UUID=cc33 intel_iommu=on\n"


def test_a_vendors_file_whose_hiding_would_change_the_order_is_refused(tmp_path: Path) -> None:
    machine = laid_out("tumbleweed-grub2-bls", tmp_path)
    (tmp_path / "usr/kernel/cmdline.d/10-vendor").write_text("console=tty0 first\n")
    (tmp_path / "etc/kernel/cmdline.d/05-ours").write_text("ours\n")
    machine.run(["sdbootutil", "update-all-entries"])
    before = tree(tmp_path)
    with pytest.raises(
        NotUnderstood, match=r"/usr/kernel/cmdline.d/10-vendor has what has to go; .*Nothing was changed"
    ):
        change(machine, Desired(remove=("console",)))
    assert tree(tmp_path) == before


# SUSE Linux Micro


def test_a_snapshot_that_turns_out_wrong_is_left_again(tmp_path: Path) -> None:
    machine = laid_out("sle-micro-6", tmp_path)
    programs = stand_ins(machine)
    make = programs._transactional_update

    def other(arguments: list[str]) -> None:
        make(arguments)
        for path in (tmp_path / ".snapshots/2").glob("snapshot/boot/grub2/grub.cfg"):
            path.write_text(path.read_text().replace("intel_iommu=on", ""))

    programs._transactional_update = other  # type: ignore[method-assign]
    with pytest.raises(VerifyMismatch, match=r"/.snapshots/2/snapshot/boot/grub2/grub.cfg, line \d+ .*intel_iommu=on"):
        change(machine)
    assert (tmp_path / "default-snapshot").read_text() == "1\n"
    assert "intel_iommu" not in (tmp_path / "etc/default/grub").read_text()


def test_a_root_file_system_without_snapshots(tmp_path: Path) -> None:
    machine = laid_out("sle-micro-6", tmp_path)
    programs: Any = stand_ins(machine)
    programs._btrfs = lambda _arguments: "ID 5 (FS_TREE)\n"
    with pytest.raises(NothingBoots, match=r"get-default / said ID 5 \(FS_TREE\)"):
        change(machine)


# Proxmox


@pytest.mark.parametrize("number", [0, 1])
def test_a_partition_with_grub_that_was_left_out_is_refreshed(number: int, tmp_path: Path) -> None:
    machine = laid_out("proxmox-9-grub", tmp_path)
    uuids = ["1A2B-3C4D", "5E6F-7A8B"]
    (tmp_path / "etc/kernel/proxmox-boot-uuids").write_text("\n".join(uuids) + "\n")
    (tmp_path / "dev/disk/by-uuid/5E6F-7A8B").touch()
    (tmp_path / "esp/5E6F-7A8B/EFI/proxmox").mkdir(parents=True)
    (tmp_path / "esp/5E6F-7A8B/EFI/proxmox/grubx64.efi").touch()
    machine.run(["proxmox-boot-tool", "refresh"])
    assert "intel_iommu=on" in after(machine)
    config = tmp_path / "esp" / uuids[number] / "grub/grub.cfg"
    config.write_text(config.read_text().replace("intel_iommu=on", "iommu=pt"))
    again = change(machine)
    assert again.result()["commands"] == [["update-grub"]]
    assert "iommu=pt" not in config.read_text()


def test_proxmox_with_grub_but_without_a_menu(tmp_path: Path) -> None:
    machine = laid_out("proxmox-9-grub", tmp_path)
    (tmp_path / "esp/1A2B-3C4D/grub/grub.cfg").unlink()
    with pytest.raises(NothingBoots, match=r"No grub/grub.cfg that starts a kernel.*1A2B-3C4D"):
        change(machine)


PROXMOX = "proxmox-8-systemd-boot"


def test_a_partition_that_is_mounted_is_read_there(tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/mounts").write_text(
        "/dev/disk/by-uuid/1A2B-3C4D /esp/1A2B-3C4D vfat rw 0 0\n%s /esp/5E6F-7A8B vfat rw 0 0\n"
        % (tmp_path / "dev/disk/by-uuid/5E6F-7A8B")
    )
    assert after(machine) == "root=ZFS=rpool/ROOT/pve-1 boot=zfs intel_iommu=on"
    assert {call[0] for call in stand_ins(machine).calls} == {"proxmox-boot-tool"}


def test_one_partition_that_was_left_out_is_noticed(tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    change(machine)
    entry = tmp_path / "esp/5E6F-7A8B/loader/entries/proxmox-6.8.12-9-pve.conf"
    entry.write_text(entry.read_text().replace("intel_iommu=on", "iommu=pt"))
    again = change(machine)
    assert again.is_change
    assert again.diff()[1:] == []
    assert "intel_iommu=on" in entry.read_text()


def test_a_disk_of_a_mirror_that_is_missing(tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    (tmp_path / "dev/disk/by-uuid/5E6F-7A8B").unlink()
    assert "intel_iommu=on" in after(machine)
    (tmp_path / "dev/disk/by-uuid/1A2B-3C4D").unlink()
    with pytest.raises(NothingBoots, match=r"No loader/entries.*1A2B-3C4D, 5E6F-7A8B.*proxmox-boot-tool status"):
        change(machine, Desired(add=("b",)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "does not exist, so that the tool takes the running command line"),
        ("# head\nroot=ZFS=x\n", "first line of /etc/kernel/cmdline has no root="),
    ],
)
def test_a_cmdline_that_proxmox_does_not_take(text: str | None, words: str, tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    (tmp_path / "etc/kernel/cmdline").unlink()
    if text:
        (tmp_path / "etc/kernel/cmdline").write_text(text)
    with pytest.raises(NotUnderstood, match=words + ".*Nothing was changed"):
        change(machine)


@pytest.mark.parametrize("mounted", [False, True])
def test_partitions_of_two_loaders(mounted: bool, tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    (tmp_path / "esp/5E6F-7A8B/EFI/proxmox").mkdir(parents=True)
    (tmp_path / "esp/5E6F-7A8B/EFI/proxmox/grubx64.efi").touch()
    if mounted:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/mounts").write_text("/dev/disk/by-uuid/5E6F-7A8B /esp/5E6F-7A8B vfat rw 0 0\n")
    with pytest.raises(NotUnderstood, match="5E6F-7A8B of /etc/kernel/proxmox-boot-uuids starts GRUB.*reinit"):
        change(machine)


def test_a_failed_refresh_is_refreshed_again_with_the_old_file(tmp_path: Path) -> None:
    machine = laid_out(PROXMOX, tmp_path)
    before = tree(tmp_path)
    stand_ins(machine).failing = {1: Result(1, "", "it broke")}
    with pytest.raises(CommandFailed):
        change(machine)
    assert stand_ins(machine).changing == [["proxmox-boot-tool", "refresh"]] * 2
    assert tree(tmp_path) == before


# rpm-ostree and bootc


def deployed(root: Path, tokens: str) -> Host:
    """A host whose only deployment boots with these tokens."""
    files = {
        "run/ostree-booted": "",
        "proc/self/mountinfo": "21 1 8:4 /ostree/deploy/os/deploy/abc.0 / rw - xfs /dev/sda4 rw\n",
        "boot/loader/entries/ostree-1.conf": "version 1\nlinux /x\noptions ostree=/ostree/boot.1/os/1f/0 %s\n" % tokens,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    pointed_at(root, "boot.1/os/1f/0", "abc.0")
    return host(root, ["rpm-ostree"])


def pointed_at(root: Path, pointer: str, folder: str) -> None:
    """A pointer to the folder of a deployment."""
    link = root / "sysroot/ostree" / pointer
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("../../../deploy/os/deploy/" + folder)


@pytest.mark.parametrize(
    ("tokens", "desired", "result"),
    [
        ("ro console=tty0 q", Desired(add=("console=ttyS0",)), "ro console=tty0 q console=ttyS0"),
        ("ro x=1 q", Desired(replace=("x=2",)), "ro x=2 q"),
        ("ro x=1 q x=2 x=2", Desired(replace=("x=2",)), "ro x=2 q"),
        ("ro x=a=b q", Desired(replace=("x=2",)), "ro x=2 q"),
        ("ro q x-y=1 q", Desired(replace=("x_y=2",)), "ro q x_y=2 q"),
        ("ro debug debug=1 q q", Desired(remove=("debug", "q")), "ro"),
        ("ro dyndbg=1", Desired(add=('dyndbg="file x +p"',)), 'ro dyndbg=1 dyndbg="file x +p"'),
    ],
)
def test_rpm_ostree_is_asked_for_exactly_what_is_needed(
    tokens: str, desired: Desired, result: str, tmp_path: Path
) -> None:
    assert after(deployed(tmp_path, tokens), desired) == result


def test_an_unchanged_deployment_is_read_without_a_program(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro intel_iommu=on")
    assert not change(machine).is_change
    assert stand_ins(machine).calls == []


@pytest.mark.parametrize("pending", [None, "staged", "written", "locked", "not known", "dangling"])
def test_a_new_deployment_is_taken_back_or_told(pending: str | None, tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro a")
    staged = tmp_path / "run/ostree/staged-deployment"
    if pending in ("staged", "locked"):
        staged.parent.mkdir()
        staged.write_text("ostree=/ostree/boot.1/os/2f/0 ro b\n")
    if pending == "locked":
        (tmp_path / "run/ostree/staged-deployment-locked").touch()
    if pending == "not known":
        (tmp_path / "proc/self/mountinfo").write_text("21 1 0:30 / / rw - overlay composefs ro\n")
    if pending == "dangling":
        (tmp_path / "sysroot/ostree/boot.1/os/1f/0").unlink()
    if pending == "written":
        pointed_at(tmp_path, "boot.1/os/2f/0", "def.0")
        entry = "version 2\nlinux /x\noptions ostree=/ostree/boot.1/os/2f/0 ro b\n"
        (tmp_path / "boot/loader/entries/ostree-2.conf").write_text(entry)
    stand_ins(machine).failing = {1: Result(1, "", "it broke")}
    with pytest.raises(CommandFailed) as caught:
        change(machine)
    assert (["rpm-ostree", "cleanup", "-p"] in stand_ins(machine).calls) is (pending is None)
    assert staged.exists() is (pending is not None)
    assert ("it boots next" in caught.value.state) is (pending is not None)


def test_the_highest_version_boots_next(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro one")
    for name, version in (("ostree-2", "10"), ("ostree-3", "9")):
        entry = "version %s\nlinux /x\noptions ostree=/ostree/boot.1/os/2f/0 v=%s\n" % (version, version)
        (tmp_path / "boot/loader/entries" / (name + ".conf")).write_text(entry)
    assert choose(machine).read() == ["v=10"]


def test_a_staged_deployment_that_is_locked_does_not_boot(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro one")
    (tmp_path / "run/ostree").mkdir()
    (tmp_path / "run/ostree/staged-deployment").write_text("ostree=/ostree/boot.1/os/2f/0 two\n")
    assert choose(machine).read() == ["two"]
    (tmp_path / "run/ostree/staged-deployment-locked").touch()
    assert choose(machine).read() == ["ro", "one"]


def test_tokens_that_a_deployment_does_not_have_are_noticed(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro a")
    programs: Any = stand_ins(machine)
    programs._rpm_ostree = lambda _arguments: Result(0, "ostree=/x ro a\n")
    with pytest.raises(VerifyMismatch, match=r"intel_iommu=on is missing, intel_iommu=on was lost.*Every file was"):
        change(machine)


def test_a_deployment_without_entries_is_asked_of_the_program(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro a")
    (tmp_path / "boot/loader/entries/ostree-1.conf").unlink()
    programs: Any = stand_ins(machine)
    programs._rpm_ostree = lambda _arguments: Result(0, "ostree=/x ro intel_iommu=on\n")
    assert change(machine).result()["after"] == "ro intel_iommu=on"
    programs._rpm_ostree = lambda _arguments: Result(0, "\n")
    with pytest.raises(NothingBoots, match="names no arguments"):
        change(machine)


def test_arguments_of_init_are_not_mixed_with_the_kernels(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match=r"holds --.*--editor"):
        change(deployed(tmp_path, "ro -- a"))


def test_a_node_of_openshift_is_left_to_its_machine_config(tmp_path: Path) -> None:
    machine = deployed(tmp_path, "ro iommu=pt")
    (tmp_path / "etc/machine-config-daemon").mkdir(parents=True)
    (tmp_path / "etc/machine-config-daemon/currentconfig").write_text("{}")
    with pytest.raises(Shadowed, match=r"OpenShift.* Nothing was changed. .*kernelArguments: intel_iommu=on"):
        change(machine)
    assert stand_ins(machine).changing == []
    assert not change(machine, Desired(add=("ro",))).is_change


def booted_image(root: Path, tokens: str) -> Host:
    deployed(root, tokens)
    (root / "usr/lib/bootc/kargs.d").mkdir(parents=True)
    return host(root, ["bootc"])


def test_a_host_that_was_booted_from_an_image(tmp_path: Path) -> None:
    machine = booted_image(tmp_path, "ro iommu=pt")
    before = tree(tmp_path)
    words = r"/usr is read-only: intel_iommu=on is missing, iommu=pt is present. Nothing was changed. Build the image"
    with pytest.raises(NotWritable, match=words):
        change(machine)
    assert tree(tmp_path) == before
    assert change(machine, Desired(add=("ro",))).result()["after"] == "ro iommu=pt"


def test_an_image_that_is_staged(tmp_path: Path) -> None:
    machine = booted_image(tmp_path, "ro intel_iommu=on")
    (tmp_path / "run/ostree").mkdir()
    (tmp_path / "run/ostree/staged-deployment").touch()
    with pytest.raises(NothingBoots, match="it is staged"):
        change(machine)


def kargs(root: Path, **files: str) -> Host:
    folder = root / "usr/lib/bootc/kargs.d"
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / (name + ".toml")).write_text(text)
    return host(root, ["bootc"])


@pytest.mark.parametrize(
    "text",
    ["kargs = 1\n", 'kargs = ["a"\n', 'kargs = ["a"]\nkargs = ["b"]\n', '"kargs" = ["a"]\n', "kargs = [1]\n"],
)
def test_kargs_that_are_not_a_plain_list(text: str, tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match=r"x.toml: the value of kargs is not one plain list"):
        change(kargs(tmp_path, x=text))


def test_kargs_files_without_kargs(tmp_path: Path) -> None:
    machine = kargs(tmp_path, a="# kargs\n", b='kargs = ["a \\"b\\"", \'c\']')
    assert change(machine).result()["before"] == 'a "b" c'


def test_kargs_for_another_processor(tmp_path: Path) -> None:
    other = 'match-architectures = ["s390"]\nkargs = ["iommu=pt"]\n'
    own = 'kargs = ["a"]\nmatch-architectures = ["%s", "s390"]\n' % platform.machine()
    machine = kargs(tmp_path, a=other, b=own)
    assert after(machine) == "intel_iommu=on a"
    assert (tmp_path / "usr/lib/bootc/kargs.d/a.toml").read_text() == other


# kernelstub


def test_kernelstub_keeps_the_order(tmp_path: Path) -> None:
    desired = Desired(remove=("splash",), replace=("loglevel=3",), add=("z", 'dyndbg="file x +p"'))
    result = after(laid_out("pop-os-22.04", tmp_path), desired)
    assert result == 'root=UUID=1234 ro quiet loglevel=3 systemd.show_status=false iommu=pt z dyndbg="file x +p"'


def test_kernelstub_that_finds_no_kernel_is_no_success(tmp_path: Path) -> None:
    machine = laid_out("pop-os-22.04", tmp_path)
    for path in (tmp_path / "boot").glob("vmlinuz-*"):
        path.unlink()
    with pytest.raises(VerifyMismatch, match=r"Pop_OS-current.conf, line 4"):
        change(machine)


def test_the_former_kernels_entry_is_a_way_back(tmp_path: Path) -> None:
    machine = laid_out("pop-os-22.04", tmp_path)
    former = tmp_path / "boot/efi/loader/entries/Pop_OS-oldkern.conf"
    former.write_text("linux /x\noptions ro old\n")
    assert "intel_iommu=on" in after(machine)
    assert "old" in former.read_text()


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"default": {}}, "no list user.kernel_options"),
        ({"user": {"kernel_options": ["a"], "setup_loader": False}}, "does not set setup_loader"),
    ],
)
def test_a_configuration_of_kernelstub_that_writes_no_entries(
    configuration: dict[str, object], words: str, tmp_path: Path
) -> None:
    machine = laid_out("pop-os-22.04", tmp_path)
    (tmp_path / "etc/kernelstub/configuration").write_text(json.dumps(configuration))
    with pytest.raises(NotUnderstood, match=words):
        change(machine)


def test_kernelstub_options_as_text(tmp_path: Path) -> None:
    machine = laid_out("pop-os-22.04", tmp_path)
    path = tmp_path / "etc/kernelstub/configuration"
    configuration = json.loads(path.read_text())
    configuration["user"]["kernel_options"] = " ".join(configuration["user"]["kernel_options"])
    path.write_text(json.dumps(configuration))
    assert split(after(machine))[-1] == "intel_iommu=on"


def test_kernelstub_without_entries(tmp_path: Path) -> None:
    machine = laid_out("pop-os-22.04", tmp_path)
    (tmp_path / "boot/efi/loader/entries/Pop_OS-current.conf").unlink()
    with pytest.raises(NothingBoots, match=r"No \*-current.conf was found in /boot/efi/loader/entries"):
        change(machine)


# Flatcar


AZURE = """\
set oem_id="azure"
set linux_append="flatcar.autologin iommu=pt"
if [ "$grub_cpu" = arm64 ]; then
  set linux_console="console=tty1 console=ttyAMA0,115200n8"
else
  set linux_console="console=tty1 console=ttyS0,115200n8"
fi
"""


def flatcar(root: Path, text: str | None, folder: str = "oem", available: tuple[str, ...] = ()) -> Host:
    for name in ("etc", "proc", folder):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=flatcar\n")
    (root / "proc/mounts").write_text("/dev/sda6 /%s btrfs rw 0 0\n" % folder)
    if text is not None:
        (root / folder / "grub.cfg").write_text(text)
    return host(root, available)


def test_flatcar_file_is_checked_where_that_is_possible(tmp_path: Path) -> None:
    machine = flatcar(tmp_path, None, "usr/share/oem", ("grub-script-check",))
    assert change(machine).result()["commands"] == [["grub-script-check", "/usr/share/oem/grub.cfg"]]


def test_flatcar_whose_partition_is_not_mounted(tmp_path: Path) -> None:
    machine = flatcar(tmp_path, "", "oem")
    (tmp_path / "proc/mounts").write_text("/dev/sda9 / ext4 rw 0 0\n")
    with pytest.raises(NothingBoots, match=r"OEM partition.* is mounted neither at /oem nor at /usr/share/oem"):
        change(machine)
    assert (tmp_path / "oem/grub.cfg").read_text() == ""


def test_flatcar_for_a_cloud_that_chooses_its_console_by_processor(tmp_path: Path) -> None:
    machine = flatcar(tmp_path, AZURE)
    assert change(machine).result()["after"] == "flatcar.autologin intel_iommu=on"
    assert (tmp_path / "oem/grub.cfg").read_text() == AZURE.replace("iommu=pt", "intel_iommu=on")
    assert not change(machine).is_change


@pytest.mark.parametrize("desired", [Desired(remove=("console=tty1",)), Desired(replace=("console=ttyS1",))])
def test_flatcar_refuses_to_guess_at_a_console_that_shall_go(desired: Desired, tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match=r"grub.cfg, line 4: the assignment is conditional"):
        change(flatcar(tmp_path, AZURE), desired)


def test_flatcar_refuses_tokens_in_an_if(tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match="line 1: the assignment is conditional"):
        change(flatcar(tmp_path, 'if true; then set linux_append="a"; fi\n'))


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("gone\n# why\ngone\n", "# why\n\n"),
        ("gone\n# why\nstays\n", "# why\nstays\n"),
        ("gone\n# why\ngone\n# too\ngone stays\n", "# why\n# too\nstays\n"),
        ("stays gone\n# why\ngone", "stays\n# why\n"),
    ],
)
def test_comments_stay_where_the_tokens_around_them_go(text: str, result: str) -> None:
    assert edited(text, Desired(remove=("gone",))) == result
