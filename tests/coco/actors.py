# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the programs of the real charts write into the cluster: labels, resources and states, once their pods run.

Each looks at the cluster as it is and writes what is missing, as its original would; none knows the code under test.
Sources of the names: NFD 0.19, GPU Operator v26.3, kata-deploy 4.1.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
from typing import Any

from tests.cluster.kube.api import Api, ApiError, Object
from tests.cluster.kube.settings import NODE

NODE_PATH = f"/api/v1/nodes/{NODE}"
SNP = "amd.feature.node.kubernetes.io/snp"
OWNED = "nfd.node.kubernetes.io/feature-labels"
# Three times a second; a real kubelet's pods are slower to change.
EVERY_S = 0.3


class Actors:
    """NFD, the GPU Operator and kata-deploy on each node, as long as the context lasts."""

    def __init__(self, api: Api, gpus: int = 2) -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._act, daemon=True)
        self.gpus = gpus
        # Nodes on which every change of the mode fails.
        self.fails: set[str] = set()
        # Whether the host has the misc cgroup, from which NFD counts the keys.
        self.misc = True
        # Nodes without a kubelet of their own, whose pods count as running as soon as they are bound.
        self.stand_ins: set[str] = set()

    def __enter__(self) -> Actors:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join(10)

    def add_node(self, name: str, alive: bool = True) -> None:
        """A node that has no kubelet, and is what the real one is; ``alive``: it goes on saying so."""
        node = self._api.get(NODE_PATH)
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}}
        self._api.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        status = {
            key: node["status"][key] for key in ("capacity", "allocatable", "nodeInfo", "addresses", "daemonEndpoints")
        }
        self._api.patch(f"/api/v1/nodes/{name}/status", {"status": {**status, "conditions": [_ready()]}})
        if alive:
            self.stand_ins.add(name)

    def remove_node(self, name: str) -> None:
        """And its pods."""
        self.stand_ins.discard(name)
        self._api.delete(f"/api/v1/nodes/{name}")
        for pod in self._bound(name):
            self._api.delete(_path(pod) + "?gracePeriodSeconds=0")

    def _act(self) -> None:
        while not self._over.wait(EVERY_S):
            with contextlib.suppress(ApiError):  # the API server is away, or a kind went: seen again the next time
                self._once()

    def _once(self) -> None:
        daemonsets = self._api.get("/apis/apps/v1/daemonsets")["items"]
        rules = self._items("/apis/nfd.k8s-sigs.io/v1alpha1/nodefeaturerules")
        policies = self._items("/apis/nvidia.com/v1/clusterpolicies")
        if policies and policies[0].get("status", {}).get("state") != "ready":
            path = f"/apis/nvidia.com/v1/clusterpolicies/{policies[0]['metadata']['name']}"
            self._api.patch(path + "/status", {"status": {"state": "ready"}})
        for node in self._api.get("/api/v1/nodes")["items"]:
            name = node["metadata"]["name"]
            if name in self.stand_ins:
                self._stand_in(name)
            if name in {NODE, *self.stand_ins}:
                self._of_node(node, daemonsets, rules, policies)

    def _of_node(self, node: Object, daemonsets: list[Object], rules: list[Object], policies: list[Object]) -> None:
        labels: dict[str, str | None] = {}
        capacity: dict[str, str] = {}
        annotations: dict[str, str | None] = {}
        nfd = _running(daemonsets, "node-feature-discovery-worker") or _running(daemonsets, "nfd-worker")
        if nfd:
            named = any(rule["metadata"]["name"] == "kata-tee-keys" for rule in rules)
            labels[SNP] = "true" if named else None
            annotations[OWNED] = "snp-is-not-here" if not named else SNP
            capacity["sev-snp.amd.com/esids"] = "100" if named and self.misc else "0"
        if _running(daemonsets, "kata-deploy"):
            labels["katacontainers.io/kata-runtime"] = "true"
            labels["kata-deploy.katacontainers.io/default"] = "true"
        if node["metadata"]["labels"].get("nvidia.com/gpu.workload.config") == "vm-passthrough":
            capacity["nvidia.com/pgpu"] = str(self.gpus)
        if policies:
            labels.update(self._manager(policies[0], node))
        self._write(node, labels, annotations, capacity)

    def _manager(self, policy: Object, node: Object) -> dict[str, str | None]:
        """What the CC manager says, in the operator's kata mode alone."""
        spec, have = policy["spec"], node["metadata"]["labels"]
        passthrough = have.get("nvidia.com/gpu.workload.config") == "vm-passthrough"
        if not passthrough or spec["sandboxWorkloads"].get("mode") != "kata" or not spec["sandboxWorkloads"]["enabled"]:
            return {}
        mode = have.get("nvidia.com/cc.mode") or spec["ccManager"].get("defaultMode", "on")
        if node["metadata"]["name"] in self.fails and mode != have.get("nvidia.com/cc.mode.state"):
            return {"nvidia.com/cc.mode.state": "failed", "nvidia.com/cc.ready.state": "false"}
        ready = "true" if mode in ("on", "ppcie", "devtools") else "false"
        return {"nvidia.com/cc.mode.state": mode, "nvidia.com/cc.ready.state": ready}

    def _stand_in(self, name: str) -> None:
        """A kubelet's words: the node is ready, its pods run, and those that are deleted are gone."""
        self._api.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [_ready()]}})
        for pod in self._bound(name):
            if pod["metadata"].get("deletionTimestamp"):
                self._api.delete(_path(pod) + "?gracePeriodSeconds=0")
            elif pod["status"].get("phase") == "Pending":
                self._api.patch(_path(pod) + "/status", {"status": {"phase": "Running", "conditions": [_ready()]}})

    def _bound(self, name: str) -> list[Object]:
        return self._items(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")

    def _write(
        self, node: Object, labels: dict[str, Any], annotations: dict[str, Any], capacity: dict[str, str]
    ) -> None:
        metadata = node["metadata"]
        path = "/api/v1/nodes/" + metadata["name"]
        new = {key: value for key, value in labels.items() if metadata["labels"].get(key) != value}
        notes = {key: value for key, value in annotations.items() if metadata.get("annotations", {}).get(key) != value}
        if new or notes:
            self._api.patch(path, {"metadata": {"labels": new, "annotations": notes}})
        counts = {key: value for key, value in capacity.items() if node["status"]["capacity"].get(key) != value}
        if counts:
            self._api.patch(path + "/status", {"status": {"capacity": counts, "allocatable": counts}})

    def _items(self, path: str) -> list[Object]:
        with contextlib.suppress(ApiError):
            found: list[Object] = self._api.get(path)["items"]
            return found
        return []


def _ready() -> Object:
    """A condition, as old as now."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "Ready", "status": "True", "lastHeartbeatTime": now, "reason": "StandIn"}


def _path(pod: Object) -> str:
    return "/api/v1/namespaces/%(namespace)s/pods/%(name)s" % pod["metadata"]


def _running(daemonsets: list[Object], name: str) -> bool:
    return any(
        one["metadata"]["name"].endswith(name) and one.get("status", {}).get("numberReady", 0) for one in daemonsets
    )
