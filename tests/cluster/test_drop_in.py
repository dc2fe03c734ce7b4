# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""In place of NVIDIA's k8s-cc-manager: the GPU Operator's DaemonSet, rights, mounts and limits, and nothing else."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.cluster.kube import workloads
from tests.cluster.kube.bed import FIGURES, PAUSED, PODS, READY, REASON, STATE, Bed, annotations_of, is_settled, owner

READY_VALUES = {"on": "true", "ppcie": "true", "off": "false", "devtools": ""}
# Each mode from each other one, once.
TOUR = ("on", "off", "devtools", "on", "devtools", "ppcie", "on", "ppcie", "devtools", "off", "ppcie", "off")


def test_every_change(node: Bed) -> None:
    node.start()
    node.until(lambda found: is_settled(found, "off"))
    node.wait_for_components()
    for before, mode in itertools.pairwise(("off", *TOUR)):
        seconds = node.change(mode)
        labels = node.labels()
        assert labels[READY] == READY_VALUES[mode], mode
        assert node.modes() == {mode}
        assert {labels[workloads.deploy_label(one)] for one in workloads.KATA} == {"true"}
        node.wait_until((node.run_nvidia / "validations/.cc-manager-ctr-ready").exists)
        node.wait_for_components()
        FIGURES.append(f"{before} -> {mode}: {seconds:.2f} s, 8 H100 and 4 NVSwitches, boot 0.3 s")
    pod = node.manager()
    peak = node.cluster.memory_peak_bytes(pod)
    FIGURES.append(f"memory peak of the manager's cgroup after {len(TOUR)} changes: {peak / 2**20:.0f} MiB of 200")
    assert not pod["status"]["containerStatuses"][0]["restartCount"]


def test_no_reset_while_a_component_runs(node: Bed) -> None:
    node.start(workloads.EVERY)
    node.until(lambda found: is_settled(found, "off"))
    uids = set(node.wait_for_components().values())
    node.want("on")
    gone = []
    for pod in node.cluster.api.watch(PODS, 60):
        if pod["metadata"]["uid"] in uids and pod["deleted"]:
            uids.remove(pod["metadata"]["uid"])
            gone.append((owner(pod), time.monotonic()))
        if not uids:
            break
    node.until(lambda found: is_settled(found, "on"))
    first_reset = min(event["t"] for event in node.device_events("reset"))
    assert len(gone) == len(workloads.EVERY)
    assert max(moment for _name, moment in gone) < first_reset


def test_a_bogus_mode_touches_nothing(node: Bed) -> None:
    node.start()
    node.until(lambda found: is_settled(found, "off"))
    before, resets = node.wait_for_components(), node.resets()
    node.change("bogus", "failed")
    found = node.cluster.node()
    assert "'bogus'" in annotations_of(found)[REASON]
    assert found["metadata"]["labels"][READY] == ""
    assert (node.wait_for_components(), node.resets()) == (before, resets)
    assert node.modes() == {"off"}


def test_the_newest_request_wins(node: Bed) -> None:
    node.start()
    node.until(lambda found: is_settled(found, "off"))
    for mode in ("on", "devtools", "ppcie", "off", "on"):
        node.want(mode)
    node.until(lambda found: is_settled(found, "on"))
    assert node.modes() == {"on"}
    # Fewer resets than requests: what is no longer wanted is not carried out.
    assert node.resets() <= 2 * 12


def test_components_that_are_off_stay_off(node: Bed) -> None:
    node.start(workloads.EVERY)
    node.until(lambda found: is_settled(found, "off"))
    node.wait_for_components()
    vgpu, plugin = (workloads.deploy_label(one) for one in (workloads.VGPU_MANAGER, workloads.SANDBOX_PLUGIN))
    node.cluster.set_labels({vgpu: "false", plugin: None})
    node.change("on")
    labels = node.labels()
    assert labels[vgpu] == "false"
    assert plugin not in labels
    assert PAUSED not in labels.values()


@pytest.mark.parametrize("arguments", [(), ("--node-name", "node0", "--default-cc-mode", "off", "--debug")])
def test_arguments(small: Bed, arguments: tuple[str, ...]) -> None:
    """ccManager.args, and the executable's name that old operators call."""
    small.start_node()
    *rights, daemonset = workloads.manager({"CC_MANAGER_BUS": "vfio-user:/run/nvidia/gpus"})
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    if arguments:
        container.update(command=["/bin/sh", "-c", 'exec k8s-cc-manager "$@"', "sh"], args=list(arguments))
    small.cluster.apply(*rights, daemonset)
    small.wait_for_manager()
    small.until(lambda found: found["metadata"]["labels"].get(STATE) == "off")
