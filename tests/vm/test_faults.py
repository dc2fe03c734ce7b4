# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Power cuts at the worst moments, on one machine in this order; the next run has to repair what each left."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.vm.bench import guest
from tests.vm.bench.control import CC_MODE, HOST_PLAYBOOK, Control
from tests.vm.bench.image import Image
from tests.vm.bench.machine import address
from tests.vm.conftest import Vm, running

FIRST, SECOND = address(0), address(1)
MODE = {"cc_mode_admin_tools": guest.TOOL_FOLDER, "cc_mode_mode": "on"}
HOST = {"iommu_technology": "passthrough", "bootloader_reboot_ok": True, "bootloader_reboot_timeout": 600}
# A part of grub-mkconfig that waits while /run/hang exists, which no reboot survives.
HANG = "[ ! -e /run/hang ] || { touch /run/reached; sleep 600; }"
HANG_PATH = "/etc/grub.d/09_hang"


@pytest.fixture(scope="module")
def vm(image: Image, wheel_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """Two H100 in a stock machine with NVIDIA's tool."""
    folder = tmp_path_factory.mktemp("faults")
    with running(image, folder, ["h100-pcie", "h100-pcie"]) as made:
        guest.install_tool(made.machine.ssh, wheel_folder, folder)
        made.machine.ssh.run("sync")
        yield made


@pytest.mark.parametrize(
    ("event", "left"),
    [("knob_write", "off"), ("reset", "on")],
    ids=["while-staging", "between-staging-and-reset"],
)
def test_power_cut_of_a_mode_change(vm: Vm, event: str, left: str) -> None:
    """`left`: the mode in which the power cut leaves the struck device, by what was staged until then."""
    devices = vm.emulator.control
    devices.set(mode="off")
    # The device stops answering, and with it the run, at exactly this moment.
    devices.fault(device=SECOND, event=event, action="hang")
    with background(vm.control, CC_MODE, MODE) as run:
        until(lambda: devices.state(SECOND)["hung"], run)
        vm.machine.kill()
    devices.clear_faults()
    devices.repair()
    devices.power_cycle()
    vm.machine.boot()
    assert guest.cc_mode(vm.machine.ssh, SECOND) == left
    again = vm.control.playbook(CC_MODE, MODE)
    assert again.status == 0, again.output
    assert [guest.cc_mode(vm.machine.ssh, one) for one in (FIRST, SECOND)] == ["on", "on"]


def test_power_cut_in_the_middle_of_update_grub(vm: Vm) -> None:
    ssh = vm.machine.ssh
    ssh.run(f"echo '#!/bin/sh\n{HANG}' > {HANG_PATH} && chmod +x {HANG_PATH} && touch /run/hang && sync")
    with background(vm.control, HOST_PLAYBOOK, HOST) as run:
        until(lambda: "reached" in ssh.run("ls /run/reached || true"), run)
        vm.lose_power()
    vm.machine.boot()
    assert "intel_iommu=off" in ssh.run("cat /proc/cmdline")
    ssh.run(f"rm {HANG_PATH}")


def test_next_run_repairs_it_though_its_reboot_is_cut_short(vm: Vm) -> None:
    ssh, console = vm.machine.ssh, vm.machine.console
    restarts = "reboot: Restarting system"
    before = console.read_text(errors="replace").count(restarts)
    with background(vm.control, HOST_PLAYBOOK, HOST) as run:
        until(lambda: console.read_text(errors="replace").count(restarts) > before, run)
        vm.lose_power()
        # Ansible waits for the host to come back, and goes on when it does.
        vm.machine.boot()
        output, _ = run.communicate(timeout=600)
        assert run.returncode == 0, output
    tokens = ssh.run("cat /proc/cmdline").split()
    assert ("intel_iommu=on" in tokens, "intel_iommu=off" in tokens) == (True, False)
    assert guest.link(ssh, f"/sys/bus/pci/devices/{FIRST}/driver") == "vfio-pci"
    again = vm.control.playbook(HOST_PLAYBOOK, HOST)
    assert (again.status, again.recap["changed"]) == (0, 0), again.output


def test_wrong_parameter_is_taken_back_with_the_role(vm: Vm, tmp_path: Path) -> None:
    ssh = vm.machine.ssh
    playbook = tmp_path / "bootloader.yml"
    playbook.write_text("- hosts: all\n  gather_facts: false\n  roles: [confidential.gpu.bootloader]\n")
    # Wrong, and after the reboot in force: the IOMMU is off again.
    wrong = {"bootloader_replace": ["intel_iommu=off"], "bootloader_reboot_ok": True, "bootloader_reboot_timeout": 600}
    run = vm.control.playbook(playbook, wrong)
    assert run.status == 0, run.output
    assert ssh.run("ls /sys/kernel/iommu_groups") == ""
    repaired = vm.control.playbook(HOST_PLAYBOOK, HOST)
    assert repaired.status == 0, repaired.output
    tokens = ssh.run("cat /proc/cmdline").split()
    assert ("intel_iommu=on" in tokens, "intel_iommu=off" in tokens) == (True, False)
    assert "intel_iommu=off" not in ssh.run("cat /boot/grub/grub.cfg")


def test_host_that_does_not_come_back_is_told_with_its_state(vm: Vm, tmp_path: Path) -> None:
    """The last test: nothing boots after it."""
    playbook = tmp_path / "bootloader.yml"
    playbook.write_text("- hosts: all\n  gather_facts: false\n  roles: [confidential.gpu.bootloader]\n")
    # The last one counts, and the initramfs waits for a disk that never comes.
    fatal = {"bootloader_add": ["root=/dev/nowhere"], "bootloader_reboot_ok": True, "bootloader_reboot_timeout": 45}
    run = vm.control.playbook(playbook, fatal)
    assert run.status != 0, run.output
    words = run.output.replace("\n", " ")
    assert "The host did not come back after its reboot" in words
    assert "root=/dev/nowhere. Before this run it was:" in words


@contextmanager
def background(control: Control, path: Path, variables: Mapping[str, object]) -> Iterator[subprocess.Popen[str]]:
    """A playbook that runs beside the test, and is gone at the end of it."""
    run = control.start(path, variables)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


def until(reached: Callable[[], bool], run: subprocess.Popen[str], timeout_s: float = 600) -> None:
    """Wait for the moment; fail when the run ends before it."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline, "the moment never came"
        time.sleep(0.05)
