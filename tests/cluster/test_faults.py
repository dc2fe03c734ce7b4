# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What breaks during a change: the API server, etcd, the manager, the node, the rights."""

from __future__ import annotations

import signal

import pytest

from tests.cluster.kube import workloads
from tests.cluster.kube.api import Object
from tests.cluster.kube.bed import JOURNAL, PAUSED, REASON, Bed, annotations_of, is_settled
from tests.cluster.kube.workloads import MANAGER, NAMESPACE

ROLES = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/{MANAGER}"


def begin(node: Bed) -> None:
    """A node in the mode off, its components running; a manager that is quick to give up and to try again."""
    node.start(CC_MANAGER_RETRY_DELAY="1", CC_MANAGER_BOOT_TIMEOUT="3")
    node.until(lambda found: is_settled(found, "off"))
    node.wait_for_components()


def check(node: Bed, mode: str) -> None:
    """The node is in the mode, and its components are back."""
    node.until(lambda found: is_settled(found, mode), 120)
    assert node.modes() == {mode}
    labels = node.labels()
    assert {labels[workloads.deploy_label(one)] for one in workloads.KATA} == {"true"}
    assert JOURNAL not in annotations_of(node.cluster.node())
    node.wait_for_components()


def is_journalled(found: Object) -> bool:
    return JOURNAL in annotations_of(found)


def is_paused(found: Object) -> bool:
    return PAUSED in found["metadata"]["labels"].values()


def stage(node: Bed, name: str) -> None:
    """Wait until a change has come so far."""
    if name == "journalled":
        node.until(is_journalled)
    elif name == "paused":
        node.until(is_paused)
    elif name == "pods gone":
        node.wait_until(lambda: not node.component_pods())
    elif name == "staged":
        node.wait_until(lambda: any(one["counters"]["knob_writes"] for one in node.emulator.control.state().values()))
    elif name == "reset":
        node.wait_until(lambda: node.resets() > 0)
    elif name == "verified":
        node.wait_until(lambda: node.modes() == {"on"})


STAGES = ("desired", "journalled", "paused", "pods gone", "staged", "reset", "verified")


@pytest.mark.parametrize("name", STAGES)
def test_killed(node: Bed, name: str) -> None:
    begin(node)
    pid = node.cluster.container_pid(node.manager())
    node.want("on")
    stage(node, name)
    node.kill(pid)
    check(node, "on")


def test_api_server_away_during_a_change(node: Bed) -> None:
    begin(node)
    node.want("on")
    stage(node, "paused")
    node.cluster.processes["kube-apiserver"].stop(signal.SIGKILL)
    node.wait_until(lambda: node.modes() == {"on"} or node.seconds_since_request() > 8)
    node.cluster.start_server()
    check(node, "on")


def test_etcd_restarted_during_a_change(node: Bed) -> None:
    begin(node)
    node.want("on")
    stage(node, "paused")
    node.cluster.processes["etcd"].stop(signal.SIGKILL)
    node.cluster.start_etcd()
    check(node, "on")


def test_node_rebooted_during_a_change(node: Bed) -> None:
    """Devices lose their power, /run is empty, the pod begins again."""
    begin(node)
    pid = node.cluster.container_pid(node.manager())
    node.want("on")
    stage(node, "reset")
    node.kill(pid)
    node.power_off()
    node.power_on()
    check(node, "on")


def test_without_the_right_to_see_pods(node: Bed) -> None:
    """Fail closed: nothing is reset when it cannot be seen whether components run."""
    begin(node)
    node.cluster.api.delete(ROLES)
    node.cluster.api.delete(ROLES.replace("/roles/", "/rolebindings/"))
    pod = node.manager()["metadata"]["name"]
    node.cluster.kubectl("delete", "pod", "-n", NAMESPACE, pod)
    node.wait_for_manager()
    resets = node.resets()
    node.change("on", "failed")
    assert "pods" in annotations_of(node.cluster.node())[REASON]
    assert node.resets() == resets
    assert PAUSED not in node.labels().values()
    node.cluster.apply(*workloads.manager({})[:-1])
    check(node, "on")


def test_a_gpu_that_does_not_boot(node: Bed) -> None:
    begin(node)
    node.emulator.control.fault(device="0000:17:00.0", event="boot", action="no_boot", times="forever")
    node.change("on", "failed", timeout_s=120)
    assert "0000:17:00.0" in annotations_of(node.cluster.node())[REASON]
    assert PAUSED not in node.labels().values()
    assert not (node.run_nvidia / "validations/.cc-manager-ctr-ready").exists()


def test_a_stop_during_a_change_is_clean(node: Bed) -> None:
    """The pod is deleted; within its grace period the components are back, or the next pod goes on."""
    begin(node)
    pod = node.manager()
    node.want("on")
    stage(node, "staged")
    node.cluster.kubectl("delete", "pod", "-n", NAMESPACE, pod["metadata"]["name"], "--wait=true")
    check(node, "on")
