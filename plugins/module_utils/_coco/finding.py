# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the rules see, what they are told to expect, and what they answer."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence

from .release import Release

OK, WARN, REFUSED, FAILED, SKIPPED = "ok", "warn", "refused", "failed", "skipped"
CLUSTER = "cluster"
# Kata's name for this kind of class; the chart may add a suffix of its own (multiInstallSuffix).
HANDLER = "kata-qemu-nvidia-gpu"
TEE_LABELS = {"snp": "amd.feature.node.kubernetes.io/snp", "tdx": "intel.feature.node.kubernetes.io/tdx"}
TEE_RESOURCES = {"snp": "sev-snp.amd.com/esids", "tdx": "tdx.intel.com/keys"}


class Finding(NamedTuple):
    """One row: ``about`` is a node or CLUSTER. ``refused``: not supported; ``failed``: not as it should be by now."""

    rule: str
    step: str
    about: str
    state: str
    seen: str
    remedy: str = ""


class Expect(NamedTuple):
    """What the cluster is to be. ``minimum`` and ``documented``: of kernel, containerd, kubernetes, kata."""

    nodes: Sequence[str]
    # Whether everything is installed by now, or is going to be.
    installed: bool = False
    technology: str = ""  # snp, tdx; '' where the node's own label says it
    mode: str = ""
    mode_of_cluster: str = ""
    gpus: int = 0  # of each node; 0: any number but none
    sample_gpus: int = 1
    sample_memory: str = "16Gi"
    sample_nvswitches: int = 0
    distribution: str = "k8s"
    imports: Sequence[str] = ()  # nodes whose containerd is known to read kata-deploy's folder; of k3s and rke2
    installs_nfd: bool = False
    kata_version: str = ""
    minimum: Mapping[str, str] = {}
    documented: Mapping[str, Sequence[str]] = {}
    runtime_request_timeout_s: float = 1200
    steps: Sequence[str] = ()  # those that are wanted; () is every one


class Facts(NamedTuple):
    """Objects as the API server gives them, by name where they have one of their own in the cluster."""

    nodes: Mapping[str, Any]
    classes: Mapping[str, Any] = {}
    daemonsets: Sequence[Any] = ()
    pods: Sequence[Any] = ()
    crds: Sequence[str] = ()
    policies: Mapping[str, Any] = {}
    gpu_clusters: Sequence[Any] = ()
    feature_rules: Mapping[str, Any] = {}
    cc_runtimes: Sequence[str] = ()
    releases: Sequence[Release] = ()
    configz: Mapping[str, Any] = {}
    server: str = ""


def chosen(facts: Facts, expect: Expect) -> Iterator[tuple[str, Any]]:
    """The nodes that are asked for and there."""
    for name in expect.nodes:
        if name in facts.nodes:
            yield name, facts.nodes[name]


def labels(thing: Any) -> Mapping[str, str]:
    """Its labels."""
    return thing.get("metadata", {}).get("labels") or {}


def notes(thing: Any) -> Mapping[str, str]:
    """Its annotations."""
    return thing.get("metadata", {}).get("annotations") or {}


def system(node: Any) -> Mapping[str, str]:
    """What the kubelet says of the machine."""
    return node.get("status", {}).get("nodeInfo") or {}


def allocatable(node: Any) -> Mapping[str, str]:
    """What pods can have of a node."""
    return node.get("status", {}).get("allocatable") or {}


def is_ready(thing: Any) -> bool:
    """Whether a node takes pods, or a pod works, as the kubelet says."""
    conditions = thing.get("status", {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def technology(node: Any, expect: Expect) -> str:
    """'snp', 'tdx' or ''."""
    if expect.technology:
        return expect.technology
    return next((name for name, label in TEE_LABELS.items() if labels(node).get(label) == "true"), "")


def class_for(node: Any, facts: Facts, expect: Expect) -> Optional[Any]:
    """The runtime class whose handler is this node's confidential one, as the chart rendered it."""
    wanted = "%s-%s" % (HANDLER, technology(node, expect) or "none")
    for runtime_class in facts.classes.values():
        handler = runtime_class.get("handler", "")
        if handler == wanted or handler.startswith((wanted + "-runtime-rs", wanted + "-")):
            return runtime_class
    return None


def gpu_count(node: Any) -> int:
    """GPUs that pods can have: nvidia.com/pgpu, or the names by model with which the plugin's alias is empty."""
    return sum(int(value) for key, value in allocatable(node).items() if is_gpu(key) and str(value).isdigit())


def is_gpu(resource: str) -> bool:
    """Whether a resource is whole GPUs for virtual machines."""
    name = resource.partition("nvidia.com/")[2]
    return bool(name) and resource.startswith("nvidia.com/") and (name == "pgpu" or _is_model(name))


def _is_model(name: str) -> bool:
    return name[:2] in ("GA", "GH", "GB", "AD") and not name.startswith(("GB_", "GA_"))


def is_hopper(node: Any) -> bool:
    """What NFD, the plugin's names, or the operator of before 26.3 say."""
    family = labels(node).get("nvidia.com/gpu.family", "")
    product = labels(node).get("nvidia.com/gpu.product", "")
    models = [key for key in allocatable(node) if key.startswith("nvidia.com/GH100")]
    return family == "hopper" or bool(models) or any(word in product for word in ("H100", "H200", "H800", "H20"))


def is_known_other(node: Any) -> bool:
    """Whether the node is known to have GPUs that are not Hopper's."""
    family = labels(node).get("nvidia.com/gpu.family", "")
    models = [key for key in allocatable(node) if is_gpu(key) and key != "nvidia.com/pgpu"]
    return not is_hopper(node) and (bool(models) or family not in ("", "hopper"))


def kata_version(facts: Facts, expect: Expect) -> str:
    """Of the installed release, else of the one that is asked for."""
    if expect.kata_version:
        return expect.kata_version
    return next((one.version for one in facts.releases if one.chart == "kata-deploy"), "")
