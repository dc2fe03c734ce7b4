# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What each rule says of a cluster in which one thing is wrong, and nothing of one in which all is well."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from cluster_objects import NFD_LABELS, NODE, OWNED, SNP, TDX, Cluster, daemonset, release, release_of, runtime_class

from ansible_collections.confidential.gpu.plugins.module_utils._coco import readiness
from ansible_collections.confidential.gpu.plugins.module_utils._coco.finding import FAILED, OK, REFUSED, WARN, Finding

Break = Callable[[Cluster], Any]


class Case(NamedTuple):
    """One thing that is wrong, and what is said of it."""

    name: str
    rule: str
    state: str
    seen: str
    remedy: str
    break_it: Break


def put(where: str, key: str, value: Any) -> Break:
    """Set a key of the node's labels, allocatable, system; None removes it. Or what is expected."""

    def change(cluster: Cluster) -> None:
        mapping = cluster.expected if where == "expect" else getattr(cluster, where)
        if value is None:
            mapping.pop(key, None)
        else:
            mapping[key] = value

    return change


def both(*changes: Break) -> Break:
    """Several changes."""
    return lambda cluster: [change(cluster) for change in changes]


def more(key: str, value: Any) -> Break:
    """Further facts."""
    return lambda cluster: cluster.more.update({key: value})


def ppcie(cluster: Cluster) -> None:
    """A board of Hopper with eight GPUs in ppcie, as it should be."""
    del cluster.allocatable["nvidia.com/pgpu"]
    cluster.allocatable.update({"nvidia.com/GH100_H200_141GB": "8", "nvidia.com/nvswitch": "4"})
    cluster.labels.update({"nvidia.com/cc.mode": "ppcie", "nvidia.com/cc.mode.state": "ppcie"})
    cluster.expected.update(mode="ppcie", sample_gpus=8, sample_nvswitches=4)


def taint(cluster: Cluster) -> None:
    cluster.node["spec"]["taints"] = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]


def k3s(cluster: Cluster) -> None:
    """And the containerd of the node has no handler of Kata's, or tells none."""
    cluster.system["kubeletVersion"] = "v1.34.2+k3s1"
    cluster.expected["distribution"] = "k3s"
    del cluster.node["status"]["runtimeHandlers"]


