# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A stock kernel with emulated GPUs: what the kernel sees, NVIDIA's tool in the guest, and our modules over SSH.

The tests run in this order on one machine: its IOMMU is off at first, and switched on half-way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.bench import container, guest
from tests.vm.bench.image import Image
from tests.vm.bench.machine import PYTHON, address
from tests.vm.conftest import Vm, running

FIRST, SECOND = address(0), address(1)
TOOL = guest.TOOL_FOLDER


@pytest.fixture(scope="module")
def vm(image: Image, wheel_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    """Two H100 in a machine whose IOMMU is off, with NVIDIA's tool unpacked."""
    folder = tmp_path_factory.mktemp("vm")
    with running(image, folder, ["h100-pcie", "h100-pcie"]) as made:
        guest.install_tool(made.machine.ssh, wheel_folder, folder)
        yield made


@pytest.fixture(scope="module")
def vm_with_iommu(vm: Vm) -> Vm:
    """The same machine, restarted with its IOMMU on, both devices at vfio-pci."""
    guest.switch_iommu_on(vm.machine.ssh)
    for device in (FIRST, SECOND):
        guest.bind_to_vfio(vm.machine.ssh, device)
    return vm


def test_kernel_sees_the_devices(vm: Vm) -> None:
    ssh = vm.machine.ssh
    assert ssh.run("lspci -n -d 10de:").splitlines() == [
        f"{one[5:]} 0302: 10de:2331 (rev a1)" for one in (FIRST, SECOND)
    ]
    device = f"/sys/bus/pci/devices/{FIRST}"
    assert ssh.run(f"stat -c %s {device}/config {device}/resource0").split() == ["4096", str(16 << 20)]
    assert ssh.run(f"cat {device}/reset_method").split() == ["flr", "bus"]
    assert ssh.run("ls /sys/kernel/iommu_groups") == ""


@pytest.mark.parametrize("method", ["flr", "bus"])
def test_kernels_reset_reaches_the_device_alone(vm: Vm, method: str) -> None:
    device = f"/sys/bus/pci/devices/{FIRST}"
    vm.emulator.control.reset_counters()
    vm.machine.ssh.run(
        f"echo {method} > {device}/reset_method && echo 1 > {device}/reset; echo default > {device}/reset_method"
    )
    state = vm.emulator.control.state()
    assert {one: state[one]["counters"]["resets"] for one in (FIRST, SECOND)} == {FIRST: 1, SECOND: 0}


def test_nvidias_tool_sets_the_mode(vm: Vm) -> None:
    ssh = vm.machine.ssh
    assert guest.cc_mode(ssh, SECOND) == "off"
    said = guest.nvidia_tool(ssh, SECOND, "--set-cc-mode=on", "--reset-after-cc-mode-switch")
    assert "was reset to apply the new CC mode" in said
    assert guest.cc_mode(ssh, SECOND) == "on"
    assert vm.emulator.control.state(FIRST)["mode"] == "off"


def test_module_and_nvidias_tool_agree(vm: Vm) -> None:
    control, ssh = vm.control, vm.machine.ssh
    before = {one["address"]: one["mode"] for one in control.module("cc_mode_info", admin_tools=TOOL)["devices"]}
    assert before == {FIRST: "off", SECOND: "on"}
    for mode in ("on", "off"):
        answer = control.module("cc_mode", mode=mode, admin_tools=TOOL)
        assert answer["changed"], answer
        assert [guest.cc_mode(ssh, device) for device in (FIRST, SECOND)] == [mode, mode]
    again = control.module("cc_mode", mode="off", admin_tools=TOOL)
    assert not again["changed"], again


def chart_capabilities(host_processes: bool) -> list[str]:
    """What the CC manager's chart asks for, with and without the right to look into other users' processes."""
    (one,) = container.charts(host_processes)["containers"]
    names: list[str] = one["securityContext"]["capabilities"]["add"]
    return names


def confined(vm: Vm, capabilities: list[str]) -> str:
    """Path of a Python in the guest that runs as root with these capabilities alone, as the CC manager's pod does."""
    path = "/root/python-" + ("-".join(capabilities) or "none")
    bounds = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    script = f'#!/bin/sh\nexec setpriv --no-new-privs --bounding-set={bounds} --inh-caps=-all {PYTHON} "$@"\n'
    vm.machine.ssh.run(f"cat > {path} && chmod +x {path}", stdin=script)
    return path


def test_module_needs_the_charts_capabilities_and_no_others(vm: Vm) -> None:
    least = chart_capabilities(host_processes=False)
    assert set(least) < set(chart_capabilities(host_processes=True))
    python = confined(vm, least)
    answer = vm.control.module("cc_mode", interpreter=python, mode="on", admin_tools=TOOL)
    assert answer["changed"], answer
    assert [guest.cc_mode(vm.machine.ssh, device) for device in (FIRST, SECOND)] == ["on", "on"]


def test_without_the_capability_nothing_is_touched(vm: Vm) -> None:
    vm.emulator.control.reset_counters()
    answer = vm.control.module("cc_mode", interpreter=confined(vm, []), mode="off", admin_tools=TOOL)
    problems = answer["error"]["seen"]["errors"]
    assert [one["kind"] for one in problems] == ["NotPermitted"] * 2, answer
    assert "SYS_ADMIN" in answer["error"]["remedy"]
    counters = [one["counters"] for one in vm.emulator.control.state().values()]
    assert [(one["knob_writes"], one["resets"]) for one in counters] == [(0, 0), (0, 0)]
    assert vm.control.module("cc_mode", mode="off", admin_tools=TOOL)["changed"]


def test_device_whose_resets_are_disabled_is_refused_and_not_touched(vm: Vm) -> None:
    device = f"/sys/bus/pci/devices/{FIRST}"
    vm.machine.ssh.run(f"echo > {device}/reset_method")
    vm.emulator.control.reset_counters()
    try:
        answer = vm.control.module("cc_mode", mode="on", admin_tools=TOOL)
    finally:
        vm.machine.ssh.run(f"echo default > {device}/reset_method")
    writes = vm.emulator.control.state(FIRST)["counters"]["knob_writes"]
    vm.emulator.control.set(mode="off")
    assert answer["error"]["kind"] == "ResetUnavailable", answer
    assert writes == 0


def test_info_without_iommu(vm: Vm) -> None:
    found = vm.control.module("cc_mode_info", admin_tools=TOOL)
    assert [(one["driver"], one["iommu_group"], one["holders"]) for one in found["devices"]] == [(None, None, [])] * 2
    assert found["host"]["iommu"]["value"] == "no"


def test_info_at_vfio(vm_with_iommu: Vm) -> None:
    ssh = vm_with_iommu.machine.ssh
    found = vm_with_iommu.control.module("cc_mode_info", admin_tools=TOOL)
    groups = [int(guest.link(ssh, f"/sys/bus/pci/devices/{one}/iommu_group")) for one in (FIRST, SECOND)]
    assert [(one["driver"], one["iommu_group"]) for one in found["devices"]] == [
        ("vfio-pci", group) for group in groups
    ]
    assert found["host"]["iommu"]["value"] == "yes"


def test_device_that_sleeps_at_vfio_is_woken_and_let_sleep(vm_with_iommu: Vm) -> None:
    ssh, device = vm_with_iommu.machine.ssh, f"/sys/bus/pci/devices/{FIRST}"
    asleep = f"for i in $(seq 50); do grep -q D3hot {device}/power_state && break; sleep 0.1; done; "
    look = f"{asleep} cat {device}/power/control {device}/power_state"
    assert ssh.run(look).split() == ["auto", "D3hot"]
    answer = vm_with_iommu.control.module("cc_mode", mode="on", admin_tools=TOOL)
    assert answer["changed"], answer
    assert ssh.run(look).split() == ["auto", "D3hot"]
    assert guest.cc_mode(ssh, FIRST) == "on"


def test_device_in_use_is_refused_and_not_touched(vm_with_iommu: Vm) -> None:
    ssh, control = vm_with_iommu.machine.ssh, vm_with_iommu.control
    group = guest.link(ssh, f"/sys/bus/pci/devices/{FIRST}/iommu_group")
    with guest.holding(ssh, "group", FIRST) as pid:
        vm_with_iommu.emulator.control.reset_counters()
        answer = control.module("cc_mode", mode="off", admin_tools=TOOL)
        assert answer["error"]["kind"] == "DeviceBusy", answer
        (seen,) = answer["error"]["seen"]["holders"]
        assert (seen["pid"], seen["file"]) == (pid, f"/dev/vfio/{group}")
        counters = vm_with_iommu.emulator.control.state(SECOND)["counters"]
        assert (counters["knob_writes"], counters["resets"]) == (0, 0)
        found = {one["address"]: one for one in control.module("cc_mode_info", admin_tools=TOOL)["devices"]}
        assert found[FIRST]["in_use"]
        assert found[SECOND]["mode"] == "on"
    assert control.module("cc_mode", mode="off", admin_tools=TOOL)["changed"]
