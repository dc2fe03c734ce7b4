# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What the programs of the real charts write into the cluster: labels, resources and states, once their pods run.

Each looks at the cluster as it is and writes what is missing, as its original would; none knows the code under test.
Sources of the names: NFD 0.19, GPU Operator v26.3, kata-deploy 4.1.
"""

from __future__ import annotations

import contextlib
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
    """NFD, the GPU Operator and kata-deploy on one node, as long as the context lasts."""

    def __init__(self, api: Api, gpus: int = 2, fails: str = "") -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._act, daemon=True)
        self.gpus = gpus
        # The reason with which every change of the mode fails; empty: none does.
        self.fails = fails
        # Whether the host has the misc cgroup, from which NFD counts the keys.
        self.misc = True

    def __enter__(self) -> Actors:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _act(self) -> None:
        while not self._over.wait(EVERY_S):
            with contextlib.suppress(ApiError):  # the API server is away, or a kind went: seen again the next time
                self._once()

    def _once(self) -> None:
        node = self._api.get(NODE_PATH)
        daemonsets = self._api.get("/apis/apps/v1/daemonsets")["items"]
        labels: dict[str, str | None] = {}
        capacity: dict[str, str] = {}
        annotations: dict[str, str | None] = {}
        rules = self._items("/apis/nfd.k8s-sigs.io/v1alpha1/nodefeaturerules")
        nfd = _running(daemonsets, "node-feature-discovery-worker") or _running(daemonsets, "nfd-worker")
        if nfd:
            named = any(rule["metadata"]["name"] == "kata-tee-keys" for rule in rules)
            labels[SNP] = "true" if named else None
            annotations[OWNED] = "snp-is-not-here" if not named else SNP
            capacity["sev-snp.amd.com/esids"] = "100" if named and self.misc else "0"
        if _running(daemonsets, "kata-deploy"):
            labels["katacontainers.io/kata-runtime"] = "true"
            labels["kata-deploy.katacontainers.io/default"] = "true"
        policies = self._items("/apis/nvidia.com/v1/clusterpolicies")
        if policies:
            labels.update(self._operator(policies[0], node, capacity))
        self._write(node, labels, annotations, capacity)

    def _operator(self, policy: Object, node: Object, capacity: dict[str, str]) -> dict[str, str | None]:
        spec = policy["spec"]
        if policy.get("status", {}).get("state") != "ready":
            path = f"/apis/nvidia.com/v1/clusterpolicies/{policy['metadata']['name']}"
            self._api.patch(path + "/status", {"status": {"state": "ready"}})
        have = node["metadata"]["labels"]
        passthrough = have.get("nvidia.com/gpu.workload.config") == "vm-passthrough"
        if not passthrough or spec["sandboxWorkloads"].get("mode") != "kata" or not spec["sandboxWorkloads"]["enabled"]:
            return {}
        capacity["nvidia.com/pgpu"] = str(self.gpus)
        mode = have.get("nvidia.com/cc.mode") or spec["ccManager"].get("defaultMode", "on")
        if self.fails and mode != have.get("nvidia.com/cc.mode.state"):
            return {"nvidia.com/cc.mode.state": "failed", "nvidia.com/cc.ready.state": "false"}
        ready = "true" if mode in ("on", "ppcie", "devtools") else "false"
        return {"nvidia.com/cc.mode.state": mode, "nvidia.com/cc.ready.state": ready}

    def _write(
        self, node: Object, labels: dict[str, Any], annotations: dict[str, Any], capacity: dict[str, str]
    ) -> None:
        metadata = node["metadata"]
        new = {key: value for key, value in labels.items() if metadata["labels"].get(key) != value}
        notes = {key: value for key, value in annotations.items() if metadata.get("annotations", {}).get(key) != value}
        if new or notes:
            self._api.patch(NODE_PATH, {"metadata": {"labels": new, "annotations": notes}})
        counts = {key: value for key, value in capacity.items() if node["status"]["capacity"].get(key) != value}
        if counts:
            self._api.patch(NODE_PATH + "/status", {"status": {"capacity": counts, "allocatable": counts}})

    def _items(self, path: str) -> list[Object]:
        with contextlib.suppress(ApiError):
            found: list[Object] = self._api.get(path)["items"]
            return found
        return []


def _running(daemonsets: list[Object], name: str) -> bool:
    return any(
        one["metadata"]["name"].endswith(name) and one.get("status", {}).get("numberReady", 0) for one in daemonsets
    )
