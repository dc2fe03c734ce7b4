# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the CC manager sees of its node, and the patches it makes: minimal merge patches of metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .names import MODE_LABEL, WANTED_ANNOTATION

NOT_OURS = (KeyError, TypeError, AttributeError)


class Writer(NamedTuple):
    """Who has set a label or annotation, by the name that its program gave itself, and when (UTC)."""

    key: str
    by: str
    at: str


@dataclass(frozen=True)
class Node:
    """A node at one resource version.

    ``unschedulable``: cordoned. Only a whole node tells (``Cluster.node``, ``Cluster.cordon``), metadata does not.
    """

    name: str
    resource_version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    writers: tuple[Writer, ...] = ()  # of what the user asks for

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Node:
        """From an API object, whole or with its metadata only."""
        metadata = found["metadata"]
        return cls(
            metadata["name"],
            metadata.get("resourceVersion", ""),
            dict(metadata.get("labels") or {}),
            dict(metadata.get("annotations") or {}),
            bool((found.get("spec") or {}).get("unschedulable", False)),
            _writers(metadata.get("managedFields") or ()),
        )


def _writers(fields: Any) -> tuple[Writer, ...]:
    """Those of the managed fields that have set the desired mode."""
    found = []
    for entry in fields:
        for section, key in (("f:labels", MODE_LABEL), ("f:annotations", WANTED_ANNOTATION)):
            try:
                if "f:" + key in entry["fieldsV1"]["f:metadata"][section]:
                    found.append(Writer(key, str(entry.get("manager", "")), str(entry.get("time", ""))))
            except NOT_OURS:
                continue
    return tuple(found)


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