LIMITS = [
    Case("no such node", "present", REFUSED, "no node", "kubectl get nodes", put("expect", "nodes", ["worker-9"])),
    Case("ARM", "architecture", REFUSED, "arm64", "x86_64", put("system", "architecture", "arm64")),
    Case(
        "CRI-O", "runtime", REFUSED, "cri-o", "containerd", put("system", "containerRuntimeVersion", "cri-o://1.34.1")
    ),
    Case(
        "old containerd",
        "containerd",
        REFUSED,
        "1.7.28",
        "2.2.2",
        put("system", "containerRuntimeVersion", "containerd://1.7.28"),
    ),
    Case("old kernel", "kernel", REFUSED, "6.8.0", "6.17", put("system", "kernelVersion", "6.8.0-60-generic")),
    Case("old kubelet", "kubernetes", REFUSED, "v1.31.9", "1.32", put("system", "kubeletVersion", "v1.31.9")),
    Case("old API server", "kubernetes", REFUSED, "v1.31.9", "1.32", more("server", "v1.31.9")),
    Case(
        "nested",
        "nested",
        REFUSED,
        "HYPERVISOR",
        "bare metal",
        put("labels", "feature.node.kubernetes.io/cpu-cpuid.HYPERVISOR", "true"),
    ),
    Case("k3s as k8s", "distribution", REFUSED, "+k3s1", "to k3s", put("system", "kubeletVersion", "v1.34.2+k3s1")),
    Case("k3s whose imports nobody knows", "distribution", REFUSED, "config-v3.toml.d", "tmpl", k3s),
    Case("taint", "taints", WARN, "nvidia.com/gpu:NoSchedule", "toleration", taint),
    Case(
        "CcRuntime",
        "coco_operator",
        REFUSED,
        "ccruntime-sample",
        "in this order",
        more("cc_runtimes", ["ccruntime-sample"]),
    ),
    Case(
        "a second Kata",
        "one_kata",
        REFUSED,
        "coco/umbrella",
        "all but one",
        lambda c: c.releases.append(release("confidential-containers", "0.18.0", "coco", name="umbrella")),
    ),
    Case(
        "a second NFD",
        "one_nfd",
        REFUSED,
        "gpu-operator/gpu-operator-node-feature-discovery-worker",
        "nfd.enabled",
        lambda c: c.daemonsets.append(
            daemonset("gpu-operator", "gpu-operator-node-feature-discovery-worker", NFD_LABELS)
        ),
    ),
    Case(
        "NFD of somebody else",
        "one_nfd",
        REFUSED,
        "nfd-worker",
        "Switch the step nfd off",
        both(put("expect", "installed", False), put("expect", "installs_nfd", True), lambda c: c.releases.pop()),
    ),
    Case(
        "two ways to run the operator",
        "one_operator",
        REFUSED,
        "GPUCluster",
        "one of the two",
        more("gpu_clusters", [{}]),
    ),
    Case(
        "two operators",
        "one_operator",
        REFUSED,
        "gpu-operator/gpu-operator-1234",
        "all but one",
        lambda c: c.releases.append(release("gpu-operator", "v25.10.0", "gpu-operator", name="gpu-operator-1234")),
    ),
    Case(
        "debug classes",
        "debug_classes",
        REFUSED,
        "-debug",
        "debug: false",
        lambda c: c.classes.append(runtime_class("-snp-debug")),
    ),
    Case(
        "interrupted Helm",
        "wedged_releases",
        REFUSED,
        "pending-upgrade",
        "repair",
        lambda c: c.releases.__setitem__(0, release_of("kata-deploy", "4.1.0", "pending-upgrade")),
    ),
    Case(
        "vGPU",
        "no_vgpu",
        REFUSED,
        "vm-vgpu",
        "vm-passthrough",
        put("labels", "nvidia.com/gpu.workload.config", "vm-vgpu"),
    ),
    Case("MIG", "no_vgpu", REFUSED, "mig-1g.10gb", "all-disabled", put("allocatable", "nvidia.com/mig-1g.10gb", "7")),
    Case(
        "no such workload",
        "workload",
        REFUSED,
        "vm-passthru",
        "vm-passthrough",
        put("labels", "nvidia.com/gpu.workload.config", "vm-passthru"),
    ),
    Case(
        "mixed GPUs",
        "one_model",
        REFUSED,
        "GB202",
        "alike",
        both(
            put("allocatable", "nvidia.com/GH100_H100_PCIE", "1"),
            put("allocatable", "nvidia.com/GB202_RTX_PRO_6000", "1"),
        ),
    ),
    Case(
        "ppcie for all",
        "ppcie",
        REFUSED,
        "default",
        "label nvidia.com/cc.mode",
        put("expect", "mode_of_cluster", "ppcie"),
    ),
    Case(
        "ppcie off Hopper",
        "ppcie",
        REFUSED,
        "not Hopper",
        "Blackwell",
        both(
            ppcie,
            put("allocatable", "nvidia.com/GH100_H200_141GB", None),
            put("allocatable", "nvidia.com/GB100_B200", "8"),
        ),
    ),
    Case("some GPUs in ppcie", "ppcie", REFUSED, "1 of 8", "all GPUs", both(ppcie, put("expect", "sample_gpus", 1))),
    Case(
        "no NVSwitch requested",
        "ppcie",
        REFUSED,
        "0 NVSwitches requested",
        "nvidia.com/nvswitch",
        both(ppcie, put("expect", "sample_nvswitches", 0)),
    ),
    Case(
        "NVSwitches unbound",
        "ppcie",
        FAILED,
        "no NVSwitches",
        "BIND_NVSWITCHES",
        both(ppcie, put("allocatable", "nvidia.com/nvswitch", None)),
    ),
    Case(
        "Kata drops NVSwitches",
        "nvswitches_kept",
        REFUSED,
        "Kata 4.0.0",
        "4.1.0",
        both(ppcie, put("expect", "kata_version", "4.0.0")),
    ),
    Case(
        "some GPUs of a node",
        "whole_node",
        REFUSED,
        "2 of 8",
        "all 8",
        both(put("allocatable", "nvidia.com/pgpu", "8"), put("expect", "sample_gpus", 2)),
    ),
    Case("label by hand", "by_hand", REFUSED, "is not NFD's", "label node", put("labels", TDX, "true")),
    Case(
        "two processors",
        "both",
        REFUSED,
        " and ",
        "not NFD's",
        both(put("labels", TDX, "true"), lambda c: c.node["metadata"]["annotations"].update({OWNED: f"{SNP},{TDX}"})),
    ),
    Case("small node", "room", REFUSED, "26.0 GiB wanted", "larger node", put("allocatable", "memory", "16Gi")),
    Case("few processors", "room", REFUSED, "processors", "larger node", put("allocatable", "cpu", "500m")),
    Case("old Kata", "documented_kata", REFUSED, "3.28.0", "3.29.0", put("expect", "kata_version", "3.28.0")),
    Case(
        "new Kata",
        "documented_kata",
        WARN,
        "5.0.0",
        "Nothing if it works",
        both(put("expect", "kata_version", "5.0.0"), put("expect", "documented", {"kata": ["4."]})),
    ),
    Case(
        "no such mode",
        "known_mode",
        REFUSED,
        "confidential",
        "devtools",
        put("expect", "mode_of_cluster", "confidential"),
    ),
]


