# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Answers of hosts and nodes, as the modules give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import RegisteredInfo

NOW, LATELY, LONG_AGO = "2026-11-27T06:00:00Z", "2026-11-27T05:58:00Z", "2026-11-01T00:00:00Z"
BOOT = "0b5a9c1e-6d1f-4d0e-9d0b-4f8f7a0a3f11"


def device(address: str = "0000:17:00.0", mode: str | None = "on", **more: Any) -> dict[str, Any]:
    """An entry of cc_mode_info."""
    return {
        "address": address,
        "kind": "gpu",
        "name": "H100-SXM",
        "mode": mode,
        "pending_mode": mode,
        "settings_unproven": False,
        "knobs": {"CCM": 1, "CCD": 0},
        "firmware": "booted",
        "driver": "vfio-pci",
        "holders": [],
        "use": "free",
        "problem": None,
        **more,
    }


def held(address: str = "0000:17:00.0") -> dict[str, Any]:
    """A device that a virtual machine has."""
    holders = [{"address": address, "pid": 4711, "command": "qemu-system-x86", "file": "/dev/vfio/27"}]
    problem = {"cause": f"{address} is in use.", "remedy": "Stop it."}
    return device(address, None, pending_mode=None, use="used", holders=holders, problem=problem, knobs={})


def reading(*devices: Any) -> RegisteredInfo:
    return {"changed": False, "read_at": LATELY, "devices": list(devices)}


def readiness(*lacks: str) -> dict[str, Any]:
    rows = [{"requirement": "iommu", "state": "ok", "seen": "on", "remedy": ""}]
    rows += [{"requirement": one, "state": "missing", "seen": "nothing", "remedy": f"Mend {one}."} for one in lacks]
    return {"ready": not lacks, "requirements": rows, "missing": list(lacks), "unknown": []}


def trail(*records: Mapping[str, Any], name: str = "ansible", state: str = "whole", **more: Any) -> dict[str, Any]:
    """A result of audit_trail_info."""
    found = {"name": name, "state": state, "anchor": f"{len(records)} {'a' * 64}", "count": len(records)}
    return {"folder_exists": True, "trails": [{**found, "findings": [], "notes": [], "records": list(records), **more}]}


def change(address: str, after: str | None, by: str = "alice", at: str = LATELY, number: int = 1) -> dict[str, Any]:
    devices = [{"address": address, "kind": "gpu", "before": "off", "desired": "on", "after": after}]
    return {"event": "change", "number": number, "time": at, "asked": {"by": by}, "result": "done", "devices": devices}


def node(name: str, devices: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """As cluster.node_facts."""
    return {
        "name": name,
        "provider_id": "",
        "ready": True,
        "boot": BOOT,
        "wanted": "on",
        "wanted_devices": "",
        "state": "on",
        "ready_state": "true",
        "reason": "",
        "changing": "",
        "audit": "",
        "devices": dict(devices or {}),
        "published_by": "k8s-cc-manager",
        "published_at": LATELY,
        "asked": [{"key": "nvidia.com/cc.mode", "by": "kubectl-label", "at": LATELY}],
        "events": [],
        **more,
    }


def published(mode: str | None = "on", boot: str = BOOT, **more: Any) -> dict[str, Any]:
    return {"kind": "gpu", "name": "H100-SXM", "mode": mode, "boot": boot, **more}


def many(
    hosts: int, devices: int = 8, modes: Sequence[str] = ("on", "off", "devtools", "ppcie")
) -> dict[str, RegisteredInfo]:
    """Readings of a large fleet: host to result."""
    found = {}
    for number in range(hosts):
        of_host = [
            device(f"0000:{0x10 + place:02x}:00.0", modes[(number + place) % len(modes)] if place else "on")
            for place in range(devices)
        ]
        found[f"gpu-{number}"] = reading(*of_host)
    return found
