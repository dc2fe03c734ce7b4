# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The requests that the operand makes of its cluster, by name."""

from __future__ import annotations

import time
import uuid
from typing import Any

from .kube import MERGE_PATCH, METADATA, METADATA_LIST, NOT_AN_OBJECT, ApiError, Kube
from .node import Node, Patch, Pod
from .watch import Resource

COMPONENT = "k8s-cc-manager"
EVENT_NAMESPACE = "default"  # of things without a namespace, as the kubelet does


class Cluster:
    """One node of a cluster, and the pods on it."""

    def __init__(self, kube: Kube, node_name: str) -> None:
        self._kube = kube
        self._node_name = node_name
        self._path = f"/api/v1/nodes/{node_name}"

    def node(self) -> Node:
        """The node as it is now. Raises ApiError."""
        return _node(self._kube.request("GET", self._path, accept=METADATA))

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node:
        """Patch the node; with a resource version only if it is still the newest (409 if not). Raises ApiError."""
        body = patch.body(resource_version)
        return _node(self._kube.request("PATCH", self._path, None, body, METADATA, MERGE_PATCH))

    def evict(self, pod: Pod) -> None:
        """Ask for the eviction of a pod. Raises ApiError: 429 when a disruption budget does not allow it now."""
        name = {"name": pod.name, "namespace": pod.namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
        self._kube.request("POST", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction", None, body)

    def event(self, kind: str, reason: str, message: str) -> None:
        """An Event on the node; ``kind`` is Normal or Warning. Raises ApiError."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{self._node_name}.{uuid.uuid4().hex[:16]}", "namespace": EVENT_NAMESPACE},
            # kubectl describe node looks for events whose uid is the node's name, as the kubelet's are.
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": self._node_name},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        self._kube.request("POST", f"/api/v1/namespaces/{EVENT_NAMESPACE}/events", None, body)

    def this_node(self) -> Resource:
        """For a watch of the node's metadata."""
        return Resource("/api/v1/nodes", {"fieldSelector": f"metadata.name={self._node_name}"}, METADATA_LIST, METADATA)

    def pods(self, namespace: str | None) -> Resource:
        """For a watch of the pods on this node, in one namespace or in all."""
        path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        return Resource(path, {"fieldSelector": f"spec.nodeName={self._node_name}"})


def _node(found: Any) -> Node:
    try:
        return Node.of(found)
    except NOT_AN_OBJECT as error:
        raise ApiError(0, f"the answer is no node: {str(found)[:200]}") from error
