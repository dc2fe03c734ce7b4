# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Values for NVIDIA's Helm chart nvidia-device-plugin, from configurations that were checked.

Facts: the chart of k8s-device-plugin 0.20.0. With configurations in its ConfigMap it cannot know whether one of them is
about MIG, and gives its containers SYS_ADMIN, unless securityContext and migStrategy are set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

# Modes of a host that gives its GPUs to confidential virtual machines: its own driver has none of them.
CONFIDENTIAL = ("on", "devtools", "ppcie")
STATE_LABEL = "nvidia.com/cc.mode.state"
# node-feature-discovery labels PCI devices by class and vendor, as it comes (the first two). The third it makes only as
# NVIDIA's chart or the GPU Operator configures it, and NVIDIA's chart asks for no other. The last is an operator's own.
NODE_LABELS = (
    "feature.node.kubernetes.io/pci-0302_10de.present",
    "feature.node.kubernetes.io/pci-0300_10de.present",
    "feature.node.kubernetes.io/pci-10de.present",
    "nvidia.com/gpu.present",
)
Config = Mapping[str, Any]


def values(
    configs: Mapping[str, Config], default: str, node_labels: Sequence[str], runtime_class: str
) -> dict[str, Any]:
    """For the chart. ``configs``: by name, which a node's label nvidia.com/device-plugin.config chooses."""
    made: dict[str, Any] = {
        "config": {
            "map": {name: yaml.safe_dump(config, sort_keys=False) for name, config in configs.items()},
            "default": default,
        },
        "affinity": _affinity(node_labels),
        # Of the init container too, for which the chart has no context of its own.
        "podSecurityContext": {"runAsUser": 0, "runAsGroup": 0, "seccompProfile": {"type": "RuntimeDefault"}},
        "securityContext": _context(configs.values()),
    }
    if runtime_class:
        made["runtimeClassName"] = runtime_class
    # What the chart sets by the environment goes before the file: only what is the same in all of them. It mounts
    # the folder of this value, and no other.
    for key, where in (("migStrategy", "migStrategy"), ("nvidiaDriverRoot", "nvidiaDriverRoot")):
        default_value = "none" if key == "migStrategy" else None
        found = {_flags(config).get(key, default_value) for config in configs.values()}
        if len(found) == 1 and found != {None}:
            made[where] = found.pop()
    return made


def driver_roots(configs: Mapping[str, Config]) -> set[str]:
    """Folders of drivers that configurations name; the chart can mount one."""
    return {_flags(config).get("nvidiaDriverRoot", "/") for config in configs.values()}


def _flags(config: Config) -> Mapping[str, Any]:
    flags: Mapping[str, Any] = config.get("flags", {})
    return flags


def _affinity(labels: Sequence[str]) -> dict[str, Any]:
    """One of the labels, and no host of confidential virtual machines. A node without the CC manager has no state."""
    not_confidential = {"key": STATE_LABEL, "operator": "NotIn", "values": list(CONFIDENTIAL)}
    terms = [
        {"matchExpressions": [{"key": label, "operator": "In", "values": ["true"]}, not_confidential]}
        for label in labels
    ]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _context(configs: Any) -> dict[str, Any]:
    """The kubelet's folder is root's, and what root owns it can use without a capability."""
    context: dict[str, Any] = {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if any(_needs_sys_admin(config) for config in configs):
        # Kubernetes refuses a context with this capability that forbids escalation.
        context["capabilities"]["add"] = ["SYS_ADMIN"]
    else:
        context["allowPrivilegeEscalation"] = False
    return context


def _needs_sys_admin(config: Config) -> bool:
    """MIG's monitor is the administrator's; with volume-mounts NVIDIA's runtime believes privileged containers only."""
    strategies = _flags(config).get("plugin", {}).get("deviceListStrategy", [])
    return _flags(config).get("migStrategy", "none") != "none" or "volume-mounts" in strategies
