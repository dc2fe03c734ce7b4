# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a cluster's nodes say of their GPUs, taken out of the API's objects. Pure."""

from __future__ import annotations

import json
from typing import Any, Iterable, Mapping, Optional

MODE = "nvidia.com/cc.mode"
STATE = "nvidia.com/cc.mode.state"
READY = "nvidia.com/cc.ready.state"
CAPABLE = "nvidia.com/cc.capable"
WANTED = "nvidia.com/cc.mode.devices-wanted"
DEVICES = "nvidia.com/cc.mode.devices"
REASON = "nvidia.com/cc.mode.reason"
CHANGING = "nvidia.com/cc.mode.changing"
AUDIT = "nvidia.com/cc.mode.audit"
COMPONENT = "k8s-cc-manager"
NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def concerns(node: Mapping[str, Any]) -> bool:
    """Whether a node has GPUs that somebody looks after, or shall."""
    metadata = node.get("metadata") or {}
    keys = {*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})}
    return bool(keys & {MODE, STATE, DEVICES, WANTED}) or (metadata.get("labels") or {}).get(CAPABLE) == "true"


def node_facts(node: Mapping[str, Any], events: Iterable[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """A node as plain data: who it is, what is asked of it, by whom, and what its manager says.

    ``published_at``: when the manager last wrote what it had read; it writes nothing while it reads the same again.
    """
    metadata = node["metadata"]
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    fields = metadata.get("managedFields") or []
    by, at = _writer(fields, "f:annotations", DEVICES)
    return {
        "name": metadata["name"],
        "provider_id": (node.get("spec") or {}).get("providerID") or "",
        "ready": _is_ready(node),
        "boot": ((node.get("status") or {}).get("nodeInfo") or {}).get("bootID", ""),
        "wanted": labels.get(MODE, ""),
        "wanted_devices": notes.get(WANTED, ""),
        "state": labels.get(STATE, ""),
        "ready_state": labels.get(READY, ""),
        "reason": notes.get(REASON, ""),
        "changing": notes.get(CHANGING, ""),
        "audit": notes.get(AUDIT, ""),
        "devices": _devices(notes.get(DEVICES)),
        "published_by": by,
        "published_at": at,
        "asked": _asked(fields),
        "events": [_event(one) for one in events],
    }


def _is_ready(node: Mapping[str, Any]) -> Optional[bool]:
    """The kubelet's word; None: there is none."""
    for one in (node.get("status") or {}).get("conditions") or []:
        if one.get("type") == "Ready":
            return bool(one.get("status") == "True")
    return None


def _writer(fields: Iterable[Any], section: str, key: str) -> tuple[str, str]:
    """The manager that has written a label or annotation, and when it last wrote anything of what it manages."""
    found = ("", "")
    for entry in fields:
        try:
            if "f:" + key in entry["fieldsV1"]["f:metadata"][section]:
                found = max(found, (str(entry.get("manager", "")), str(entry.get("time", ""))), key=lambda one: one[1])
        except NOT_OURS:
            continue
    return found


def _asked(fields: Iterable[Any]) -> list[dict[str, str]]:
    """Who has set the label and the annotation of the desired mode, and when."""
    rows = []
    for section, key in (("f:labels", MODE), ("f:annotations", WANTED)):
        by, at = _writer(fields, section, key)
        if by or at:
            rows.append({"key": key, "by": by, "at": at})
    return rows


def _devices(text: Optional[str]) -> dict[str, dict[str, Any]]:
    """Address to what was published of it; nothing of an annotation that is not ours."""
    try:
        found = json.loads(text or "{}")
        return {str(address): dict(entry) for address, entry in found.items()}
    except NOT_OURS:
        return {}


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "time": event.get("lastTimestamp") or event.get("eventTime") or "",
        "type": event.get("type", ""),
        "reason": event.get("reason", ""),
        "message": event.get("message", ""),
        "count": event.get("count", 1),
        "by": (event.get("source") or {}).get("component") or event.get("reportingComponent") or "",
    }


def is_ours(event: Mapping[str, Any]) -> bool:
    """An Event of the manager about a node."""
    component = (event.get("source") or {}).get("component") or event.get("reportingComponent")
    return component == COMPONENT and (event.get("involvedObject") or {}).get("kind") == "Node"
