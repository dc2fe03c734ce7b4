# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian's own grub-mkconfig: what it makes is read, and a change reaches every entry or is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from loader_root import Confined, change, host

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, split
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    CommandFailed,
    NothingBoots,
    NotUnderstood,
    Shadowed,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host
from ansible_collections.confidential.gpu.plugins.module_utils._boot.loaders.grub_dropin import GrubDropin
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import VerifyMismatch

ROOT = "root=/dev/vda1 ro"
SETTINGS = """\
GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${NAME} )`
GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"
GRUB_CMDLINE_LINUX="console=ttyS0,115200n8"
"""
# NVIDIA's packages for DGX OS append in drop-ins, some only when a file or a processor is there.
NVIDIA = """\
if [ -e /etc/os-release ]; then
  GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT earlycon nvme.poll_queues=4"
fi
"""


def debian(root: Path, settings: str = SETTINGS, kernels: tuple[str, ...] = ("6.1.0-9", "6.12.1"), **more: str) -> Host:
    files = {"etc/default/grub": settings, "etc/os-release": 'NAME="Debian"\nID=debian\n', "etc/machine-id": "0a1b\n"}
    for version in kernels:
        files.update({"boot/%s-%s" % (name, version): name for name in ("vmlinuz", "initrd.img", "config")})
    files.update({name.replace("__", "/").replace("_dot_", "."): text for name, text in more.items()})
    machine = host(root, files)
    shutil.copytree("/etc/grub.d", root / "etc/grub.d", dirs_exist_ok=True)
    (root / "boot/grub").mkdir()
    machine.run(["update-grub"])
    assert isinstance(machine.commands, Confined)
    machine.commands.calls.clear()
    return machine


def test_every_entry_that_it_makes_is_read(tmp_path: Path) -> None:
    found = GrubDropin(debian(tmp_path)).entries()
    newest, normal = "Debian GNU/Linux", "Debian GNU/Linux, with Linux %s"
    assert [(entry.title, entry.is_default, entry.is_recovery) for entry in found] == [
        (newest, True, False),
        (normal % "6.12.1", False, False),
        (normal % "6.12.1" + " (recovery mode)", False, True),
        (normal % "6.1.0-9", False, False),
        (normal % "6.1.0-9" + " (recovery mode)", False, True),
    ]
    common = (*ROOT.split(), "console=ttyS0,115200n8")
    assert {entry.tokens for entry in found if not entry.is_recovery} == {(*common, "quiet", "iommu=pt")}
    # Since 2.12 the recovery entries have dis_ucode_ldr too.
    recovery = {
        tuple(token for token in entry.tokens if token != "dis_ucode_ldr") for entry in found if entry.is_recovery
    }
    assert recovery == {(*common[:2], "single", common[2])}
    lines = (tmp_path / "boot/grub/grub.cfg").read_text().splitlines()
    assert all(lines[entry.line - 1].split()[0] == "linux" for entry in found)


