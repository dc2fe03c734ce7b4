# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known of a node, cut out of its object as it comes: that of a GPU node has 20 KB of JSON."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

from .names import BETA, PROVIDED_NODE_IP, SHUTDOWN, UNINITIALIZED

LABELS = frozenset((*BETA, *BETA.values()))


class Address(NamedTuple):
    """An entry of status.addresses."""

    type: str
    address: str


class Node(NamedTuple):
    """``labels``: those of LABELS. ``taints``: keys, in order. ``created``: seconds since 1970, 0 if not told."""

    name: str
    uid: str
    version: str
    provider_id: str
    has_labels: bool
    labels: Mapping[str, str]
    taints: tuple[str, ...]
    provided_ip: str
    addresses: tuple[Address, ...]
    is_ready: bool
    created: float

    @property
    def is_uninitialized(self) -> bool:
        """It waits for us."""
        return UNINITIALIZED in self.taints

    @property
    def has_shutdown_taint(self) -> bool:
        """As it says."""
        return SHUTDOWN in self.taints

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Node:
        """Of a trimmed object or a whole one. Raises KeyError and the like for what is no node."""
        metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
        labels = metadata.get("labels") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            version=metadata["resourceVersion"],
            provider_id=spec.get("providerID") or "",
            has_labels=bool(labels),
            labels={key: labels[key] for key in LABELS & labels.keys()},
            taints=tuple(one["key"] for one in spec.get("taints") or []),
            provided_ip=(metadata.get("annotations") or {}).get(PROVIDED_NODE_IP, ""),
            addresses=tuple(Address(one["type"], one["address"]) for one in status.get("addresses") or []),
            is_ready=any(
                one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or []
            ),
            created=_seconds(metadata.get("creationTimestamp")),
        )


def trim(found: dict[str, Any]) -> dict[str, Any]:
    """What ``Node.of`` reads of a node, as an object of the same form."""
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    labels = metadata.get("labels") or {}
    kept = {key: labels[key] for key in LABELS & labels.keys()} or ({"": ""} if labels else {})
    annotations = metadata.get("annotations") or {}
    return {
        "metadata": {
            **{key: metadata.get(key) for key in ("name", "uid", "resourceVersion", "creationTimestamp")},
            "labels": kept,
            "annotations": {key: annotations[key] for key in (PROVIDED_NODE_IP,) if key in annotations},
        },
        "spec": {"providerID": spec.get("providerID"), "taints": spec.get("taints")},
        "status": {
            "addresses": status.get("addresses"),
            "conditions": [one for one in status.get("conditions") or [] if one.get("type") == "Ready"],
        },
    }


def _seconds(text: Any) -> float:
    with contextlib.suppress(ValueError, TypeError):
        return datetime.datetime.fromisoformat(text).timestamp()
    return 0.0