def no_rule(cluster: Cluster) -> None:
    """NVIDIA's order: kata-deploy before NFD, so that its chart rendered no rule, and NFD sets no label."""
    cluster.rules = {}
    del cluster.labels[SNP]


def not_ready(cluster: Cluster) -> None:
    cluster.node["status"]["conditions"][1].update(status="False", reason="KubeletNotReady")


def policy(**sandbox: Any) -> Break:
    """Other settings of the GPU Operator."""

    def change(cluster: Cluster) -> None:
        assert cluster.policy is not None
        cluster.policy["spec"]["sandboxWorkloads"].update(sandbox)

    return change


def configz(settings: Any) -> Break:
    return lambda cluster: cluster.configz.update({NODE: settings})


PITFALLS = [
    Case("kubelet is not ready", "present", FAILED, "KubeletNotReady", "describe node", not_ready),
    Case("installed in NVIDIA's order", "rule_there", FAILED, "no NodeFeatureRule", "before NFD", no_rule),
    Case("so the label is missing", "labelled", FAILED, "neither", "Upgrade kata-deploy again", no_rule),
    Case("SNP is off in the firmware", "labelled", FAILED, "neither", "sev_snp", put("labels", SNP, None)),
    Case("NFD is gone", "nfd_there", FAILED, "no worker", "Install NFD", lambda c: c.daemonsets.pop(0)),
    Case("no misc cgroup", "keys", FAILED, "esids: 0", "misc cgroup", put("allocatable", "sev-snp.amd.com/esids", "0")),
    Case(
        "rule of an older Kata",
        "rule_there",
        WARN,
        "amd64-tee-keys",
        "Delete it",
        lambda c: c.rules.update({"amd64-tee-keys": {}}),
    ),
    Case(
        "kubelet gate",
        "configured",
        FAILED,
        "RuntimeClassInImageCriApi",
        "kubelet_confidential",
        configz({"runtimeRequestTimeout": "20m0s"}),
    ),
    Case(
        "kubelet gate before 1.34",
        "configured",
        FAILED,
        "KubeletPodResourcesGet",
        "kubelet_confidential",
        put("system", "kubeletVersion", "v1.33.5"),
    ),
    Case(
        "kubelet time-out",
        "configured",
        FAILED,
        "2m0s",
        "kubelet_confidential",
        configz({"featureGates": {"RuntimeClassInImageCriApi": True}, "runtimeRequestTimeout": "2m0s"}),
    ),
    Case("no right to configz", "configured", WARN, "does not answer", "nodes/proxy", configz(None)),
    Case("operator without kata mode", "policy", FAILED, "kubevirt", "no CC manager", policy(mode="kubevirt")),
    Case("operator without sandboxes", "policy", FAILED, "enabled=False", "no CC manager", policy(enabled=False)),
    Case(
        "operator is not ready",
        "policy",
        FAILED,
        "notReady",
        "DaemonSets",
        lambda c: c.policy.update(status={"state": "notReady"}),
    ),
    Case(
        "no operator",
        "policy",
        FAILED,
        "no ClusterPolicy",
        "Install the GPU Operator",
        lambda c: setattr(c, "policy", None),
    ),
    Case(
        "old documents",
        "policy",
        WARN,
        "kataManager",
        "kata-deploy",
        lambda c: c.policy["spec"].update(kataManager={"enabled": True}),
    ),
    Case(
        "a node without its pod",
        "daemonsets",
        FAILED,
        "0 of 1",
        "describe pods",
        lambda c: c.daemonsets[2]["status"].update(numberReady=0),
    ),
    Case(
        "an operator without Kata's mode",
        "documented_operator",
        FAILED,
        "v25.10.1",
        "26.3.0",
        both(
            put("expect", "minimum", {"gpu_operator": "26.3.0"}),
            lambda c: c.releases.__setitem__(1, release_of("gpu-operator", "v25.10.1")),
        ),
    ),
    Case(
        "an operator that the documents do not name",
        "documented_operator",
        WARN,
        "v26.7.0",
        "26.3.",
        both(
            put("expect", "documented", {"gpu_operator": ["26.3."]}),
            lambda c: c.releases.__setitem__(1, release_of("gpu-operator", "v26.7.0")),
        ),
    ),
    Case(
        "a DaemonSet that nobody has looked at",
        "daemonsets",
        FAILED,
        "has not seen it",
        "describe pods",
        lambda c: c.daemonsets[2]["metadata"].update(generation=2),
    ),
    Case(
        "a DaemonSet half replaced",
        "daemonsets",
        FAILED,
        "replaced on 0 of 1",
        "describe pods",
        lambda c: c.daemonsets[1]["status"].update(updatedNumberScheduled=0),
    ),
    Case(
        "workload of containers",
        "workload",
        FAILED,
        "container",
        "vm-passthrough",
        put("labels", "nvidia.com/gpu.workload.config", "container"),
    ),
    Case(
        "mode failed",
        "mode",
        FAILED,
        "GPU 0 did not boot",
        "Mend",
        both(
            put("labels", "nvidia.com/cc.mode.state", "failed"),
            lambda c: c.node["metadata"]["annotations"].update({"nvidia.com/cc.mode.reason": "GPU 0 did not boot"}),
        ),
    ),
    Case(
        "mode is another",
        "mode",
        FAILED,
        "=off, wanted on",
        "no pod holds",
        both(put("labels", "nvidia.com/cc.mode.state", "off"), put("expect", "mode", "on")),
    ),
    Case("no classes", "classes", FAILED, "no runtime class", "Install kata-deploy", lambda c: c.classes.clear()),
    Case(
        "shim is off", "selected", FAILED, "no runtime class for snp", "qemu-nvidia-gpu-snp", lambda c: c.classes.pop(1)
    ),
    Case(
        "kata-deploy has not finished",
        "selected",
        FAILED,
        "kata-runtime=false",
        "log of kata-deploy",
        put("labels", "katacontainers.io/kata-runtime", "false"),
    ),
    Case(
        "mode is not ready",
        "selected",
        FAILED,
        "cc.ready.state=(none)",
        "Set the mode",
        put("labels", "nvidia.com/cc.ready.state", None),
    ),
    Case(
        "wrong folder of containerd",
        "handled",
        FAILED,
        "no handler",
        "k8sDistribution",
        lambda c: c.node["status"].update(runtimeHandlers=[{"name": "runc"}]),
    ),
    Case(
        "rollout is not over",
        "same_version",
        FAILED,
        "Kata 4.0.0 on the node",
        "rollout",
        lambda c: c.node["metadata"]["annotations"].update({"katacontainers.io/kata-version": "4.0.0"}),
    ),
    Case("no GPUs", "counted", FAILED, "0 GPUs", "vfio-pci", put("allocatable", "nvidia.com/pgpu", "0")),
    Case("fewer GPUs", "counted", FAILED, "2 GPUs are allocatable, not 8", "vfio-pci", put("expect", "gpus", 8)),
    Case(
        "failed release",
        "wedged_releases",
        WARN,
        "is failed",
        "repair",
        lambda c: c.releases.__setitem__(0, release_of("kata-deploy", "4.1.0", "failed")),
    ),
]