def test_a_change_is_in_every_entry(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    result = change(machine).result()
    assert result["before"] == ROOT + " console=ttyS0,115200n8 quiet iommu=pt"
    assert result["after"] == ROOT + ' console=ttyS0,115200n8 quiet intel_iommu=on dyndbg="file iommu.c +p"'
    assert result["commands"] == [["update-grub"], ["grub-script-check", "/boot/grub/grub.cfg"]]
    assert (tmp_path / "boot/grub/grub.cfg").read_text().count("intel_iommu=on") == 3


def test_taken_back_without_a_trace(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    before = (tmp_path / "boot/grub/grub.cfg").read_bytes()
    change(machine, Desired(add=("a=b", "c")))
    assert (tmp_path / "boot/grub/grub.cfg").read_bytes() != before
    change(machine, Desired(remove=("a=b", "c")))
    assert (tmp_path / "boot/grub/grub.cfg").read_bytes() == before


def test_a_menu_that_is_older_than_its_settings_is_made_anew(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    (tmp_path / "etc/default/grub").write_text(SETTINGS.replace("iommu=pt", "intel_iommu=on nohibernate"))
    result = change(machine, Desired(add=("intel_iommu=on",)))
    assert result.is_change
    assert result.planned is not None
    assert result.planned.edits == []
    assert "nohibernate" in split(result.result()["after"])


@pytest.mark.parametrize("number", [40, 99])
def test_a_drop_in_that_appends_under_a_condition(number: int, tmp_path: Path) -> None:
    """Before our own file, and behind it."""
    name = {40: "40-nvidia.cfg", 99: "99-nvidia.cfg"}[number]
    files: dict[str, Any] = {"etc/default/grub.d/" + name: NVIDIA}
    machine = debian(tmp_path, **files)
    after = split(change(machine, Desired(add=("intel_iommu=on",), remove=("iommu=pt",))).result()["after"])
    assert set(after) >= {"earlycon", "nvme.poll_queues=4", "intel_iommu=on", "quiet"}
    assert "iommu=pt" not in after
    with pytest.raises(NotUnderstood, match=r"grub.d/%s, line 2: earlycon is set there" % name):
        change(machine, Desired(remove=("earlycon",)))


def test_settings_in_another_file(tmp_path: Path) -> None:
    extra: dict[str, Any] = {"etc/default/grub.extra": 'GRUB_CMDLINE_LINUX_DEFAULT="hidden=1"\n'}
    machine = debian(tmp_path, SETTINGS + ". /etc/default/grub.extra\n", **extra)
    assert split(change(machine, Desired(add=("intel_iommu=on",))).result()["after"])[-2:] == [
        "hidden=1",
        "intel_iommu=on",
    ]
    with pytest.raises(NotUnderstood, match=r"/etc/default/grub, line \d+: hidden=1 is set there"):
        change(machine, Desired(remove=("hidden",)))


def test_a_script_that_adds_a_token_of_its_own_is_told(tmp_path: Path) -> None:
    """10_linux of a vendor: what the settings say is met, and the menu still has what shall not be there."""
    machine = debian(tmp_path)
    script = tmp_path / "etc/grub.d/10_linux"
    script.write_text(script.read_text().replace(" ro ${args}", " ro ${args} vendor=1"))
    before = (tmp_path / "boot/grub/grub.cfg").read_bytes()
    with pytest.raises(VerifyMismatch, match=r"vendor=1 is present. Every file was put back"):
        change(machine, Desired(add=("intel_iommu=on",), remove=("vendor",)))
    assert (tmp_path / "boot/grub/grub.cfg").read_bytes() == before
    assert not (tmp_path / "etc/default/grub.d/99-confidential-gpu.cfg").exists()


def test_entries_of_a_person_are_not_this_systems(tmp_path: Path) -> None:
    custom = "#!/bin/sh\nexec tail -n +3 $0\nmenuentry 'Rescue disk' --id rescue {\n\tlinux /rescue quiet\n}\n"
    files: dict[str, Any] = {"etc/grub.d/41_rescue": custom}
    machine = debian(tmp_path, **files)
    change(machine)
    (tmp_path / "etc/default/grub").write_text(SETTINGS.replace("GRUB_DEFAULT=0", "GRUB_DEFAULT=rescue"))
    machine.run(["update-grub"])
    with pytest.raises(Shadowed, match=r"\(Rescue disk\) is made by /etc/grub.d/41_rescue"):
        change(machine)


def test_the_kernel_below_xen_is_changed_too(tmp_path: Path) -> None:
    files = {
        "boot/config-6.12.1": "CONFIG_XEN_DOM0=y\n",
        "boot/xen-4.17-amd64.gz": "xen",
        "boot/xen-4.17-amd64.config": "",
    }
    machine = debian(tmp_path, kernels=("6.12.1",), **files)
    xen = [entry for entry in GrubDropin(machine).entries() if "Xen" in entry.title and not entry.is_recovery]
    assert {entry.tokens for entry in xen} == {(*ROOT.split(), "console=ttyS0,115200n8", "quiet", "iommu=pt")}
    change(machine)
    lines = [line for line in (tmp_path / "boot/grub/grub.cfg").read_text().splitlines() if "placeholder root=" in line]
    assert len([line for line in lines if "intel_iommu=on" in line]) == len(xen) >= 2


def test_the_saved_entry_boots(tmp_path: Path) -> None:
    machine = debian(tmp_path, SETTINGS.replace("GRUB_DEFAULT=0", "GRUB_DEFAULT=saved"))
    machine.run(["grub-editenv", "/boot/grub/grubenv", "set", "saved_entry=1>2"])
    (chosen,) = [entry for entry in GrubDropin(machine).entries() if entry.is_default]
    assert chosen.title == "Debian GNU/Linux, with Linux 6.1.0-9"


def test_without_a_kernel_nothing_is_written(tmp_path: Path) -> None:
    machine = debian(tmp_path, kernels=())
    with pytest.raises(NothingBoots, match=r"grub.cfg starts no kernel of this system.* Nothing was changed"):
        change(machine)
    assert isinstance(machine.commands, Confined)
    assert ["update-grub"] not in machine.commands.calls


def test_what_its_own_check_refuses_is_undone(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    (tmp_path / "etc/grub.d/41_broken").write_text("#!/bin/sh\necho 'menuentry {'\n")
    (tmp_path / "etc/grub.d/41_broken").chmod(0o755)
    before = (tmp_path / "boot/grub/grub.cfg").read_bytes()
    with pytest.raises(CommandFailed, match=r"(?s)update-grub ended with 1 .*Every file was put back"):
        change(machine)
    assert (tmp_path / "boot/grub/grub.cfg").read_bytes() == before
