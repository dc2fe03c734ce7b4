# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Names that others know: labels, annotations, components. What the GPU Operator and Kata expect is in their words."""

from __future__ import annotations

MODES = ("off", "on", "devtools", "ppcie")
OFF, ON, DEVTOOLS, PPCIE = MODES
# What a device's mode can be beside those.
UNSUPPORTED = "unsupported"
INVALID = "invalid"
# A user's request for a device that shall not count.
NONE = "none"

# Labels of the node.
MODE_LABEL = "nvidia.com/cc.mode"  # the user's request
STATE_LABEL = "nvidia.com/cc.mode.state"
READY_LABEL = "nvidia.com/cc.ready.state"
FAILED = "failed"
MIXED = "mixed"

# Annotations of the node.
WANTED_ANNOTATION = "nvidia.com/cc.mode.devices-wanted"  # the user's requests for single devices
RETRY_ANNOTATION = "nvidia.com/cc.mode.retry"  # any other value than before: the user wants another attempt now
RETRIED_ANNOTATION = "nvidia.com/cc.mode.retried"  # the value of retry that what is published answers
CHANGING_ANNOTATION = "nvidia.com/cc.mode.changing"
REASON_ANNOTATION = "nvidia.com/cc.mode.reason"
DEVICES_ANNOTATION = "nvidia.com/cc.mode.devices"
JOURNAL_ANNOTATION = "nvidia.com/cc.mode.journal"
AUDIT_ANNOTATION = "nvidia.com/cc.mode.audit"  # number and hash of the last audit record
CORDONED_ANNOTATION = "nvidia.com/cc.mode.cordoned"  # the node was cordoned by the CC manager, which uncordons it

# The GPU Operator starts a component's pods on the nodes where its label is "true".
DEPLOY_PREFIX = "nvidia.com/gpu.deploy."
PAUSED = "paused-for-cc-mode-change"  # NVIDIA's k8s-cc-manager also writes <value>_paused-for-cc-mode-change
# Component to the DaemonSets that it stands for, in the GPU Operator's releases.
COMPONENTS = {
    "vfio-manager": ("nvidia-vfio-manager",),
    "vgpu-manager": ("nvidia-vgpu-manager-daemonset",),
    "vgpu-device-manager": ("nvidia-vgpu-device-manager",),
    "sandbox-validator": ("nvidia-sandbox-validator",),
    "sandbox-device-plugin": ("nvidia-sandbox-device-plugin-daemonset",),
    "kata-sandbox-device-plugin": ("nvidia-kata-sandbox-device-plugin-daemonset",),
}
COMPONENT_LABELS = {DEPLOY_PREFIX + component: names for component, names in COMPONENTS.items()}

# The domain of NVIDIA's names: extended resources (nvidia.com/pgpu), CDI kinds (k8s.device-plugin.nvidia.com/gpu).
VENDOR = "nvidia.com"
