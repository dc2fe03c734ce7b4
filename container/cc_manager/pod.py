# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What matters of a pod: whose it is, and whether it has GPUs, or may have.

A pod gets devices in four ways: an extended resource of a device plugin, KubeVirt's host devices (an extended resource
under whatever name the cluster's administrator chose), a CDI annotation, and a ResourceClaim of dynamic resource
allocation. A hostPath of /dev, or a privileged container, says nothing: that a device is open shows on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import VENDOR

GONE_PHASES = ("Succeeded", "Failed")
CDI_PREFIX = "cdi.k8s.io/"
# KubeVirt's pod of one virtual machine; its own devices (kvm, tun, vhost-net, sev); and the variables that name the
# resources of its networks, by which an SR-IOV function of a network card is told from another device.
LAUNCHER_LABEL, LAUNCHER = "kubevirt.io", "virt-launcher"
KUBEVIRT_DEVICES = "devices.kubevirt.io/"
KUBEVIRT_NETWORK = "KUBEVIRT_RESOURCE_NAME_"
KUBERNETES = "kubernetes.io/"


@dataclass(frozen=True)
class Pod:
    """A pod.

    ``resources``: by what it has GPUs or NVSwitches: names of extended resources and of CDI devices. ``unclear``: by
    what it may have them; which device that is, the pod does not say.
    """

    namespace: str
    name: str
    uid: str = ""
    phase: str = ""
    deleting: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)
    daemon_set: str = ""  # the DaemonSet that owns it
    resources: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    running: bool = False  # a container runs, whatever the phase

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Pod:
        """From an API object."""
        metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
        owners = metadata.get("ownerReferences") or []
        return cls(
            metadata.get("namespace", ""),
            metadata["name"],
            metadata.get("uid", ""),
            status.get("phase", ""),
            metadata.get("deletionTimestamp") is not None,
            dict(spec.get("nodeSelector") or {}),
            next((owner["name"] for owner in owners if owner.get("kind") == "DaemonSet"), ""),
            tuple(sorted({*_vendors_resources(spec), *_cdi_devices(metadata)})),
            tuple(sorted({*_machines_devices(metadata, spec), *_claims(spec, status)})),
            any("running" in (one.get("state") or {}) for one in _container_statuses(status)),
        )

    @property
    def words(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def has_ended(self) -> bool:
        """True when no container of it runs any more, or ever will."""
        return self.phase in GONE_PHASES and not self.running

    @property
    def identity(self) -> str:
        """The same for as long as it is the same pod."""
        return self.uid or self.words

    @property
    def holds_gpus(self) -> bool:
        """True while the pod has, or may have, GPUs or NVSwitches: from being bound to the node until it has ended."""
        return bool(self.resources or self.unclear) and not self.has_ended

    @property
    def surely_holds_gpus(self) -> bool:
        """True while the pod has GPUs or NVSwitches for certain: one that may have others is not to be evicted."""
        return bool(self.resources) and not self.has_ended


def _vendors_resources(spec: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in _asked(spec) if _is_vendors(name.partition("/")[0]))


def _asked(spec: Mapping[str, Any]) -> Iterator[str]:
    """Names of the resources of which containers ask for more than nothing."""
    for one in (*_containers(spec), spec):
        asked = one.get("resources") or {}
        for kind in ("limits", "requests"):
            amounts = asked.get(kind) or {}
            yield from (name for name, amount in amounts.items() if str(amount) != "0")


def _containers(spec: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        yield from spec.get(kind) or []


def _container_statuses(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(kind) or []


def _is_vendors(domain: str) -> bool:
    return domain == VENDOR or domain.endswith("." + VENDOR)


def _cdi_devices(metadata: Mapping[str, Any]) -> Iterator[str]:
    """Of annotations cdi.k8s.io/...: 'nvidia.com/pgpu=0,nvidia.com/pgpu=1'."""
    for key, value in (metadata.get("annotations") or {}).items():
        if key.startswith(CDI_PREFIX):
            devices = (one.strip() for one in str(value).split(","))
            yield from (f"CDI {one}" for one in devices if _is_vendors(one.partition("/")[0]))


def _machines_devices(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[str]:
    """A virtual machine's host devices, whatever the cluster calls them."""
    if (metadata.get("labels") or {}).get(LAUNCHER_LABEL) != LAUNCHER:
        return
    networks = {
        variable.get("value")
        for container in _containers(spec)
        for variable in container.get("env") or []
        if str(variable.get("name", "")).startswith(KUBEVIRT_NETWORK)
    }
    for name in _asked(spec):
        domain, slash, _rest = name.partition("/")
        ours_or_kubernetes = _is_vendors(domain) or name.startswith((KUBEVIRT_DEVICES, KUBERNETES))
        if slash and not ours_or_kubernetes and name not in networks:
            yield name


def _claims(spec: Mapping[str, Any], status: Mapping[str, Any]) -> Iterator[str]:
    """ResourceClaims: which driver's they are, the pod does not say, and claims are not ours to read.

    A claim whose status stands there without a name was never made.
    """
    statuses = status.get("resourceClaimStatuses") or []
    never_made = {one.get("name") for one in statuses if not one.get("resourceClaimName")}
    for claim in spec.get("resourceClaims") or []:
        if claim.get("name") not in never_made:
            yield f"ResourceClaim {claim.get('name')}"
    extended = status.get("extendedResourceClaimStatus") or {}
    if extended:
        yield f"ResourceClaim {extended.get('resourceClaimName')}"


@dataclass(frozen=True)
class Witness:
    """The CC manager's own pod, which is on the node for as long as the CC manager works there.

    The name is not always known; then any pod of its namespace stands for it.
    """

    namespace: str
    name: str = ""

    @property
    def words(self) -> str:
        """What is looked for."""
        return f"the CC manager's own pod {self.namespace}/{self.name or '*'}"

    def is_among(self, pods: tuple[Pod, ...]) -> bool:
        """True when it is in a list."""
        return any(pod.namespace == self.namespace and self.name in ("", pod.name) for pod in pods)
