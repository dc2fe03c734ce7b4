# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the operand sees of its node and of pods, and the patches it makes: minimal merge patches of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import RESOURCE_PREFIX

GONE_PHASES = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Node:
    """The metadata of a node at one resource version."""

    name: str
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False  # known from a whole object only

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Node:
        """From an API object, whole or with its metadata only."""
        metadata, spec = found["metadata"], found.get("spec") or {}
        return cls(
            metadata["name"],
            metadata.get("resourceVersion", ""),
            dict(metadata.get("labels") or {}),
            dict(metadata.get("annotations") or {}),
            spec.get("unschedulable") is True,
        )


@dataclass(frozen=True)
class Patch:
    """Labels and annotations to set; None removes one. ``unschedulable``: to cordon or uncordon; None: as it is."""

    labels: Mapping[str, str | None] = field(default_factory=dict)
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    unschedulable: bool | None = None

    def __bool__(self) -> bool:
        return bool(self.labels or self.annotations or self.unschedulable is not None)

    def items(self) -> list[tuple[str, str | None]]:
        """The keys of labels and annotations with their values; no key is both."""
        return [*self.labels.items(), *self.annotations.items()]

    def beyond(self, node: Node) -> Patch:
        """What of it the node does not have yet."""
        return Patch(_beyond(self.labels, node.labels), _beyond(self.annotations, node.annotations))

    def body(self, resource_version: str | None = None) -> dict[str, Any]:
        """The merge patch; with a resource version it is refused (409) when the node has changed since."""
        metadata: dict[str, Any] = {}
        if resource_version:
            metadata["resourceVersion"] = resource_version
        if self.labels:
            metadata["labels"] = dict(self.labels)
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        if self.unschedulable is None:
            return {"metadata": metadata}
        return {"metadata": metadata, "spec": {"unschedulable": self.unschedulable or None}}


def _beyond(wanted: Mapping[str, str | None], found: Mapping[str, str]) -> dict[str, str | None]:
    return {key: value for key, value in wanted.items() if found.get(key) != value}


@dataclass(frozen=True)
class Pod:
    """What matters of a pod."""

    namespace: str
    name: str
    uid: str = ""
    phase: str = ""
    deleting: bool = False
    node_selector: Mapping[str, str] = field(default_factory=dict)
    daemon_set: str = ""  # the DaemonSet that owns it
    resources: tuple[str, ...] = ()  # NVIDIA's extended resources that it holds

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Pod:
        """From an API object."""
        metadata, spec = found["metadata"], found.get("spec") or {}
        owners = metadata.get("ownerReferences") or []
        return cls(
            metadata.get("namespace", ""),
            metadata["name"],
            metadata.get("uid", ""),
            (found.get("status") or {}).get("phase", ""),
            metadata.get("deletionTimestamp") is not None,
            dict(spec.get("nodeSelector") or {}),
            next((owner["name"] for owner in owners if owner.get("kind") == "DaemonSet"), ""),
            tuple(sorted(_resources(spec))),
        )

    @property
    def words(self) -> str:
        """namespace/name."""
        return f"{self.namespace}/{self.name}"

    @property
    def identity(self) -> str:
        """The same for as long as it is the same pod."""
        return self.uid or self.words

    @property
    def holds_gpus(self) -> bool:
        """True while the pod has GPUs or NVSwitches: from being bound to the node until it has ended."""
        return bool(self.resources) and self.phase not in GONE_PHASES


def _resources(spec: Mapping[str, Any]) -> set[str]:
    names: set[str] = set()
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        asked = container.get("resources") or {}
        for kind in ("limits", "requests"):
            amounts = asked.get(kind) or {}
            names |= {name for name in amounts if name.startswith(RESOURCE_PREFIX) and str(amounts[name]) != "0"}
    return names