def judged(cluster: Cluster) -> list[Finding]:
    return readiness.judge(cluster.facts(), cluster.expect())


def test_a_cluster_that_is_well_has_nothing_but_ok(cluster: Cluster) -> None:
    assert [one for one in judged(cluster) if one.state != OK] == []


def test_a_board_in_ppcie_that_is_well_has_nothing_but_ok(cluster: Cluster) -> None:
    ppcie(cluster)
    assert [one for one in judged(cluster) if one.state != OK] == []


def test_a_bare_cluster_is_not_refused(cluster: Cluster) -> None:
    bare = Cluster()
    bare.node["metadata"].update(labels={}, annotations={})
    bare.allocatable.pop("nvidia.com/pgpu")
    bare.classes, bare.daemonsets, bare.policy, bare.rules, bare.releases = [], [], None, {}, []
    bare.configz = {NODE: {}}
    bare.expected["installed"] = False
    assert {one.state for one in judged(bare)} == {OK, WARN}


@pytest.mark.parametrize("case", [*LIMITS, *PITFALLS], ids=lambda case: case.name)
def test_what_is_wrong_is_told_with_its_remedy(cluster: Cluster, case: Case) -> None:
    case.break_it(cluster)
    found = [one for one in judged(cluster) if one.rule == case.rule and one.state == case.state]
    assert found, [one for one in judged(cluster) if one.state != OK]
    assert any(case.seen in one.seen and case.remedy in one.remedy for one in found), found


