# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The DaemonSets of the GPU Operator on one node: pods come and go with the node's labels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .store import Change, Object, Refusal, Store

NAMESPACE = "gpu-operator"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
NODES = "/api/v1/nodes"
PREFIX = "nvidia.com/gpu.deploy."
# As the GPU Operator makes them: component, DaemonSet, and the labels of its pods.
DAEMON_SETS = {
    "vfio-manager": ("nvidia-vfio-manager", {"name": "nvidia-vfio-manager"}),
    "sandbox-validator": ("nvidia-sandbox-validator", {"app": "nvidia-sandbox-validator"}),
    "sandbox-device-plugin": (
        "nvidia-sandbox-device-plugin-daemonset",
        {"app": "nvidia-sandbox-device-plugin-daemonset"},
    ),
    "kata-sandbox-device-plugin": (
        "nvidia-kata-sandbox-device-plugin-daemonset",
        {"app": "nvidia-kata-sandbox-device-plugin-daemonset"},
    ),
}
Later = Callable[[float, Callable[[], None]], None]


def in_a_timer(delay_s: float, work: Callable[[], None]) -> None:
    """Do it later, in a thread."""
    timer = threading.Timer(delay_s, work)
    timer.daemon = True
    timer.start()


class DaemonSets:
    """Their controller and the node's kubelet. ``grace_s``: how long a pod takes to end."""

    def __init__(self, store: Store, node: str, grace_s: float = 0.1, later: Later = in_a_timer) -> None:
        self._store = store
        self._node = node
        self._grace_s = grace_s
        self._later = later
        self.stuck: set[str] = set()  # components whose pods do not end
        self._count = 0
        store.listeners.append(self._seen)
        self.sync()

    def _seen(self, change: Change) -> None:
        if change.collection == NODES or (change.collection == PODS and change.kind == "DELETED"):
            self.sync()

    def sync(self) -> None:
        """Make pods for the labels that are "true", end the others."""
        labels = self._store.get(NODES, self._node)["metadata"].get("labels") or {}
        for component in DAEMON_SETS:
            pods = self.pods(component)
            if labels.get(PREFIX + component) == "true":
                if not pods:
                    self._make(component)
            else:
                for pod in pods:
                    self._end(component, pod)

    def pods(self, component: str) -> list[Object]:
        """The component's pods, also those that are ending."""
        name = DAEMON_SETS[component][0]
        found, _version = self._store.list(PODS, {})
        return [one for one in found if one["metadata"]["ownerReferences"][0]["name"] == name]

    def _make(self, component: str) -> None:
        name, labels = DAEMON_SETS[component]
        self._count += 1
        pod: dict[str, Any] = {
            "metadata": {
                "name": f"{name}-{self._count}",
                "namespace": NAMESPACE,
                "labels": labels,
                "ownerReferences": [{"kind": "DaemonSet", "name": name, "controller": True}],
            },
            "spec": {"nodeName": self._node, "nodeSelector": {PREFIX + component: "true"}},
            "status": {"phase": "Running"},
        }
        self._store.create(PODS, pod)

    def _end(self, component: str, pod: Object) -> None:
        if "deletionTimestamp" in pod["metadata"]:
            return
        name = pod["metadata"]["name"]
        self._store.patch(PODS, name, {"metadata": {"deletionTimestamp": "now"}})
        if component not in self.stuck:
            self._later(self._grace_s, lambda: self.gone(name))

    def gone(self, name: str) -> None:
        """A pod has ended."""
        try:
            self._store.delete(PODS, name)
        except Refusal:
            return


def node(name: str, **labels: str) -> Object:
    """A node with these labels (dots and slashes by their names elsewhere: pass a mapping with **)."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels), "annotations": {}}}
