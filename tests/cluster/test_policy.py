# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the token of a manager's pod is good for: its own node, there its own keys, and of these what it writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.kube import workloads
from tests.cluster.kube.account import Account, evict, refused
from tests.cluster.kube.api import ApiError, Object
from tests.cluster.kube.bed import CHANGING, DEVICES, JOURNAL, PAUSED, PREFIX, READY, REASON, STATE, is_running
from tests.cluster.kube.cluster import NODE_PATH, Cluster
from tests.cluster.kube.release import NOWHERE, RELEASE, install, token_of, uninstall
from tests.cluster.kube.settings import NODE
from tools.cache import ROOT

VFIO = "nvidia.com/gpu.deploy.vfio-manager"
PLUGIN = "nvidia.com/gpu.deploy.sandbox-device-plugin"
CORDONED = "nvidia.com/cc.mode.cordoned"
FOREIGN = {"metadata": {"labels": {"example.org/any": "x"}}}


def labels(found: dict[str, str | None], **annotations: str | None) -> Object:
    """A change of labels, and of the journal."""
    change: Object = {"metadata": {"labels": found}}
    if annotations:
        change["metadata"]["annotations"] = {JOURNAL: annotations["journal"]}
    return change


def cordon(value: bool | None, **annotations: str | None) -> Object:
    """A change of whether pods are scheduled to the node, and of the note that it is the manager's doing."""
    note = {"metadata": {"annotations": {CORDONED: annotations["note"]}}} if annotations else {}
    return {**note, "spec": {"unschedulable": value}}


def test_another_node(policed: Account) -> None:
    policed.cluster.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other", "labels": {STATE: "off"}}})
    try:
        for change in (labels({STATE: "on"}), labels({READY: "true"}), {"metadata": {"annotations": {REASON: "x"}}}):
            with refused("may change no other"):
                policed.patch(change, "/api/v1/nodes/other")
        assert policed.cluster.api.get("/api/v1/nodes/other")["metadata"]["labels"] == {STATE: "off"}
    finally:
        policed.cluster.api.delete("/api/v1/nodes/other")


@pytest.mark.parametrize(
    "change",
    [
        labels({"kubernetes.io/hostname": "mine"}),
        labels({"node-role.kubernetes.io/control-plane": ""}),
        labels({"nvidia.com/cc.mode": "off"}),
        labels({"nvidia.com/cc.capable": None}),
        labels({"nvidia.com/gpu.deploy.vgpu-manager": "true"}),
        {"metadata": {"annotations": {"example.org/any": "x"}}},
        {"metadata": {"annotations": {"nvidia.com/cc.mode.retry": "1"}}},
        {"metadata": {"annotations": {"nvidia.com/cc.mode.devices-wanted": "{}"}}},
        {"metadata": {"annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": None}}},
        {"metadata": {"finalizers": ["example.org/mine"]}},
        {"spec": {"taints": [{"key": "example.org/any", "effect": "NoSchedule"}]}},
        cordon(True, note="true"),
    ],
    ids=json.dumps,
)
def test_keys_that_are_not_the_managers(policed: Account, change: Object) -> None:
    with refused():
        policed.patch(change)


@pytest.mark.parametrize(
    "change",
    [
        labels({STATE: "success"}),
        labels({STATE: "ON"}),
        labels({READY: "yes"}),
        # A node is ready for what was read back, and for nothing else.
        labels({READY: "true"}),
        labels({STATE: "off", READY: "true"}),
        labels({STATE: "failed", READY: "true"}),
        labels({STATE: "on", READY: "false"}),
        labels({STATE: "devtools", READY: "false"}),
        # A component that runs can be paused; one that is off is the user's.
        labels({VFIO: "false"}),
        labels({VFIO: ""}),
        labels({VFIO: None}),
        labels({VFIO: f"true_{PAUSED}"}),
        labels({PLUGIN: "true"}),
        labels({PLUGIN: PAUSED}),
    ],
    ids=json.dumps,
)
def test_values_that_the_manager_does_not_write(policed: Account, change: Object) -> None:
    with refused():
        policed.patch(change)


@pytest.mark.parametrize("key", [REASON, DEVICES, JOURNAL, CHANGING])
def test_an_annotation_has_an_end(policed: Account, key: str) -> None:
    length = 65536 if key == DEVICES else 8192
    policed.patch({"metadata": {"annotations": {key: "x" * length}}})
    with refused("longer"):
        policed.patch({"metadata": {"annotations": {key: "x" * (length + 1)}}})
    policed.patch({"metadata": {"annotations": {key: None}}})


@pytest.mark.parametrize(
    ("state", "ready"),
    [("off", "false"), ("on", "true"), ("ppcie", "true"), ("devtools", ""), ("mixed", ""), ("failed", ""), ("", "")],
)
def test_every_state_may_be_told(policed: Account, state: str, ready: str) -> None:
    policed.patch(labels({STATE: state, READY: ready}))


