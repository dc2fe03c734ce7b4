# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Names that others see: the annotation on nodes, the objects in which a rollout is kept."""

from __future__ import annotations

AGENT = "kubectl-cc"
# Annotation of a node: which rollout has it, for which mode, and how far it is.
ROLLOUT_ANNOTATION = "nvidia.com/cc.rollout"
# The ConfigMap with the plan and how it stands, and the Lease of whoever works on it.
RECORD = "nvidia-cc-rollout"
NAMESPACE = "kube-system"
ZONE = "topology.kubernetes.io/zone"

# What a rollout does about pods that hold GPUs.
REFUSE, WAIT, DRAIN = "refuse", "wait", "drain"

# Exit statuses.
DONE, FAILED, USAGE, PAUSED = 0, 1, 2, 3
