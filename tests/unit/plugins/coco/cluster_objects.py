# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster with one SEV-SNP node with two GPUs, as data. Names and shapes: Kubernetes 1.36, Kata 4.1, NFD 0.19."""

from __future__ import annotations

from typing import Any

from ansible_collections.confidential.gpu.plugins.module_utils._coco.finding import Expect, Facts
from ansible_collections.confidential.gpu.plugins.module_utils._coco.release import Release

NODE = "worker-1"
SNP = "amd.feature.node.kubernetes.io/snp"
TDX = "intel.feature.node.kubernetes.io/tdx"
OWNED = "nfd.node.kubernetes.io/feature-labels"
MINIMUM = {"kernel": "6.17", "containerd": "2.2.2", "kubernetes": "1.32", "kata": "3.29.0"}


def runtime_class(kind: str = "-snp", resource: str = "sev-snp.amd.com/esids", label: str = SNP) -> dict[str, Any]:
    """As kata-deploy 4.1 renders it with NFD's rule active."""
    name = "kata-qemu-nvidia-gpu" + kind
    selector = {
        "katacontainers.io/kata-runtime": "true",
        "kata-deploy.katacontainers.io/default": "true",
        "nvidia.com/cc.ready.state": "true" if kind else "false",
    }
    overhead = {"memory": "10240Mi", "cpu": "1"}
    if kind:
        selector[label] = "true"
        overhead[resource] = "1"
    return {
        "metadata": {"name": name},
        "handler": name,
        "overhead": {"podFixed": overhead},
        "scheduling": {"nodeSelector": selector},
    }


def daemonset(namespace: str, name: str, labels: dict[str, str] | None = None, ready: int = 1) -> dict[str, Any]:
    """With one node."""
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels or {}},
        "spec": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/x:1"}]}}},
        "status": {"desiredNumberScheduled": 1, "numberReady": ready},
    }


def release(chart: str, version: str, namespace: str, status: str = "deployed", name: str = "") -> Release:
    """An installed release."""
    return Release(name or chart, namespace, 1, status, chart, version, {}, "", [])


def release_of(chart: str, version: str, status: str = "deployed") -> Release:
    """In the namespace that its documents name."""
    places = {
        "kata-deploy": "kata-system",
        "gpu-operator": "gpu-operator",
        "node-feature-discovery": "node-feature-discovery",
    }
    return release(chart, version, places[chart], status)


NFD_LABELS = {"app.kubernetes.io/name": "node-feature-discovery", "role": "worker"}


class Cluster:
    """Facts and what is expected, open to changes."""

    def __init__(self) -> None:
        allocatable = {
            "cpu": "128",
            "memory": "1031000000Ki",
            "nvidia.com/pgpu": "2",
            "sev-snp.amd.com/esids": "509",
        }
        self.node: dict[str, Any] = {
            "metadata": {
                "name": NODE,
                "labels": {
                    SNP: "true",
                    "katacontainers.io/kata-runtime": "true",
                    "kata-deploy.katacontainers.io/default": "true",
                    "nvidia.com/gpu.workload.config": "vm-passthrough",
                    "nvidia.com/cc.mode.state": "on",
                    "nvidia.com/cc.ready.state": "true",
                },
                "annotations": {OWNED: f"cpu-model.family,{SNP}", "katacontainers.io/kata-version": "4.1.0"},
            },
            "spec": {},
            "status": {
                "allocatable": allocatable,
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
                "nodeInfo": {
                    "architecture": "amd64",
                    "containerRuntimeVersion": "containerd://2.3.1",
                    "kernelVersion": "6.17.0-8-generic",
                    "kubeletVersion": "v1.34.2",
                },
                "runtimeHandlers": [{"name": ""}, {"name": "kata-qemu-nvidia-gpu-snp"}, {"name": "runc"}],
            },
        }
        self.classes = [runtime_class(""), runtime_class(), runtime_class("-tdx", "tdx.intel.com/keys", TDX)]
        self.daemonsets = [
            daemonset("node-feature-discovery", "nfd-worker", NFD_LABELS),
            daemonset("kata-system", "kata-deploy"),
            daemonset("gpu-operator", "nvidia-cc-manager"),
        ]
        self.policy: Any = {
            "metadata": {"name": "cluster-policy"},
            "spec": {"sandboxWorkloads": {"enabled": True, "mode": "kata", "defaultWorkload": "container"}},
            "status": {"state": "ready"},
        }
        self.rules = {"kata-tee-keys": {"metadata": {"name": "kata-tee-keys"}}}
        self.releases = [
            release_of("kata-deploy", "4.1.0"),
            release_of("gpu-operator", "v26.3.0"),
            release_of("node-feature-discovery", "0.19.0"),
        ]
        self.configz: dict[str, Any] = {
            NODE: {"featureGates": {"RuntimeClassInImageCriApi": True}, "runtimeRequestTimeout": "20m0s"}
        }
        self.more: dict[str, Any] = {"server": "v1.34.2"}
        self.expected: dict[str, Any] = {"nodes": [NODE], "installed": True, "minimum": MINIMUM}

    @property
    def labels(self) -> dict[str, str]:
        """The node's."""
        found: dict[str, str] = self.node["metadata"]["labels"]
        return found

    @property
    def allocatable(self) -> dict[str, str]:
        """The node's."""
        found: dict[str, str] = self.node["status"]["allocatable"]
        return found

    @property
    def system(self) -> dict[str, str]:
        """What the kubelet says of the machine."""
        found: dict[str, str] = self.node["status"]["nodeInfo"]
        return found

    def facts(self) -> Facts:
        """What the API server would give."""
        given: dict[str, Any] = {
            "nodes": {NODE: self.node},
            "classes": {one["metadata"]["name"]: one for one in self.classes},
            "daemonsets": self.daemonsets,
            "policies": {"cluster-policy": self.policy} if self.policy else {},
            "feature_rules": self.rules,
            "releases": self.releases,
            "configz": self.configz,
            **self.more,
        }
        return Facts(**given)

    def expect(self) -> Expect:
        """What is expected of it."""
        return Expect(**self.expected)
