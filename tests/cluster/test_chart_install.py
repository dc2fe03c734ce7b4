# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Standing alone: the chart, its rights and its policy, and the role that installs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube import workloads
from tests.cluster.kube.api import ApiError, Object
from tests.cluster.kube.bed import BUS, FIGURES, JOURNAL, READY, REASON, STATE, Bed, annotations, is_running, is_settled
from tests.cluster.kube.cluster import NODE_PATH, Cluster
from tests.cluster.kube.programs import EVERY
from tests.cluster.kube.settings import NODE
from tests.cluster.kube.space import SpaceError
from tests.cluster.kube.workloads import NAMESPACE
from tests.vm.bench.cache import ROOT

RELEASE = "cc-manager"
CHART = ROOT / "container/chart"
SELECTOR = f"app.kubernetes.io/name={RELEASE}"
VALUES = {
    "settings": {"bus": BUS, "retryDelaySeconds": 1, "componentsNamespace": NAMESPACE},
    "resources": {"limits": {"memory": "200Mi"}},
}
PODS = f"/api/v1/namespaces/{RELEASE}/pods?labelSelector={SELECTOR.replace('=', '%3D')}"


@pytest.fixture
def installed(node: Bed, tmp_path: Path) -> Iterator[Bed]:
    """The chart beside the GPU Operator's components."""
    node.start_node()
    install(node.cluster, tmp_path, VALUES)
    yield node
    uninstall(node.cluster)


def install(cluster: Cluster, folder: Path, values: dict[str, Any]) -> None:
    """Install or upgrade, and wait until the pod is ready."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    cluster.helm(
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", RELEASE, "--create-namespace"),
        *("--values", str(file), "--wait", "--timeout", "60s"),
    )


def uninstall(cluster: Cluster) -> None:
    """Take the release away, pods and all."""
    cluster.helm("uninstall", RELEASE, "--namespace", RELEASE, "--wait", "--timeout", "60s", "--ignore-not-found")


def pod_of(cluster: Cluster) -> Object:
    """The manager's pod, running."""
    return cluster.api.until(PODS, is_running, 60)


def test_install_change_uninstall(installed: Bed) -> None:
    installed.wait_for_components()
    for mode in ("on", "ppcie", "off"):
        installed.change(mode)
        assert installed.modes() == {mode}
        installed.wait_for_components()
    pod = pod_of(installed.cluster)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    peak = installed.cluster.memory_peak_bytes(pod)
    FIGURES.append(f"memory peak of the chart's pod after 3 changes: {peak / 2**20:.0f} MiB")


def test_the_reason_is_told_everywhere(installed: Bed) -> None:
    installed.change("bogus", "failed")
    cluster = installed.cluster
    reason = annotations(cluster.node())[REASON]
    assert "bogus" in reason
    events = cluster.api.get("/api/v1/namespaces/default/events")["items"]
    assert any("bogus" in event["message"] and event["type"] == "Warning" for event in events)
    assert "bogus" in cluster.kubectl("describe", "node", NODE)
    name = pod_of(cluster)["metadata"]["name"]
    assert "bogus" in cluster.kubectl("logs", "-n", RELEASE, name)
    text = cluster.api.get(f"/api/v1/namespaces/{RELEASE}/pods/{name}:9403/proxy/metrics")
    assert 'cc_manager_state{state="failed"} 1.0' in text


def test_a_virtual_machine_keeps_its_gpu(installed: Bed) -> None:
    """Refused while a pod holds a GPU, done when it is gone; never a reset meanwhile."""
    installed.change("off")
    cluster = installed.cluster
    cluster.kubectl(
        "patch", "node", NODE, "--subresource=status", "-p", '{"status":{"capacity":{"nvidia.com/pgpu":"8"}}}'
    )
    cluster.apply(workloads.virtual_machine("vm"))
    cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dvm", is_running, 60)
    try:
        resets = installed.resets()
        installed.change("on", "failed")
        assert "default/vm" in annotations(cluster.node())[REASON]
        assert installed.resets() == resets
        assert installed.modes() == {"off"}
    finally:
        cluster.kubectl("delete", "pod", "vm", "--now")
    installed.until(lambda found: is_settled(found, "on"))
    assert installed.modes() == {"on"}


