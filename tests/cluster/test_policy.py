# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the token of a manager's pod is good for: its own node, and there its own keys."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import workloads
from tests.cluster.kube.api import Object
from tests.cluster.kube.bed import JOURNAL, READY, REASON, STATE, is_running
from tests.cluster.kube.cluster import Cluster
from tests.cluster.kube.release import NOWHERE, RELEASE, install, token_of, uninstall
from tests.cluster.kube.settings import NODE
from tests.cluster.kube.space import SpaceError


def test_another_node(policed: tuple[Cluster, str]) -> None:
    cluster, token = policed
    cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other", "labels": {STATE: "off"}}})
    try:
        for change in ({"labels": {STATE: "on"}}, {"labels": {READY: "true"}}, {"annotations": {REASON: "x"}}):
            assert "may change no other" in refusal(cluster, token, "other", {"metadata": change})
        assert cluster.api.get("/api/v1/nodes/other")["metadata"]["labels"] == {STATE: "off"}
    finally:
        cluster.api.delete("/api/v1/nodes/other")


@pytest.mark.parametrize(
    "change",
    [
        {"metadata": {"labels": {"kubernetes.io/hostname": "mine"}}},
        {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}},
        {"metadata": {"labels": {"nvidia.com/cc.mode": "off"}}},
        {"metadata": {"labels": {"nvidia.com/cc.capable": None}}},
        {"metadata": {"labels": {"nvidia.com/gpu.deploy.vgpu-manager": "true"}}},
        {"metadata": {"labels": {"nvidia.com/gpu.deploy.vfio-manager": None}}},
        {"metadata": {"annotations": {"example.org/any": "x"}}},
        {"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": None}}},
        {"metadata": {"finalizers": ["example.org/mine"]}},
        {"spec": {"unschedulable": True}},
    ],
    ids=json.dumps,
)
def test_on_its_own_node_a_pod_changes_its_own_keys_only(policed: tuple[Cluster, str], change: Object) -> None:
    assert "ValidatingAdmissionPolicy" in refusal(*policed, NODE, change)


def test_its_own_keys_it_may_change(policed: tuple[Cluster, str]) -> None:
    cluster, token = policed
    labels = {STATE: "on", "nvidia.com/gpu.deploy.vfio-manager": "paused-for-cc-mode-change"}
    with_token(cluster, token, NODE, {"metadata": {"labels": labels, "annotations": {JOURNAL: "{}"}}})
    labels = {STATE: None, "nvidia.com/gpu.deploy.vfio-manager": "true"}
    with_token(cluster, token, NODE, {"metadata": {"labels": labels, "annotations": {JOURNAL: None}}})


def test_a_token_of_no_pod_changes_nothing(policed: tuple[Cluster, str]) -> None:
    cluster, _token = policed
    token = cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip()
    assert "ValidatingAdmissionPolicy" in refusal(cluster, token, NODE, {"metadata": {"labels": {STATE: "on"}}})


@pytest.fixture(scope="module")
def policed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, str]]:
    """The chart's rights and policy, and the token of a pod that only waits: the manager would interfere."""
    install(cluster, tmp_path_factory.mktemp("values"), NOWHERE)
    cluster.set_labels({"nvidia.com/cc.capable": "true", "nvidia.com/gpu.deploy.vfio-manager": "true"})
    pod = workloads.virtual_machine("stand-in")
    del pod["spec"]["containers"][0]["resources"]
    pod["metadata"]["namespace"] = RELEASE
    pod["spec"].update(serviceAccountName=RELEASE, nodeName=NODE)
    cluster.apply(pod)
    found = cluster.api.until(
        f"/api/v1/namespaces/{RELEASE}/pods?fieldSelector=metadata.name%3Dstand-in", is_running, 60
    )
    token = token_of(cluster, found)
    wait_until_the_policy(cluster, token, refuses=True)
    yield cluster, token
    cluster.kubectl("delete", "pod", "-n", RELEASE, "stand-in", "--now")
    uninstall(cluster)
    cluster.set_labels({"nvidia.com/cc.capable": None, "nvidia.com/gpu.deploy.vfio-manager": None})


def with_token(cluster: Cluster, token: str, node: str, change: Object) -> None:
    """Patch a node as the owner of the token."""
    config = cluster.settings.write_kubeconfig("pod", token)
    cluster.kubectl("patch", "node", node, "--type=merge", "-p", json.dumps(change), kubeconfig=config)


def wait_until_the_policy(cluster: Cluster, token: str, refuses: bool) -> None:
    """The API server compiles a new policy, and forgets an old one, within seconds of being told."""
    deadline = time.monotonic() + 20
    while may_label(cluster, token) == refuses:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def may_label(cluster: Cluster, token: str) -> bool:
    """Whether a foreign label of the node may be set; it is not."""
    config = cluster.settings.write_kubeconfig("pod", token)
    change = json.dumps({"metadata": {"labels": {"example.org/any": "x"}}})
    patch = ("patch", "node", NODE, "--type=merge", "--dry-run=server", "-p", change)
    try:
        cluster.kubectl(*patch, kubeconfig=config)
    except SpaceError as refused:
        if "ValidatingAdmissionPolicy" not in str(refused):
            raise
        return False
    return True


def refusal(cluster: Cluster, token: str, node: str, change: Object) -> str:
    """What the API server says to that; fails when it does it."""
    with pytest.raises(SpaceError) as refused:
        with_token(cluster, token, node, change)
    return str(refused.value)


def test_the_policy_is_what_refuses(cluster: Cluster, tmp_path: Path) -> None:
    """Without it the same patch passes: the tests above could fail."""
    install(cluster, tmp_path, {**NOWHERE, "admissionPolicy": {"enabled": False}})
    try:
        token = cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip()
        wait_until_the_policy(cluster, token, refuses=False)
    finally:
        uninstall(cluster)