def test_a_component_is_paused_and_put_back(policed: Account) -> None:
    policed.patch(labels({VFIO: PAUSED}, journal="{}"))
    for value in ("false", None):
        with refused("components"):
            policed.patch(labels({VFIO: value}))
    policed.patch(labels({VFIO: "true"}, journal=None))


def test_a_component_gets_back_what_the_journal_says(policed: Account) -> None:
    """Also a value that this release does not pause."""
    policed.cluster.api.patch(NODE_PATH, labels({VFIO: PAUSED}, journal=json.dumps({VFIO: "some"})))
    with refused("components"):
        policed.patch(labels({VFIO: "other"}))
    policed.patch(labels({VFIO: "some"}))
    policed.cluster.api.patch(NODE_PATH, labels({VFIO: "true"}, journal=None))


def test_what_another_manager_left_paused_is_put_back(policed: Account) -> None:
    """NVIDIA's appends the pause to a value that is neither true nor false."""
    for value, end in (("some", ""), ("some", "-again"), ("true", ""), (PAUSED, "")):
        policed.cluster.set_labels({VFIO: f"some_{PAUSED}{end}"})
        with refused("components"):
            policed.patch(labels({VFIO: "other"}))
        policed.patch(labels({VFIO: value}))
    policed.cluster.set_labels({VFIO: "true"})


def test_what_is_wrong_already_keeps_nothing_from_being_put_back(policed: Account) -> None:
    """Only what a request changes is looked at: somebody else's nonsense beside it is no reason to refuse it."""
    policed.cluster.set_labels({VFIO: PAUSED, STATE: "nonsense", READY: "true"})
    policed.patch(labels({VFIO: "true"}))
    with refused("nothing that the manager says"):
        policed.patch(labels({STATE: "failed"}))
    policed.patch(labels({STATE: "failed", READY: ""}))


def test_events_are_of_its_own_node(policed: Account) -> None:
    """The right to write them is one for the whole namespace."""
    path = "/api/v1/namespaces/default/events"
    policed.api.request("POST", path, event("mine", "Node", NODE))
    policed.patch({"count": 2}, f"{path}/mine")
    for name, kind, about in (("foreign", "Node", "other"), ("pod", "Pod", NODE)):
        with refused("about nothing else"):
            policed.api.request("POST", path, event(name, kind, about))
        policed.cluster.apply(event(name, kind, about))
        with refused("about nothing else"):
            policed.patch({"count": 2}, f"{path}/{name}")
    policed.cluster.kubectl("delete", "event", "mine", "foreign", "pod", "-n", "default")


def test_a_token_of_no_pod_changes_nothing(policed: Account) -> None:
    unbound = Account(policed.cluster, policed.cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip())
    with refused():
        unbound.patch(labels({STATE: "on", READY: "true"}))


def test_nothing_is_evicted_unless_draining(policed: Account) -> None:
    with pytest.raises(ApiError, match="cannot create resource"):
        policed.evict("any")


def test_the_gpu_operators_manager(cluster: Cluster) -> None:
    """The policy that is applied alone, beside the rights that the GPU Operator gives."""
    policy = str(ROOT / "container/gpu-operator/policy.yaml")
    cluster.apply(*workloads.manager({})[:-1])
    account = account_of(cluster, workloads.NAMESPACE, workloads.MANAGER)
    cluster.kubectl("apply", "-f", policy)
    try:
        account.wait_until(FOREIGN, allowed=False)
        account.patch(labels({STATE: "on", READY: "true"}))
        with refused():
            account.patch(labels({STATE: "off", READY: "true"}))
        account.patch(labels({STATE: None, READY: None}))
    finally:
        cluster.kubectl("delete", "-f", policy)
        cluster.kubectl("delete", "pod", "-n", workloads.NAMESPACE, "stand-in", "--now")


def test_its_own_cordon_is_taken_away(policed: Account) -> None:
    """Also when it is no longer told to drain."""
    policed.cluster.api.patch(NODE_PATH, cordon(True, note="true"))
    policed.patch(cordon(None, note=None))


def test_cordoning_needs_a_note(draining: Account) -> None:
    """It says that the cordon is the manager's: an administrator's is not taken away."""
    with refused("cc.mode.cordoned"):
        draining.patch(cordon(True))
    draining.patch(cordon(True, note="true"))
    # The taint of a cordon is Kubernetes' own, and comes a moment after it.
    draining.cluster.until_node(lambda node: bool(node["spec"].get("taints")), 20)
    with refused():
        draining.patch({"spec": {"taints": []}})
    draining.patch(cordon(None, note=None))
    draining.cluster.kubectl("cordon", NODE)
    for change in (cordon(None), {"metadata": {"annotations": {CORDONED: "true"}}}):
        with refused("cc.mode.cordoned"):
            draining.patch(change)
    draining.cluster.kubectl("uncordon", NODE)


