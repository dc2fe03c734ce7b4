# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The CC manager's image, run by runc as the GPU Operator and the chart run it: what it sees of holders outside.

A container's /dev has the vfio groups that were there at its start. One GPU is bound to vfio-pci before the containers
start, the other after. In all of it the modules and the playbook are those in the image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.vm.bench import container, guest
from tests.vm.bench.container import Container
from tests.vm.bench.image import Image
from tests.vm.bench.machine import address
from tests.vm.bench.ssh import Ssh
from tests.vm.conftest import Vm, running

BEFORE, AFTER = address(0), address(1)
GPU_OPERATOR, CHART, CHART_ALONE = "gpu-operator", "chart", "chart-without-host-processes"
PODS = {
    GPU_OPERATOR: container.gpu_operators(),
    CHART: container.charts(host_processes=True),
    CHART_ALONE: container.charts(host_processes=False),
}
STATE_FOLDER = "/run/nvidia/cc-manager"
COLLECTIONS = "/usr/share/ansible/collections"
PLAYBOOK_VARIABLES = {
    "ansible_python_interpreter": "/usr/bin/python3",
    "cc_mode_become": False,
    "cc_mode_install_tool": False,
    "cc_mode_state_folder": STATE_FOLDER,
    "cc_mode_fact_file": f"{STATE_FOLDER}/fact",
}


@dataclass(frozen=True)
class Bed:
    """A machine with two GPUs at vfio-pci, and a container of each kind."""

    vm: Vm
    ssh: Ssh
    containers: dict[str, Container]

    def module(self, where: str, name: str, **arguments: object) -> dict[str, Any]:
        """The answer of a module of the image."""
        program = f"ansible_collections.confidential.gpu.plugins.modules.{name}"
        given = {"ANSIBLE_MODULE_ARGS": {"state_folder": STATE_FOLDER, **arguments}}
        command = ["/usr/bin/env", f"PYTHONPATH={COLLECTIONS}", "/usr/bin/python3", "-m", program]
        answer: dict[str, Any] = json.loads(self.containers[where].run(*command, stdin=json.dumps(given), check=False))
        return answer

    def modes(self) -> list[str]:
        """Of both devices, behind everybody's back."""
        state = self.vm.emulator.control.state()
        return [state[one]["mode"] for one in (BEFORE, AFTER)]

    @contextmanager
    def untouched(self, *addresses: str) -> Iterator[None]:
        """Nothing is written to these devices meanwhile, and their config space stays what it is, byte by byte."""
        control = self.vm.emulator.control
        before = self._look(addresses)
        control.reset_counters()
        yield
        counters = [control.state(one)["counters"] for one in addresses]
        done = [{name: one[name] for name in ("writes", "rpcs", "knob_writes", "resets")} for one in counters]
        assert done == [{"writes": 0, "rpcs": 0, "knob_writes": 0, "resets": 0}] * len(addresses)
        assert self._look(addresses) == before

    def _look(self, addresses: Sequence[str]) -> str:
        look = "cat $one/enable $one/power_state $one/power/control && od -A x -t x1 -v $one/config || exit"
        folders = " ".join(f"/sys/bus/pci/devices/{one}" for one in addresses)
        return self.ssh.run(f"for one in {folders}; do {look}; done")


