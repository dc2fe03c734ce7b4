# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The playbook `site` from a stock machine to GPUs in the wanted mode, and once more without a change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.bench import guest
from tests.vm.bench.control import SITE, Run, site_variables
from tests.vm.bench.image import Image
from tests.vm.bench.machine import address
from tests.vm.conftest import Vm, running

DEVICES = (address(0), address(1))
# A run that changes nothing shall stay short: every task costs a connection and a third of a second of processor.
MOST_TASKS = 40


@pytest.fixture(scope="module")
def vm(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """Two H100 in a stock machine."""
    with running(image, tmp_path_factory.mktemp("site"), ["h100-pcie", "h100-pcie"]) as made:
        yield made


@pytest.fixture(scope="module")
def boots(vm: Vm) -> list[str]:
    """The names of the boots, in order; the tests add to it."""
    return [vm.machine.ssh.boot_id()]


@pytest.fixture(scope="module")
def first(vm: Vm, boots: list[str], wheel_folder: Path) -> Run:
    """The first run."""
    assert "intel_iommu=off" in vm.machine.ssh.run("cat /proc/cmdline")
    run = vm.control.playbook(SITE, site_variables(wheel_folder))
    assert run.status == 0, run.output
    boots.append(vm.machine.ssh.boot_id())
    return run


def test_first_run_reboots_once_with_the_new_command_line(vm: Vm, first: Run, boots: list[str]) -> None:
    assert len(set(boots)) == 2
    assert vm.machine.console.read_text(errors="replace").count("reboot: Restarting system") == 1
    tokens = vm.machine.ssh.run("cat /proc/cmdline").split()
    assert "intel_iommu=on" in tokens
    assert "intel_iommu=off" not in tokens


def test_devices_have_groups_and_vfio(vm: Vm, first: Run) -> None:
    ssh = vm.machine.ssh
    for device in DEVICES:
        folder = f"/sys/bus/pci/devices/{device}"
        assert guest.link(ssh, f"{folder}/driver") == "vfio-pci"
        group = guest.link(ssh, f"{folder}/iommu_group")
        assert ssh.run(f"ls /dev/vfio/{group}").strip() == f"/dev/vfio/{group}"


def test_devices_are_in_the_mode(vm: Vm, first: Run, wheel_folder: Path, tmp_path: Path) -> None:
    assert [one["mode"] for one in vm.emulator.control.state().values()] == ["on", "on"]
    guest.install_tool(vm.machine.ssh, wheel_folder, tmp_path)
    assert [guest.cc_mode(vm.machine.ssh, device) for device in DEVICES] == ["on", "on"]


def test_second_run_changes_nothing(vm: Vm, first: Run, boots: list[str], wheel_folder: Path) -> None:
    vm.emulator.control.reset_counters()
    run = vm.control.playbook(SITE, site_variables(wheel_folder))
    assert run.status == 0, run.output
    assert run.recap["changed"] == 0, run.output
    assert run.tasks <= MOST_TASKS, run.output
    assert vm.machine.ssh.boot_id() == boots[-1]
    counters = [one["counters"] for one in vm.emulator.control.state().values()]
    assert [(one["knob_writes"], one["resets"]) for one in counters] == [(0, 0), (0, 0)]


def test_all_is_there_after_another_boot(vm: Vm, first: Run) -> None:
    ssh = vm.machine.ssh
    guest.reboot(ssh)
    assert [guest.link(ssh, f"/sys/bus/pci/devices/{device}/driver") for device in DEVICES] == ["vfio-pci", "vfio-pci"]
    assert [guest.cc_mode(ssh, device) for device in DEVICES] == ["on", "on"]