def test_evictions_are_of_pods_on_its_own_node(draining: Account) -> None:
    """An Eviction names no node: the policy looks the pod up."""
    cluster = draining.cluster
    cluster.apply(waiting("guest", "default", NODE), waiting("elsewhere", "default", "other"))
    try:
        with refused("evicts pods from no other"):
            draining.evict("elsewhere")
        unbound = Account(cluster, cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip())
        with refused("evicts pods from no other"):
            unbound.evict("guest")
        draining.evict("guest")
        # Somebody else's evictions are none of the policy's business, nor is a pod that is not there.
        evict(cluster.api, "elsewhere")
        with pytest.raises(ApiError, match="404"):
            draining.evict("nobody")
    finally:
        cluster.kubectl("delete", "pod", "guest", "elsewhere", "--force", "--grace-period=0", "--ignore-not-found")


def test_the_api_server_understands_the_expressions(draining: Account) -> None:
    """It checks their types, and tells in the status of a policy what it does not understand."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    for name in (RELEASE, f"{RELEASE}-events", f"{RELEASE}-evictions"):
        found = draining.cluster.api.until(f"{path}?fieldSelector=metadata.name%3D{name}", is_checked, 30)
        assert "expressionWarnings" not in found["status"]["typeChecking"], found["status"]


@pytest.fixture(scope="module")
def stand_in(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """The account of a pod that only waits: the manager would interfere."""
    install(cluster, tmp_path_factory.mktemp("values"), NOWHERE)
    cluster.set_labels({"nvidia.com/cc.capable": "true", VFIO: "true", PLUGIN: "false"})
    yield account_of(cluster, RELEASE, RELEASE)
    cluster.kubectl("delete", "pod", "-n", RELEASE, "stand-in", "--now")
    uninstall(cluster)
    # A test that failed may have left it cordoned, and no pod of the next suite would start.
    cluster.kubectl("uncordon", NODE)
    found = cluster.node()["metadata"]
    ours = {
        kind: dict.fromkeys([key for key in found[kind] if key.startswith(PREFIX)])
        for kind in ("labels", "annotations")
    }
    cluster.api.patch(NODE_PATH, {"metadata": ours})


@pytest.fixture
def policed(stand_in: Account, tmp_path: Path) -> Account:
    """The chart's rights and policy."""
    return installed(stand_in, tmp_path, drain=False)


@pytest.fixture
def draining(stand_in: Account, tmp_path: Path) -> Account:
    """The same with what draining needs."""
    return installed(stand_in, tmp_path, drain=True)


def installed(account: Account, folder: Path, drain: bool) -> Account:
    """Install again only when it is not so already."""
    has = f"{RELEASE}-evictions" in account.cluster.kubectl("get", "validatingadmissionpolicies", "-o", "name")
    if has != drain:
        install(account.cluster, folder, {**NOWHERE, "settings": {"busy": "drain" if drain else "refuse"}})
    account.wait_until(FOREIGN, allowed=False)
    account.wait_until(cordon(True, note="true"), allowed=drain)
    return account


def account_of(cluster: Cluster, namespace: str, account: str) -> Account:
    """That of a pod ``stand-in`` on the node."""
    cluster.apply(waiting("stand-in", namespace, NODE, account))
    pod = cluster.api.until(
        f"/api/v1/namespaces/{namespace}/pods?fieldSelector=metadata.name%3Dstand-in", is_running, 60
    )
    return Account(cluster, token_of(cluster, pod, account, namespace))


def waiting(name: str, namespace: str, node: str, account: str = "default") -> Object:
    """A pod that waits on a node, which need not be there."""
    pod = workloads.virtual_machine(name)
    del pod["spec"]["containers"][0]["resources"]
    pod["metadata"]["namespace"] = namespace
    pod["spec"].update(nodeName=node, serviceAccountName=account)
    return pod


def event(name: str, kind: str, about: str) -> Object:
    """An Event as the manager makes them."""
    metadata = {"name": name, "namespace": "default"}
    involved = {"apiVersion": "v1", "kind": kind, "name": about, "namespace": "default" if kind == "Pod" else ""}
    return {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": involved, "reason": "Test"}


def is_checked(policy: Object) -> bool:
    """Whether the API server has looked at the present expressions of a policy."""
    return bool(policy.get("status", {}).get("observedGeneration") == policy["metadata"]["generation"])


def test_the_policy_is_what_refuses(cluster: Cluster, tmp_path: Path) -> None:
    """Without it the same patch passes: the tests above could fail."""
    install(cluster, tmp_path, {**NOWHERE, "admissionPolicy": {"enabled": False}})
    try:
        token = cluster.kubectl("create", "token", RELEASE, "-n", RELEASE).strip()
        Account(cluster, token).wait_until(FOREIGN, allowed=True)
    finally:
        uninstall(cluster)