@pytest.fixture(scope="module")
def bed(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """Both devices are off, asleep and free."""
    folder = tmp_path_factory.mktemp("container")
    disks = [container.disk()]
    with (
        running(image, folder, ["h100-pcie", "h100-pcie"], disks, with_iommu=True) as vm,
        vm.machine.ssh.connected(folder) as ssh,
    ):
        guest.bind_to_vfio(ssh, BEFORE)
        containers = {name: container.start(ssh, name, pod) for name, pod in PODS.items()}
        guest.bind_to_vfio(ssh, AFTER)
        for device in (BEFORE, AFTER):
            guest.wait_asleep(ssh, device)
        yield Bed(vm, ssh, containers)


def group_of(bed: Bed, device: str) -> str:
    """The file of a device's vfio group, on the host."""
    return "/dev/vfio/" + guest.link(bed.ssh, f"/sys/bus/pci/devices/{device}/iommu_group")


def test_containers_have_the_groups_that_were_there_at_their_start(bed: Bed) -> None:
    before, after = group_of(bed, BEFORE), group_of(bed, AFTER)
    nodes = {one.name: one.run("/bin/sh", "-c", "echo /dev/vfio/*").split() for one in bed.containers.values()}
    assert before in nodes[GPU_OPERATOR]
    assert after not in nodes[GPU_OPERATOR]
    assert nodes[CHART] == nodes[CHART_ALONE] == ["/dev/vfio/*"]
    look = "import os; print(os.getpid(), *sorted(os.listdir('/sys/class/vfio')))"
    seen = {one.name: one.run("/usr/bin/python3", "-c", look).split() for one in bed.containers.values()}
    groups = sorted(Path(one).name for one in (before, after))
    assert [words[1:] for words in seen.values()] == [groups] * 3
    # The host's processes have hundreds of numbers before a program in a container of the chart gets one.
    assert {name: int(words[0]) < 100 for name, words in seen.items()} == {
        GPU_OPERATOR: True,
        CHART: False,
        CHART_ALONE: True,
    }


@pytest.mark.parametrize("where", [GPU_OPERATOR, CHART])
@pytest.mark.parametrize(("device", "other"), [(BEFORE, AFTER), (AFTER, BEFORE)], ids=["before", "after"])
def test_group_that_is_open_outside_is_seen_and_refused(bed: Bed, device: str, other: str, where: str) -> None:
    with guest.holding(bed.ssh, "group", device) as pid:
        with bed.untouched(device, other):
            answer = bed.module(where, "cc_mode", mode="on")
        assert answer["error"]["kind"] == "DeviceBusy", answer
        assert not answer["changed"]
        (holder,) = answer["error"]["seen"]["holders"]
        # Only the chart shows the host's processes.
        assert (holder["address"], holder["pid"]) == (device, pid if where == CHART else 0)
        with bed.untouched(device):
            found = {one["address"]: one for one in bed.module(where, "cc_mode_info")["devices"]}
        assert (found[device]["in_use"], found[device]["mode"]) == (True, None), found[device]
        assert (found[other]["in_use"], found[other]["mode"]) == (False, "off"), found[other]


@pytest.mark.parametrize("where", PODS)
def test_device_whose_group_was_closed_again_is_seen_and_refused(bed: Bed, where: str) -> None:
    """No process has the group's file open then; the kernel counts the device as enabled."""
    with guest.holding(bed.ssh, "device", AFTER), bed.untouched(BEFORE, AFTER):
        answer = bed.module(where, "cc_mode", mode="on", devices=[AFTER])
    assert answer["error"]["kind"] == "DeviceBusy", answer
    assert [one["address"] for one in answer["error"]["seen"]["holders"]] == [AFTER]


def test_pod_that_can_ask_nobody_refuses(bed: Bed) -> None:
    """It may make no device file and sees no process of the host. The devices are free, which it cannot know."""
    with bed.untouched(BEFORE, AFTER):
        answer = bed.module(CHART_ALONE, "cc_mode", mode="on")
        found = bed.module(CHART_ALONE, "cc_mode_info")["devices"]
    assert answer["error"]["kind"] == "NotPermitted", answer
    assert "hostPID" in answer["error"]["remedy"]
    assert not answer["changed"]
    assert [(one["mode"], one["problem"]["kind"]) for one in found] == [(None, "NotPermitted")] * 2


def test_playbook_refuses_while_a_virtual_machine_has_a_gpu(bed: Bed) -> None:
    with guest.holding(bed.ssh, "machine", AFTER), bed.untouched(BEFORE, AFTER):
        said = run_playbook(bed, "on", check=False)
    assert "failed=1" in said, said
    assert f"In use: {AFTER}" in said.replace("\n", " "), said


def test_playbook_sets_the_mode_when_the_holder_is_gone(bed: Bed) -> None:
    said = run_playbook(bed, "on", check=True)
    assert "changed=1" in said, said
    assert bed.modes() == ["on", "on"]
    fact = json.loads(bed.containers[GPU_OPERATOR].run("/bin/cat", str(PLAYBOOK_VARIABLES["cc_mode_fact_file"])))
    assert fact["gpus"] == {BEFORE: "on", AFTER: "on"}


def test_pod_with_the_hosts_processes_sets_the_mode(bed: Bed) -> None:
    answer = bed.module(CHART, "cc_mode", mode="off")
    assert answer["changed"], answer
    assert {one["address"]: one["mode_after"] for one in answer["devices"]} == {BEFORE: "off", AFTER: "off"}
    assert bed.modes() == ["off", "off"]


def run_playbook(bed: Bed, mode: str, check: bool) -> str:
    """What the playbook cc_mode says, as the CC manager runs it in the GPU Operator's pod."""
    variables = json.dumps({**PLAYBOOK_VARIABLES, "cc_mode_mode": mode})
    return bed.containers[GPU_OPERATOR].run(
        *("ansible-playbook", "--inventory", "localhost,", "--connection", "local"),
        *("--extra-vars", variables, "confidential.gpu.cc_mode"),
        check=check,
    )
