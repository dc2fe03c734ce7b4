# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The requests that this program makes of its cluster. Every write asks first whether this process leads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from kube.client import JSON, MERGE_PATCH, NOT_AN_OBJECT, ApiError, Kube
from kube.events import Events, Subject
from kube.lease import Lost
from kube.watch import Resource

from . import node as nodes
from .changes import Operations, address_patch
from .names import COMPONENT
from .node import Address, Node
from .problems import Problems

NODES = "/api/v1/nodes"
# Fewer, larger answers: a node is cut as it comes.
PAGE = 500
JSON_PATCH = "application/json-patch+json"
ALL_NODES = Resource(NODES, trim=nodes.trim, page=PAGE)


class Cluster:
    """Of a leader: ``leads`` returns the seconds that a write may take, or raises kube.lease.Lost."""

    def __init__(
        self, kube: Kube, identity: str, leads: Callable[[], float], problems: Problems, pace: Callable[[], None]
    ) -> None:
        self._kube = kube
        self._leads = leads
        self._problems = problems
        self._pace = pace
        self._writing = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._events = Events(_Leading(self), COMPONENT, identity)

    def write(self, right: str, method: str, path: str, body: Any, content_type: str) -> dict[str, Any]:
        """Raises ApiError, Lost."""
        self._pace()
        try:
            with self._counted():
                found = self._kube.request(method, path, None, body, content_type=content_type, timeout_s=self._leads())
        except ApiError as error:
            self._problems.refused(right, error)
            raise
        self._problems.over(right)
        return found

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            if self._is_closed:
                raise Lost("This process ends.")
            self._writing += 1
        try:
            yield
        finally:
            with self._changed:
                self._writing -= 1
                self._changed.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Write nothing more; True when nothing is under way, which is waited for."""
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(lambda: not self._writing, timeout_s)

    def patch(self, node: Node, operations: Operations) -> Node:
        """A JSON patch; the node as it is then. Raises ApiError (422 when a test in it fails), Lost."""
        return _node(self.write("patch nodes", "PATCH", f"{NODES}/{node.name}", operations, JSON_PATCH))

    def set_addresses(self, node: Node, wanted: tuple[Address, ...]) -> Node:
        """Replace status.addresses. Raises ApiError, Lost."""
        path = f"{NODES}/{node.name}/status"
        return _node(self.write("patch nodes/status", "PATCH", path, address_patch(node, wanted), MERGE_PATCH))

    def delete(self, node: Node) -> None:
        """Delete the node, if it is the one that was looked at and has not changed since. Raises ApiError, Lost."""
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": node.uid, "resourceVersion": node.version},
        }
        self.write("delete nodes", "DELETE", f"{NODES}/{node.name}", body, "application/json")

    def tell(self, about: Subject, kind: str, reason: str, message: str) -> None:
        """An Event. Raises ApiError, Lost."""
        self._events.tell(about, kind, reason, message)


class _Leading:
    """What Events need of a client, while this process leads."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def request(
        self, method: str, path: str, query: None = None, body: Any = None, *, content_type: str = JSON
    ) -> dict[str, Any]:
        verb = {"POST": "create", "PATCH": "patch"}[method]
        return self._cluster.write(f"{verb} events", method, path, body, content_type)


class Pace:
    """At most ``qps`` requests a second, ``burst`` at once; 0: as fast as they are answered. Threads share it."""

    def __init__(self, qps: float, burst: int) -> None:
        self._qps = qps
        self._burst = max(1, burst)
        self._lock = threading.Lock()
        self._free_at = time.monotonic()

    def __call__(self) -> None:
        """Wait for one's turn."""
        if self._qps <= 0:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - self._burst / self._qps) + 1 / self._qps
            wait_s = self._free_at - now
        if wait_s > 0:
            time.sleep(wait_s)


def _node(found: Any) -> Node:
    try:
        return Node.of(found)
    except NOT_AN_OBJECT as error:
        raise ApiError(0, f"the answer is no node: {type(error).__name__}") from error
