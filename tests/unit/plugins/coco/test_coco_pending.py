# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a pod does not run: one cause."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_objects import SNP, Cluster, runtime_class

from ansible_collections.confidential.gpu.plugins.module_utils._coco.pending import Cause, cause
from ansible_collections.confidential.gpu.plugins.module_utils._coco.versions import older, quantity, seconds, version

LIMITS = {"nvidia.com/pgpu": "1", "memory": "16Gi"}


def pod(**status: Any) -> dict[str, Any]:
    return {
        "spec": {"containers": [{"name": "sample", "resources": {"limits": LIMITS}}]},
        "status": {"phase": "Pending", **status},
    }


def why(cluster: Cluster, events: list[str] | None = None, **status: Any) -> Cause:
    said = [{"type": "Warning", "message": message} for message in events or []]
    return cause(pod(**status), said, cluster.node, runtime_class())


def test_a_key_of_the_class_that_the_node_lacks(cluster: Cluster) -> None:
    del cluster.labels[SNP]
    assert f"selects {SNP}=true, the node has no such label" in why(cluster).seen
    assert "NFD" in why(cluster).remedy


@pytest.mark.parametrize("resource", ["sev-snp.amd.com/esids", "nvidia.com/pgpu"])
def test_a_resource_that_the_node_lacks(cluster: Cluster, resource: str) -> None:
    cluster.allocatable[resource] = "0"
    assert why(cluster).seen.startswith(resource + ": 1 wanted")


def test_memory_is_asked_for_with_the_overhead(cluster: Cluster) -> None:
    cluster.allocatable["memory"] = "20Gi"
    assert why(cluster).seen.startswith("memory")
    cluster.allocatable["memory"] = "27Gi"
    assert not why(cluster).seen.startswith("memory")


def test_a_taint_and_a_cordon(cluster: Cluster) -> None:
    cluster.node["spec"]["taints"] = [{"key": "gpu", "effect": "NoSchedule"}]
    assert "gpu:NoSchedule" in why(cluster).seen
    cluster.node["spec"]["unschedulable"] = True
    assert "cordoned" in why(cluster).seen


def test_the_schedulers_words_where_nothing_else_is_wrong(cluster: Cluster) -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/1 nodes are available: 1 Insufficient nvidia.com/pgpu.",
    }
    assert why(cluster, conditions=[condition]).seen == condition["message"]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ('failed to get sandbox runtime: no runtime for "kata-qemu-nvidia-gpu-snp" is configured', "k8sDistribution"),
        ("cold plug: PodResources API Get is disabled", "KubeletPodResourcesGet"),
        ("unresolvable CDI devices nvidia.com/pgpu=vfio3", "iommufd"),
        ("VFIO_MAP_DMA failed: no space left on device", "iommufd"),
        ("cannot open /dev/vfio/devices/vfio0", "VFIO_DEVICE_CDEV"),
        ("Cannot set discarding of RAM broken", "QEMU 9.2"),
        ("iommufd bind failed: Invalid argument", "reboot"),
        ("IOMMU group has no passthrough-capable devices", "NVSwitches"),
        ("rpc error: code = DeadlineExceeded desc = context deadline exceeded", "runtimeRequestTimeout"),
        ("object with key sha256:12 already exists", "RuntimeClassInImageCriApi"),
    ],
)
def test_what_the_host_says_comes_before_what_the_scheduler_lacks(cluster: Cluster, words: str, remedy: str) -> None:
    cluster.allocatable["nvidia.com/pgpu"] = "0"
    found = why(cluster, ["Failed to create pod sandbox: " + words])
    assert remedy in found.remedy
    assert words in found.seen


def test_an_image_that_cannot_be_pulled(cluster: Cluster) -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "nothing at registry.example"}}}
    found = why(cluster, containerStatuses=[waiting])
    assert found.seen == "ImagePullBackOff: nothing at registry.example"
    assert "guest" in found.remedy


def test_words_that_nobody_knows_are_told_as_they_are(cluster: Cluster) -> None:
    found = cause(
        {"spec": {"nodeName": "worker-1"}, "status": {}}, [{"type": "Warning", "message": "so be it"}], {}, None
    )
    assert found.seen == "so be it"
    assert "nothing was said" in cause({"spec": {"nodeName": "worker-1"}, "status": {}}, [], {}, None).seen


def test_versions_and_quantities() -> None:
    assert version("v1.36.3+k3s1") == (1, 36, 3)
    assert older("6.8.0-60-generic", "6.17")
    assert not older("6.17.0-8", "6.17")
    assert not older("", "6.17")
    assert quantity("16Gi") == 16 * 2**30
    assert quantity("500m") * 2 == 1
    assert quantity("rubbish") == 0
    assert seconds("20m0s") == 1200
    assert seconds("1h1.5s") == 3601.5
