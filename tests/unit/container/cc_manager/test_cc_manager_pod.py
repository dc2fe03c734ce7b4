# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""By what a pod has GPUs, or may have; and from when until when."""

from __future__ import annotations

from typing import Any

import pytest
from cc_manager.pod import Pod, Witness

LAUNCHER = {"kubevirt.io": "virt-launcher"}


def pod(
    limits: dict[str, Any] | None = None,
    *,
    kind: str = "containers",
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> Pod:
    """A pod with one container."""
    container = {"name": "c", "resources": {"limits": limits or {}}, **spec.pop("container", {})}
    metadata = {"name": "p", "namespace": "n", "labels": labels or {}, "annotations": annotations or {}}
    return Pod.of({"metadata": metadata, "spec": {kind: [container], **spec}, "status": status or {"phase": "Running"}})


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu", "nvidia.com/pgpu", "nvidia.com/mig-1g.10gb", "nvidia.com/GH100_H100"]
)
def test_extended_resources_of_nvidia(name: str, kind: str) -> None:
    found = pod({name: "1", "cpu": "2"}, kind=kind)
    assert found.resources == (name,)
    assert found.surely_holds_gpus


@pytest.mark.parametrize("amount", ["0", 0])
def test_none_of_a_resource_is_none(amount: Any) -> None:
    assert not pod({"nvidia.com/gpu": amount}).holds_gpus


@pytest.mark.parametrize("name", ["nvidia.community/gpu", "amd.com/gpu", "notnvidia.com/gpu", "example.org/nvidia.com"])
def test_resources_of_others(name: str) -> None:
    assert not pod({name: "1"}).holds_gpus


@pytest.mark.parametrize(
    "value",
    [
        "nvidia.com/pgpu=0",
        "nvidia.com/gpu=all",
        "k8s.device-plugin.nvidia.com/gpu=GPU-1",
        "x.org/a=1, nvidia.com/gpu=0",
    ],
)
def test_cdi_annotations(value: str) -> None:
    found = pod(annotations={"cdi.k8s.io/gpus": value})
    assert found.surely_holds_gpus
    assert found.resources[0].startswith("CDI ")


@pytest.mark.parametrize("annotations", [{"cdi.k8s.io/x": "x.org/a=1"}, {"other.io/gpu": "nvidia.com/gpu=0"}])
def test_annotations_that_give_no_gpu(annotations: dict[str, str]) -> None:
    assert not pod(annotations=annotations).holds_gpus


# --- KubeVirt ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["example.org/h100", "kubevirt.io/gpu", "gpu.example.com/GH100"])
def test_a_virtual_machines_host_device_may_be_a_gpu_whatever_it_is_called(name: str) -> None:
    found = pod({name: "1", "devices.kubevirt.io/kvm": "1", "memory": "8Gi"}, labels=LAUNCHER)
    assert found.unclear == (name,)
    assert found.holds_gpus
    assert not found.surely_holds_gpus
    assert not pod({name: "1"}).holds_gpus  # the same name in another pod: it says nothing of a device


def test_a_virtual_machine_with_nvidias_name_surely_has_one() -> None:
    assert pod({"nvidia.com/GH100_H100_SXM5": "1"}, labels=LAUNCHER).surely_holds_gpus


def test_a_virtual_machine_without_host_devices_has_none() -> None:
    plain = {"devices.kubevirt.io/kvm": "1", "devices.kubevirt.io/sev": "1", "hugepages-2Mi": "1Gi", "memory": "8Gi"}
    assert not pod(plain, labels=LAUNCHER).holds_gpus


def test_a_virtual_machines_network_function_is_no_gpu() -> None:
    """KubeVirt names the resource of each network in a variable."""
    env = [{"name": "KUBEVIRT_RESOURCE_NAME_fast", "value": "intel.com/sriov"}, {"name": "OTHER", "value": "x.org/gpu"}]
    found = pod({"intel.com/sriov": "1", "x.org/gpu": "1"}, labels=LAUNCHER, container={"env": env})
    assert found.unclear == ("x.org/gpu",)


# --- dynamic resource allocation --------------------------------------------------------------------------------------


def test_a_claim_may_be_for_a_gpu() -> None:
    found = pod(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "t"}])
    assert found.unclear == ("ResourceClaim gpu",)
    assert found.holds_gpus
    assert not found.surely_holds_gpus


def test_a_claim_that_was_never_made_is_none() -> None:
    claims = [{"name": "a", "resourceClaimTemplateName": "t"}, {"name": "b", "resourceClaimName": "x"}]
    status = {"phase": "Running", "resourceClaimStatuses": [{"name": "a"}, {"name": "b", "resourceClaimName": "x"}]}
    assert pod(resourceClaims=claims, status=status).unclear == ("ResourceClaim b",)


def test_an_extended_resource_behind_which_a_claim_stands() -> None:
    status = {"phase": "Running", "extendedResourceClaimStatus": {"resourceClaimName": "p-extended"}}
    assert pod({"example.org/gpu": "1"}, status=status).unclear == ("ResourceClaim p-extended",)


# --- what says nothing ------------------------------------------------------------------------------------------------


def test_what_is_seen_on_the_device_itself_is_not_guessed_from_the_pod() -> None:
    volumes = [{"name": "vfio", "hostPath": {"path": "/dev/vfio"}}]
    assert not pod(volumes=volumes, container={"securityContext": {"privileged": True}}).holds_gpus


@pytest.mark.parametrize("phase", ["", "Pending", "Running", "Unknown"])
def test_from_being_bound_a_pod_holds_what_it_asks_for(phase: str) -> None:
    assert pod({"nvidia.com/gpu": "1"}, status={"phase": phase}).holds_gpus


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_until_its_last_container_has_ended(phase: str) -> None:
    """A pod that the kubelet evicts is Failed before its containers are gone."""
    running = [{"name": "c", "state": {"running": {"startedAt": "now"}}}]
    ended = [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]
    for statuses, holds in ((running, True), (ended, False), ([], False)):
        status = {"phase": phase, "containerStatuses": statuses}
        assert pod({"nvidia.com/gpu": "1"}, status=status).holds_gpus is holds


def test_a_witness_is_known_by_name_or_by_its_namespace() -> None:
    pods = (Pod("gpu-operator", "a"), Pod("other", "b"))
    assert Witness("gpu-operator", "a").is_among(pods)
    assert Witness("gpu-operator").is_among(pods)
    assert not Witness("gpu-operator", "b").is_among(pods)
    assert not Witness("third").is_among(pods)
    assert not Witness("gpu-operator").is_among(())
