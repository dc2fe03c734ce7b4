# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Keys that Kubernetes gives a meaning: of taints, labels and annotations."""

from __future__ import annotations

COMPONENT = "nvidia-bmm-cloud-controller-manager"

# The kubelet sets it with --cloud-provider=external. Until it is gone no pod is scheduled that does not tolerate it.
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
SHUTDOWN_TAINT = {"key": SHUTDOWN, "effect": "NoSchedule"}

# What the kubelet was given as --node-ip: one address, or one of each family with a comma between.
PROVIDED_NODE_IP = "alpha.kubernetes.io/provided-node-ip"

INSTANCE_TYPE = "node.kubernetes.io/instance-type"
ZONE = "topology.kubernetes.io/zone"
REGION = "topology.kubernetes.io/region"
# Stable key to the beta key of the same meaning. Kubernetes' own controller writes both, and makes the stable one equal
# to the beta one when somebody changes either.
BETA = {
    INSTANCE_TYPE: "beta.kubernetes.io/instance-type",
    ZONE: "failure-domain.beta.kubernetes.io/zone",
    REGION: "failure-domain.beta.kubernetes.io/region",
}

INTERNAL_IP = "InternalIP"
HOSTNAME = "Hostname"
