# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The requests that are made of the cluster, by name. Raises ApiError."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cc_manager import components
from cc_manager.names import RETRY_ANNOTATION, STATE_LABEL
from cc_manager.pod import Pod
from kube.client import MERGE_PATCH, NOT_AN_OBJECT, ApiError, Kube
from kube.watch import Resource

from .names import NAMESPACE, RECORD
from .node import Node, Object, trimmer

NODES = "/api/v1/nodes"
PAGE = 500
Limit = Callable[[], float]


def patient() -> float:
    """Seconds that a request may take which nobody else may make at the same time: as long as any."""
    return 30.0


class Cluster:
    """``limit``: seconds that a write may take; raises when this process may not write any more."""

    def __init__(self, kube: Kube, namespace: str = NAMESPACE, limit: Limit = patient) -> None:
        self.kube = kube
        self.namespace = namespace
        self._limit = limit
        self._records = f"/api/v1/namespaces/{namespace}/configmaps"

    # --- nodes --------------------------------------------------------------------------------------------------------

    def nodes(self, selector: str = "", keep: tuple[str, ...] | None = None) -> dict[str, Node]:
        """Those that a label selector selects, by name."""
        query = {"labelSelector": selector} if selector else {}
        found, _version = self.kube.items(NODES, query, trim=trimmer(keep), limit=PAGE)
        return {node.name: node for node in map(_node, found)}

    def node(self, name: str) -> Node:
        """One, with all that is said of it. 404: there is none."""
        return _node(self.kube.request("GET", f"{NODES}/{name}"))

    def patch(self, name: str, body: Mapping[str, Any]) -> Node:
        """Its merge patch. 409: it holds for another version."""
        found = self.kube.request(
            "PATCH", f"{NODES}/{name}", None, body, content_type=MERGE_PATCH, timeout_s=self._limit()
        )
        return _node(found)

    def retry(self, name: str, word: str) -> Node:
        """Ask a node's CC manager for another attempt."""
        return self.patch(name, {"metadata": {"annotations": {RETRY_ANNOTATION: word}}})

    def users(self, name: str) -> list[Pod]:
        """The pods that hold, or may hold, GPUs of a node."""
        return components.users(self.pods(name))

    def pods(self, name: str) -> list[Pod]:
        """All pods of a node."""
        found, _version = self.kube.items("/api/v1/pods", {"fieldSelector": f"spec.nodeName={name}"})
        try:
            return [Pod.of(one) for one in found]
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"the answer is no list of pods: {type(error).__name__}") from error

    @staticmethod
    def resource(selector: str = STATE_LABEL, keep: tuple[str, ...] | None = None) -> Resource:
        """For a watch of nodes."""
        query = {"labelSelector": selector} if selector else {}
        return Resource(NODES, query, trim=trimmer(keep), page=PAGE)

    # --- the record ---------------------------------------------------------------------------------------------------

    def record(self) -> Object | None:
        """The ConfigMap; None: there is none."""
        try:
            return self.kube.request("GET", f"{self._records}/{RECORD}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, body: Object) -> Object:
        """The ConfigMap. 409: there is one."""
        return self.kube.request("POST", self._records, None, body)

    def replace(self, body: Object) -> Object:
        """The whole of it. 409: it has changed since."""
        return self.kube.request("PUT", f"{self._records}/{RECORD}", None, body)

    def patch_record(self, body: Object) -> Object:
        """A merge patch of it. 409: it has changed since."""
        path = f"{self._records}/{RECORD}"
        return self.kube.request("PATCH", path, None, body, content_type=MERGE_PATCH, timeout_s=self._limit())

    def records(self) -> Resource:
        """For a watch of it."""
        return Resource(self._records, {"fieldSelector": f"metadata.name={RECORD}"}, name=RECORD)


def _node(found: Object) -> Node:
    try:
        return Node.of(found)
    except NOT_AN_OBJECT as error:
        raise ApiError(0, f"the answer is no node: {type(error).__name__}") from error
