# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Hosts that UEFI starts, with systemd-boot: the new command line is the next boot's, as the kernel itself says.

Once with entries in files and once with unified kernel images, which hold their command line. Each machine is
installed by hand as an administrator does, and its first start by the firmware shows what that made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.vm.bench.control import Control, Run
from tests.vm.bench.image import COMMAND_LINE, CONSOLE, ROOT_FILE_SYSTEM, build_uefi
from tests.vm.bench.machine import Machine

LAYOUTS = {"entries": "layout=bls\n", "unified": "layout=uki\nuki_generator=ukify\n"}
PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "roles": ["confidential.gpu.bootloader"],
        "vars": {
            "bootloader_add": ["intel_iommu=on"],
            "bootloader_remove": ["intel_iommu=off"],
            "bootloader_reboot_ok": True,
            "bootloader_reboot_timeout": 600,
        },
    }
]
# As an administrator installs it: the boot loader, and the kernel as the script of its package does.
INSTALL = f"""
set -e
printf '%s' '{{layout}}' > /etc/kernel/install.conf
echo '{ROOT_FILE_SYSTEM} {CONSOLE} {COMMAND_LINE}' > /etc/kernel/cmdline
bootctl --no-variables --esp-path=/efi install
echo 'timeout 0' > /efi/loader/loader.conf
version=$(uname -r)
kernel-install add "$version" "/boot/vmlinuz-$version" "/boot/initrd.img-$version"
sync
"""


@pytest.fixture(scope="module", params=LAYOUTS)
def machine(
    programs: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """Installed, and started by the firmware."""
    folder = tmp_path_factory.mktemp(request.param) / "m"
    uefi = build_uefi()
    installer = Machine(uefi, folder, with_iommu=True)
    made = Machine(uefi, folder, uefi=True)
    try:
        installer.boot()
        installer.ssh.run(INSTALL.format(layout=LAYOUTS[request.param]), timeout_s=400)
        installer.stop()
        made.boot()
        yield made
    finally:
        installer.kill()
        made.discard()


def test_the_next_boot_has_the_new_command_line(machine: Machine, tmp_path: Path) -> None:
    before = cmdline(machine)
    assert "intel_iommu=off" in before
    first = configure(machine, tmp_path)
    assert first.status == 0, first.output
    after = cmdline(machine)
    assert [token for token in before if token != "intel_iommu=off"] == [t for t in after if t != "intel_iommu=on"]
    assert "intel_iommu=on" in after
    second = configure(machine, tmp_path)
    assert second.recap["changed"] == 0, second.output


def test_what_is_read_back_is_what_boots(machine: Machine, tmp_path: Path) -> None:
    answer = Control(machine, tmp_path).module("kernel_cmdline", add=["quiet"])
    assert answer["changed"] is False, answer
    assert answer["loader"] == "kernel-install"
    assert answer["after"].split() == [token for token in answer["running"].split() if not is_the_firmwares(token)]
    assert answer["reboot_required"] is False


def configure(machine: Machine, folder: Path) -> Run:
    """The role bootloader on the machine."""
    play = folder / "play.yml"
    play.write_text(yaml.safe_dump(PLAY))
    return Control(machine, folder / "control").playbook(play, {})


def cmdline(machine: Machine) -> list[str]:
    """The running kernel's."""
    return machine.ssh.run("cat /proc/cmdline").split()


def is_the_firmwares(token: str) -> bool:
    """A boot loader's own word about itself, such as where the initramfs was read from."""
    return token.startswith(("initrd=", "BOOT_IMAGE="))
