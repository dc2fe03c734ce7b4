# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the GPU Operator runs on a node, with its names, labels, selectors, mounts, rights and limits.

Source: NVIDIA's GPU Operator, main, August 2026. The containers only wait, and end when they are told to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import BUSYBOX

Manifest = dict[str, Any]
NAMESPACE = "gpu-operator"
MANAGER = "nvidia-cc-manager"
IMAGE = "localhost/cc-manager:dev"
READINESS_FILE = "/run/nvidia/validations/.cc-manager-ctr-ready"
DEPLOY = "nvidia.com/gpu.deploy."
# As a program that handles its signals: what a real component does within its grace period is not measured here.
WAIT = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"]
TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def component(
    deploy: str, name: str, label: str, init: Mapping[str, str] | None = None, grace_s: int = 30, pre_stop: bool = False
) -> Manifest:
    """A component's DaemonSet. ``init``: name of each init container, and the shell command that it runs."""
    labels = {label: name}
    container: Manifest = {"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": WAIT}
    if pre_stop:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "true"]}}}
    mounts = [{"name": "run-nvidia", "mountPath": "/run/nvidia"}]
    inits = [
        {
            "name": key,
            "image": BUSYBOX,
            "imagePullPolicy": "Never",
            "command": ["/bin/sh", "-c", command],
            "volumeMounts": mounts,
        }
        for key, command in (init or {}).items()
    ]
    return _daemonset(
        name,
        labels,
        {
            "nodeSelector": {DEPLOY + deploy: "true"},
            "tolerations": TOLERATIONS,
            "terminationGracePeriodSeconds": grace_s,
            "initContainers": inits,
            "containers": [container],
            "volumes": [{"name": "run-nvidia", "hostPath": {"path": "/run/nvidia"}}],
        },
    )


def deploy_label(daemonset: Manifest) -> str:
    """The node's label that starts a component."""
    (label,) = daemonset["spec"]["template"]["spec"]["nodeSelector"]
    return str(label)


def manager(environment: Mapping[str, str], default_mode: str = "off") -> list[Manifest]:
    """The manager as the GPU Operator deploys it, with ccManager.env; the rights are all that it gives."""
    env: list[Manifest] = [{"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]
    plain = {"NVIDIA_VISIBLE_DEVICES": "void", "DEFAULT_CC_MODE": default_mode, **environment}
    env += [{"name": name, "value": value} for name, value in plain.items()]
    container = {
        "name": MANAGER,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "env": env,
        "securityContext": {"privileged": True},
        "resources": {"limits": {"memory": "200Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}},
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/rm", "-f", READINESS_FILE]}}},
        "volumeMounts": [{"name": "host-sys", "mountPath": "/sys"}, {"name": "run-nvidia", "mountPath": "/run/nvidia"}],
    }
    pod = {
        "serviceAccountName": MANAGER,
        "nodeSelector": {DEPLOY + "cc-manager": "true"},
        "tolerations": TOLERATIONS,
        "priorityClassName": "system-node-critical",
        "containers": [container],
        "volumes": [
            {"name": "host-sys", "hostPath": {"path": "/sys", "type": "Directory"}},
            {"name": "run-nvidia", "hostPath": {"path": "/run/nvidia", "type": "DirectoryOrCreate"}},
        ],
    }
    return [*_rights(), _daemonset(MANAGER, {"name": MANAGER}, pod)]


def namespace(name: str = NAMESPACE) -> Manifest:
    """A namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def virtual_machine(name: str, resource: str = "nvidia.com/pgpu") -> Manifest:
    """A pod that has a GPU, as Kata's virtual machines have them."""
    limits = {resource: "1"}
    container = {
        "name": "vm",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": WAIT,
        "resources": {"limits": limits},
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": 5}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _rights() -> list[Manifest]:
    node_rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]}]
    pod_rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    inside = {"name": MANAGER, "namespace": NAMESPACE}
    group = "rbac.authorization.k8s.io"
    subjects = [{"kind": "ServiceAccount", **inside}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": inside},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": MANAGER}, "rules": node_rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": MANAGER},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": MANAGER},
            "subjects": subjects,
        },
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": inside, "rules": pod_rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": inside,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": MANAGER},
            "subjects": subjects,
        },
    ]


def _daemonset(name: str, labels: Mapping[str, str], pod: Manifest) -> Manifest:
    template = {"metadata": {"labels": dict(labels)}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"matchLabels": dict(labels)}, "template": template},
    }


# The validator's first step waits for the manager; so does the real one on nodes with nvidia.com/cc.capable.
WAIT_FOR_MANAGER = f"trap 'exit 0' TERM; until [ -f {READINESS_FILE} ]; do sleep 1 & wait; done"
VFIO_MANAGER = component("vfio-manager", "nvidia-vfio-manager", "name", {"k8s-driver-manager": "true"}, pre_stop=True)
VALIDATOR = component(
    "sandbox-validator",
    "nvidia-sandbox-validator",
    "app",
    {"cc-manager-validation": WAIT_FOR_MANAGER, "vfio-pci-validation": "true"},
    pre_stop=True,
)
KATA_PLUGIN = component(
    "kata-sandbox-device-plugin", "nvidia-kata-sandbox-device-plugin-daemonset", "app", {"vfio-pci-validation": "true"}
)
SANDBOX_PLUGIN = component("sandbox-device-plugin", "nvidia-sandbox-device-plugin-daemonset", "app")
VGPU_MANAGER = component("vgpu-manager", "nvidia-vgpu-manager-daemonset", "app", grace_s=120)
VGPU_DEVICE_MANAGER = component("vgpu-device-manager", "nvidia-vgpu-device-manager", "app")
# In the mode kata, which is when the GPU Operator deploys the manager.
KATA = (VFIO_MANAGER, VALIDATOR, KATA_PLUGIN)
EVERY = (*KATA, SANDBOX_PLUGIN, VGPU_MANAGER, VGPU_DEVICE_MANAGER)