def test_everything_is_told_at_once(cluster: Cluster) -> None:
    for change in (put("system", "kernelVersion", "5.15.0"), put("labels", TDX, "true"), no_rule):
        change(cluster)
    assert {one.rule for one in judged(cluster) if one.state in (REFUSED, FAILED)} >= {
        "kernel",
        "by_hand",
        "rule_there",
    }


def test_each_limit_is_refused_before_anything_is_installed(cluster: Cluster) -> None:
    """What needs no installed thing to be seen is told by the preflight, too."""
    late = {"NVSwitches unbound", "mode failed"}
    for case in LIMITS:
        one = Cluster()
        one.expected["installed"] = False
        case.break_it(one)
        if case.name not in late:
            assert any(found.rule == case.rule and found.state == case.state for found in judged(one)), case.name


def test_a_row_for_each_node_and_step_with_the_worst_of_it(cluster: Cluster) -> None:
    no_rule(cluster)
    cluster.expected["steps"] = ["kubelet", "nfd", "kata"]
    rows = {row.step: row for row in readiness.rows(judged(cluster), cluster.expect())}
    assert {step: row.state for step, row in rows.items()} == {
        "nodes": OK,
        "kubelet": OK,
        "nfd": FAILED,
        "gpu_operator": "skipped",
        "kata": FAILED,
        "mode": "skipped",
        "resources": OK,
        "sample": "skipped",
        "attestation": "skipped",
    }
    assert "Upgrade kata-deploy again" in rows["nfd"].remedy
    lines = readiness.table(rows.values())
    assert len(lines) == len(rows)
    assert all(line.startswith(NODE) for line in lines)


def test_k3s_is_taken_when_its_imports_or_its_handlers_are_known(cluster: Cluster) -> None:
    k3s(cluster)
    cluster.expected["imports"] = [NODE]
    assert [one for one in judged(cluster) if one.rule == "distribution"] == []
    k3s_with_handlers = Cluster()
    k3s_with_handlers.system["kubeletVersion"] = "v1.34.2+k3s1"
    k3s_with_handlers.expected["distribution"] = "k3s"
    assert [one for one in judged(k3s_with_handlers) if one.rule == "distribution"] == []


def test_a_pod_of_a_daemonset_that_is_not_ready_is_told_of_its_node_alone(cluster: Cluster) -> None:
    """On nodes of others it is their affair."""

    def pod(node: str, ready: bool) -> dict[str, Any]:
        owner = {"kind": "DaemonSet", "name": "nvidia-cc-manager"}
        metadata = {"namespace": "gpu-operator", "name": "x-" + node, "ownerReferences": [owner]}
        conditions = [{"type": "Ready", "status": str(ready)}]
        return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"conditions": conditions}}

    cluster.daemonsets[2]["status"].update(desiredNumberScheduled=3, numberReady=1)
    cluster.more["pods"] = [pod(NODE, True), pod("worker-2", False), pod("worker-3", False)]
    assert [one for one in judged(cluster) if one.rule == "daemonsets"] == []
    cluster.more["pods"] = [pod(NODE, False), pod("worker-2", False), pod("worker-3", True)]
    (found,) = [one for one in judged(cluster) if one.rule == "daemonsets"]
    assert (found.about, found.state, found.step) == (NODE, FAILED, "gpu_operator")
    assert "nvidia-cc-manager is not ready" in found.seen


def test_the_rows_of_a_thousand_nodes_take_no_second(cluster: Cluster) -> None:
    """They are as many as nodes times steps; looking through all findings for each took a thousand times as long."""
    names = [f"worker-{number}" for number in range(1000)]
    findings = [Finding("r", step, name, OK, "x") for name in names for step in readiness.STEPS]
    cluster.expected["nodes"] = names
    began = time.process_time()
    assert len(readiness.rows(findings, cluster.expect())) == 9000
    assert time.process_time() - began < 1
