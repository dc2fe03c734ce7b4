# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The node in the API, and what a kubelet and the DaemonSets' controller do there: pods come, end and go."""

from __future__ import annotations

import http.client
import json
import random
import ssl
import time
from collections.abc import Mapping
from typing import Any

from fake_api.daemon_sets import DAEMON_SETS, PREFIX

from tests.cloud.programs import kubelet_node
from tests.cloud.server import MERGE, Refused, Server
from tests.skew.objects import NAMESPACE

NAME = "soak-node"
PATH = f"/api/v1/nodes/{NAME}"
PODS = "/api/v1/pods?fieldSelector=spec.nodeName%3D" + NAME
MODE, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
RETRY, CHANGING, JOURNAL = f"{MODE}.retry", f"{MODE}.changing", f"{MODE}.journal"
CORDONED, REASON = f"{MODE}.cordoned", f"{MODE}.reason"
PAUSED = "paused-for-cc-mode-change"
COMPONENTS = ("sandbox-validator", "sandbox-device-plugin")
GPU = "nvidia.com/pgpu"
Object = dict[str, Any]


class Api:
    """A connection to the API server that is kept, as its administrator."""

    def __init__(self, server: Server) -> None:
        context = ssl.create_default_context(cafile=str(server.folder / "certificates/apiserver.crt"))
        self._http = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=30)
        self._headers = {"Authorization": f"Bearer {server.tokens['admin']}"}

    def __call__(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """The answer's JSON. Raises Refused."""
        data = None if body is None else json.dumps(body)
        self._http.request(method, path, data, {**self._headers, "Content-Type": kind})
        answer = self._http.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise Refused(answer.status, text)
        return json.loads(text)


class Node:
    """One node with two components, whose pods follow its labels."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._api = Api(server)
        self._random = chance
        self._count = 0
        self._ends_at: dict[str, float] = {}
        self.grace_s = (0.1, 1.0)  # how long a pod takes to end, by chance
        labels = {MODE: "off", **{PREFIX + one: "true" for one in COMPONENTS}}
        server.register(kubelet_node(NAME, taints=[], labels=labels))
        for namespace in (NAMESPACE, "default"):
            account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
            self._made(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)

    # --- what there is ------------------------------------------------------------------------------------------------

    def look(self) -> Object:
        """The node as it is now."""
        found: Object = self._api("GET", PATH)
        return found

    def pods(self) -> list[Object]:
        """Those that are bound to the node."""
        found: list[Object] = self._api("GET", PODS)["items"]
        return found

    def events(self) -> int:
        """How many Events there are about the node."""
        every = self._api("GET", "/api/v1/namespaces/default/events")["items"]
        return sum(one["involvedObject"]["name"] == NAME for one in every)

    # --- what users do ------------------------------------------------------------------------------------------------

    def want(self, mode: str | None, retry: str = "") -> None:
        """Set the label, or take it away; with ``retry`` ask for another attempt, too."""
        metadata: Object = {"labels": {MODE: mode}}
        if retry:
            metadata["annotations"] = {RETRY: retry}
        self._api("PATCH", PATH, {"metadata": metadata}, MERGE)

    def run_pod(self, gpu: bool, owner: str = "") -> Object:
        """A pod that runs on the node; ``owner``: the component whose it is."""
        self._count += 1
        resources = {"limits": {GPU: "1"}} if gpu else {}
        container = {"name": "one", "image": "none", "resources": resources}
        metadata: Object = {"name": f"{owner or 'pod'}-{self._count}", "namespace": NAMESPACE if owner else "default"}
        spec: Object = {"nodeName": NAME, "containers": [container], "automountServiceAccountToken": False}
        if owner:
            name, labels = DAEMON_SETS[owner]
            reference = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": name, "controller": True}
            metadata |= {"labels": labels, "ownerReferences": [reference]}
            spec["nodeSelector"] = {PREFIX + owner: "true"}
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods"
        made = self._api("POST", path, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        running = {"status": {"phase": "Running"}}
        found: Object = self._api("PATCH", f"{path}/{metadata['name']}/status", running, MERGE)
        assert found["metadata"]["uid"] == made["metadata"]["uid"]
        return found

    def end_pod(self, pod: Mapping[str, Any]) -> None:
        """As kubectl delete does."""
        self._delete(pod, 30)

    # --- what a kubelet and a controller do ---------------------------------------------------------------------------

    def sync(self, node: Mapping[str, Any], pods: list[Object]) -> None:
        """Make the components' pods for labels that are "true", end the others; pods that end are gone in time."""
        labels, now = node["metadata"]["labels"], time.monotonic()
        for pod in pods:
            if "deletionTimestamp" in pod["metadata"]:
                uid = pod["metadata"]["uid"]
                if now >= self._ends_at.setdefault(uid, now + self._random.uniform(*self.grace_s)):
                    self._delete(pod, 0)
                    del self._ends_at[uid]
        for component in COMPONENTS:
            found = [one for one in pods if owner_of(one) == DAEMON_SETS[component][0]]
            if labels.get(PREFIX + component) == "true":
                if not found:
                    self.run_pod(False, component)
            else:
                for pod in found:
                    if "deletionTimestamp" not in pod["metadata"]:
                        self.end_pod(pod)

    def _delete(self, pod: Mapping[str, Any], grace_s: int) -> None:
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": grace_s,
            "preconditions": {"uid": metadata["uid"]},
        }
        try:
            self._api("DELETE", path, options)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    def _made(self, path: str, one: Object) -> None:
        try:
            self._api("POST", path, one)
        except Refused as refused:
            if refused.status != 409:
                raise


def owner_of(pod: Mapping[str, Any]) -> str:
    """The name of its DaemonSet; empty for others."""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((one["name"] for one in owners if one["kind"] == "DaemonSet"), "")


def notes_of(node: Mapping[str, Any]) -> dict[str, str]:
    """A node's."""
    found: dict[str, str] = node["metadata"].get("annotations") or {}
    return found