def test_draining(installed: Bed, tmp_path: Path) -> None:
    install(installed.cluster, tmp_path, {**VALUES, "settings": {**VALUES["settings"], "busy": "drain"}})
    cluster = installed.cluster
    cluster.kubectl(
        "patch", "node", NODE, "--subresource=status", "-p", '{"status":{"capacity":{"nvidia.com/pgpu":"8"}}}'
    )
    cluster.apply(workloads.virtual_machine("vm"))
    cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dvm", is_running, 60)
    installed.change("on")
    assert cluster.kubectl("get", "pod", "vm", "--ignore-not-found") == ""


def test_a_pods_token_is_good_for_its_own_node_only(installed: Bed) -> None:
    cluster = installed.cluster
    installed.until(lambda found: STATE in found["metadata"]["labels"])
    token = token_of(cluster)
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
    values = {"nodeSelector": {"example.org/no": "node"}}
    install(cluster, tmp_path_factory.mktemp("values"), values)
    cluster.set_labels({"nvidia.com/cc.capable": "true", "nvidia.com/gpu.deploy.vfio-manager": "true"})
    pod = workloads.virtual_machine("stand-in")
    del pod["spec"]["containers"][0]["resources"]
    pod["metadata"]["namespace"] = RELEASE
    pod["spec"].update(serviceAccountName=RELEASE, nodeName=NODE)
    cluster.apply(pod)
    found = cluster.api.until(
        f"/api/v1/namespaces/{RELEASE}/pods?fieldSelector=metadata.name%3Dstand-in", is_running, 60
    )
    yield cluster, token_of(cluster, found)
    cluster.kubectl("delete", "pod", "-n", RELEASE, "stand-in", "--now")
    uninstall(cluster)
    cluster.set_labels({"nvidia.com/cc.capable": None, "nvidia.com/gpu.deploy.vfio-manager": None})


def token_of(cluster: Cluster, pod: Object | None = None) -> str:
    """A token as the kubelet gives it to the pod."""
    metadata = (pod or pod_of(cluster))["metadata"]
    bound = (
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        metadata["name"],
        "--bound-object-uid",
        metadata["uid"],
    )
    return cluster.kubectl("create", "token", RELEASE, "-n", RELEASE, *bound).strip()


def with_token(cluster: Cluster, token: str, node: str, change: Object) -> None:
    """Patch a node as the owner of the token."""
    config = cluster.settings.write_kubeconfig("pod", token)
    cluster.kubectl("patch", "node", node, "--type=merge", "-p", json.dumps(change), kubeconfig=config)


def refusal(cluster: Cluster, token: str, node: str, change: Object) -> str:
    """What the API server says to that; fails when it does it."""
    with pytest.raises(SpaceError) as refused:
        with_token(cluster, token, node, change)
    return str(refused.value)


def test_the_policy_is_what_refuses(cluster: Cluster, tmp_path: Path) -> None:
    """Without it the same patch passes: the tests above could fail."""
    install(cluster, tmp_path, {"nodeSelector": {"example.org/no": "node"}, "admissionPolicy": {"enabled": False}})
    try:
        token = cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip()
        with_token(cluster, token, NODE, {"metadata": {"labels": {"example.org/any": "x"}}})
        cluster.api.patch(NODE_PATH, {"metadata": {"labels": {"example.org/any": None}}})
    finally:
        uninstall(cluster)


def test_the_role_installs_it(small: Bed, tmp_path: Path) -> None:
    """Twice: the second run changes nothing. Check mode installs nothing."""
    small.start_node()
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "roles": [{"role": "confidential.gpu.operand"}],
            "vars": {
                "operand_helm": str(EVERY["helm"].path()),
                "operand_kubeconfig": small.cluster.settings.path("admin.kubeconfig"),
                "operand_values": VALUES,
            },
        }
    ]
    file = tmp_path / "play.yml"
    file.write_text(yaml.safe_dump(play))

    def run(*options: str) -> str:
        variables = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_HOME": str(tmp_path)}
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = [f"{key}={value}" for key, value in variables.items()]
        command = [
            "env",
            f"PATH={os.environ['PATH']}",
            *settings,
            program,
            "-i",
            "localhost,",
            "-c",
            "local",
            *options,
            str(file),
        ]
        return small.cluster.space.run(*command, timeout_s=180)

    try:
        assert "changed=1" in run("--check")
        with pytest.raises(ApiError):
            small.cluster.api.get(f"/apis/apps/v1/namespaces/{RELEASE}/daemonsets/{RELEASE}")
        assert "changed=1" in run()
        small.until(lambda found: found["metadata"]["labels"].get(STATE) == "off")
        assert "changed=0" in run()
    finally:
        uninstall(small.cluster)
