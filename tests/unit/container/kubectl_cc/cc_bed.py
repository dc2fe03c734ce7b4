# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory whose nodes have CC managers, and the command line against it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

from cc_manager.names import (
    CHANGING_ANNOTATION,
    MODE_LABEL,
    READY_LABEL,
    REASON_ANNOTATION,
    RETRY_ANNOTATION,
    STATE_LABEL,
)
from fake_api.clients import used
from fake_api.nodes import NODES
from fake_api.server import ApiServer, serving
from fake_api.store import Change, Object, Refusal, Store
from fake_api.waiting import SOON_S
from kube.client import Kube
from kube.connection import Connection
from kube.lease import Times
from kubectl_cc import cli
from kubectl_cc.gates import Gates
from kubectl_cc.names import RECORD, ROLLOUT_ANNOTATION, ZONE
from kubectl_cc.node import Node
from kubectl_cc.worker import Worker

RECORDS = "/api/v1/namespaces/kube-system/configmaps"
PODS = "/api/v1/namespaces/default/pods"
READY = {"type": "Ready", "status": "True"}
# A lock that is asked for often, and that no busy machine loses.
QUICK = Times(15.0, 10.0, 0.1)


def gpu_node(name: str, mode: str = "off", zone: str = "a", label: str | None = None, **labels: str) -> Object:
    """One that is in a mode, by its label or, with ``label=''``, without one."""
    asked = mode if label is None else label
    known = {STATE_LABEL: mode, READY_LABEL: "false", ZONE: zone, "kubernetes.io/hostname": name, **labels}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": known | ({MODE_LABEL: asked} if asked else {}), "annotations": {}},
        "spec": {},
        "status": {"conditions": [READY]},
    }


def gpu_pod(name: str, node: str) -> Object:
    """A pod that holds a GPU of a node."""
    spec = {"nodeName": node, "containers": [{"resources": {"limits": {"nvidia.com/pgpu": "1"}}}]}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
    }


def cc_manager_pod(node: str) -> Object:
    """The pod of a node's CC manager."""
    owner = {"kind": "DaemonSet", "name": "nvidia-cc-manager"}
    return {
        "metadata": {"name": f"cc-{node}", "namespace": "default", "ownerReferences": [owner]},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
    }


class CCManagers:
    """Those of all nodes, in a thread: each brings its node into the mode of its label, unless it is told to fail.

    ``failing``: node to reason, until it is taken away and another attempt is asked for. ``deaf``: nodes whose
    CC manager does nothing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._tried: dict[str, tuple[str, str]] = {}
        self.failing: dict[str, str] = {}
        self.deaf: set[str] = set()
        self.most_out = 0
        self.most_out_of: dict[str, int] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        store.listeners.append(self._seen)

    def _seen(self, change: Change) -> None:
        if change.collection != NODES or change.kind == "DELETED":
            return
        nodes = [Node.of(found) for (where, _name), found in self._store.objects.items() if where == NODES]
        out = [node for node in nodes if not node.in_service]
        self.most_out = max(self.most_out, len(out))
        for node in out:
            zone = node.labels.get(ZONE, "")
            count = sum(1 for one in out if one.labels.get(ZONE, "") == zone)
            self.most_out_of[zone] = max(self.most_out_of.get(zone, 0), count)
        self._work.put(change.found["metadata"]["name"])

    def _run(self) -> None:
        while (name := self._work.get()) is not None:
            with contextlib.suppress(Refusal):
                self._serve(name)

    def _serve(self, name: str) -> None:
        node = Node.of(self._store.get(NODES, name))
        asked = (node.desired, node.annotations.get(RETRY_ANNOTATION, ""))
        if name in self.deaf or not node.desired or node.observed == node.desired or self._tried.get(name) == asked:
            return
        self._tried[name] = asked
        self._patch(name, {STATE_LABEL: "", READY_LABEL: ""}, {CHANGING_ANNOTATION: node.desired})
        why = self.failing.get(name)
        if why:
            self._patch(name, {STATE_LABEL: "failed"}, {CHANGING_ANNOTATION: None, REASON_ANNOTATION: why})
            return
        ready = {"on": "true", "ppcie": "true", "off": "false"}.get(node.desired, "")
        labels = {STATE_LABEL: node.desired, READY_LABEL: ready}
        self._patch(name, labels, {CHANGING_ANNOTATION: None, REASON_ANNOTATION: None})

    def _patch(self, name: str, labels: Any, annotations: Any) -> None:
        self._store.patch(NODES, name, {"metadata": {"labels": labels, "annotations": annotations}})

    def end(self) -> None:
        self._work.put(None)
        self._thread.join()


class Bed:
    """``run`` is the command line; what it prints is in ``lines``."""

    def __init__(self, store: Store, server: ApiServer, kube: Kube) -> None:
        self.store, self.server, self.kube = store, server, kube
        self.managers = CCManagers(store)
        self.lines: list[str] = []

    def add(self, *nodes: Object) -> None:
        for node in nodes:
            self.store.create(NODES, node)

    def run(self, *words: str) -> int:
        """One command; its exit status. Raises what main would print."""
        options = cli.parser().parse_args(list(words))
        return cli.Tool(self.kube, QUICK).run(options)

    @contextlib.contextmanager
    def working(self, kube: Kube | None = None) -> Iterator[list[int]]:
        """A worker in a thread, which is ended; it tells its exit status."""
        worker = Worker(kube or self.kube, Gates(), print, times=QUICK)
        ends: list[int] = []
        thread = threading.Thread(target=lambda: ends.append(worker.run()), daemon=True)
        thread.start()
        try:
            yield ends
        finally:
            worker.stop()
            thread.join(6 * SOON_S)
            assert not thread.is_alive()

    def node(self, name: str) -> Node:
        return Node.of(self.store.get(NODES, name))

    def nodes(self) -> dict[str, Node]:
        return {node.name: node for node in map(Node.of, self.store.list(NODES, {})[0])}

    def states(self) -> dict[str, str]:
        return {name: node.observed for name, node in self.nodes().items()}

    def patch(self, name: str, labels: Any = None, annotations: Any = None, spec: Any = None) -> None:
        body: dict[str, Any] = {"metadata": {"labels": labels or {}, "annotations": annotations or {}}}
        if spec is not None:
            body["spec"] = spec
        self.store.patch(NODES, name, body)

    def asked(self, verb: str = "patch", part: str = "/nodes/") -> list[str]:
        """Nodes, or other objects, that were written to over HTTP, in order."""
        return [one.path.rpartition("/")[2] for one in self.store.requests if one.verb == verb and part in one.path]

    def taken(self) -> list[str]:
        """Nodes whose label the rollout has set, in order."""
        found = []
        for one in self.store.requests:
            labels = ((one.body or {}).get("metadata") or {}).get("labels") or {} if one.verb == "patch" else {}
            if "/nodes/" in one.path and labels.get(MODE_LABEL):
                found.append(one.path.rpartition("/")[2])
        return found


@contextlib.contextmanager
def bed() -> Iterator[Bed]:
    """One, without nodes."""
    store = Store()
    with serving(store) as server, used(Kube(Connection(server.url))) as kube:
        made = Bed(store, server, kube)
        try:
            yield made
        finally:
            made.managers.end()


__all__ = ["NODES", "PODS", "RECORD", "RECORDS", "ROLLOUT_ANNOTATION", "Bed", "bed"]
