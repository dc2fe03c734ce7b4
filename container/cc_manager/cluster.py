# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The requests that the CC manager makes of its cluster, by name."""

from __future__ import annotations

from typing import Any

from kube.client import MERGE_PATCH, METADATA, METADATA_LIST, NOT_AN_OBJECT, ApiError, Kube
from kube.events import Events, Subject
from kube.watch import Resource

from .node import Node, Patch
from .pod import Pod, Witness

# Who Events are from.
COMPONENT = "k8s-cc-manager"


class Cluster:
    """One node of a cluster, and the pods on it, of which those in ``namespace`` are the components'.

    ``witness``: the pod that has to be in a list that is to be believed; None: nothing is known of one.
    """

    def __init__(self, kube: Kube, node_name: str, namespace: str = "", witness: Witness | None = None) -> None:
        self._kube = kube
        self._node_name = node_name
        self._namespace = namespace
        self._witness = witness
        self._path = f"/api/v1/nodes/{node_name}"
        self._events = Events(kube, COMPONENT, node_name)

    def node(self) -> Node:
        """The whole node as it is now, read from where it is stored. Raises ApiError."""
        return _node(self._kube.request("GET", self._path))

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node:
        """Patch the node; with a resource version only if it is still the newest (409 if not). Raises ApiError.

        The answer is the node's metadata: whether it is cordoned is not in it.
        """
        body = patch.body(resource_version)
        return _node(self._kube.request("PATCH", self._path, None, body, METADATA, MERGE_PATCH))

    def cordon(self, on: bool, resource_version: str | None = None) -> Node:
        """Let no new pods come to the node, or let them come again; the whole node. Raises ApiError."""
        body: dict[str, Any] = {"spec": {"unschedulable": True if on else None}}
        if resource_version:
            body["metadata"] = {"resourceVersion": resource_version}
        return _node(self._kube.request("PATCH", self._path, None, body, content_type=MERGE_PATCH))

    def pods(self) -> tuple[Pod, ...]:
        """The pods of all namespaces on this node as they are now, read from where they are stored.

        Raises ApiError: also when the list cannot be true, because the CC manager's own pod is not in it.
        """
        return self._pods(None)

    def components_pods(self) -> tuple[Pod, ...]:
        """As ``pods``, those in the components' namespace."""
        return self._pods(self._namespace)

    def evict(self, pod: Pod) -> None:
        """Ask for the eviction of a pod. Raises ApiError: 429 when a disruption budget does not allow it now."""
        name = {"name": pod.name, "namespace": pod.namespace}
        body: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
        if pod.uid:  # and not of another pod that has its name by now
            body["deleteOptions"] = {"preconditions": {"uid": pod.uid}}
        self._kube.request("POST", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction", None, body)

    def event(self, kind: str, reason: str, message: str) -> None:
        """An Event on the node; ``kind`` is Normal or Warning. An equal one counts up. Raises ApiError."""
        self._events.tell(Subject.node(self._node_name), kind, reason, message)

    def this_node(self) -> Resource:
        """For a watch of the node's metadata."""
        return Resource("/api/v1/nodes", {"fieldSelector": f"metadata.name={self._node_name}"}, METADATA_LIST, METADATA)

    def pods_resource(self, namespace: str | None) -> Resource:
        """For a watch of the pods on this node, in one namespace or in all."""
        path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
        return Resource(path, {"fieldSelector": f"spec.nodeName={self._node_name}"})

    def doubt(self, namespace: str | None, pods: tuple[Pod, ...]) -> str:
        """Why a list of the pods of a namespace, or of all (None), cannot be true; empty: nothing speaks against it."""
        if self._witness is None or namespace not in (None, self._witness.namespace):
            return ""
        return "" if self._witness.is_among(pods) else f"The list of pods lacks {self._witness.words}."

    def _pods(self, namespace: str | None) -> tuple[Pod, ...]:
        resource = self.pods_resource(namespace)
        found, _version = self._kube.items(resource.path, resource.query)
        try:
            pods = tuple(Pod.of(one) for one in found)
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"the answer is no list of pods: {type(error).__name__}") from error
        doubt = self.doubt(namespace, pods)
        if doubt:
            raise ApiError(0, doubt)
        return pods


def _node(found: Any) -> Node:
    try:
        return Node.of(found)
    except NOT_AN_OBJECT as error:
        raise ApiError(0, f"the answer is no node: {type(error).__name__}") from error
