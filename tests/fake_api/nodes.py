# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes: what the API server refuses of them, and such as a kubelet registers with an external cloud provider."""

from __future__ import annotations

import re
from typing import Any

from .faults import Refusal
from .store import Object

NODES = "/api/v1/nodes"
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")


def rules(collection: str, before: Object | None, after: Object) -> None:
    """Raises 422 for what a real API server does not take."""
    if collection != NODES:
        return
    for key, value in (after["metadata"].get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not LABEL.fullmatch(value):
            raise Refusal(422, f"metadata.labels: Invalid value: {key}={value!r}")
    if before is None:
        return
    if before["metadata"]["uid"] != after["metadata"]["uid"]:
        raise Refusal(422, "metadata.uid: field is immutable")
    known = (before.get("spec") or {}).get("providerID")
    if known and known != (after.get("spec") or {}).get("providerID"):
        raise Refusal(422, "spec.providerID: Forbidden: node updates may not change providerID except from empty")
    taints = [(one["key"], one["effect"]) for one in (after.get("spec") or {}).get("taints") or []]
    if len(set(taints)) != len(taints):
        raise Refusal(422, "spec.taints: Duplicate value")


def registered(name: str, *, ready: bool = True, provider_id: str = "", node_ip: str = "", **more: Any) -> Object:
    """A node as a kubelet makes it: tainted, with its Hostname, and with --node-ip where it was given one."""
    addresses = [{"type": "InternalIP", "address": one} for one in node_ip.split(",") if one]
    annotations = {"alpha.kubernetes.io/provided-node-ip": node_ip} if node_ip else {}
    spec: dict[str, Any] = {"taints": [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]}
    if provider_id:
        spec["providerID"] = provider_id
    made: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, **more.get("labels", {})},
            "annotations": annotations,
        },
        "spec": {**spec, **more.get("spec", {})},
        "status": {
            "addresses": [*addresses, {"type": "Hostname", "address": name}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}],
        },
    }
    return made
