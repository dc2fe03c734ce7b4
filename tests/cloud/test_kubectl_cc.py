# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The plugin kubectl-cc on a real API server, with the rights of its manifest and no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cloud.programs import FIGURES
from tests.cloud.server import Child, Server, until
from tools.cache import ROOT

sys.path.insert(0, str(ROOT / "container"))

from kube.client import MERGE_PATCH, Kube
from kube.connection import of_file
from kube.watch import Resource, Watch

PLUGIN = str(ROOT / "container/bin/kubectl-cc")
RIGHTS = ROOT / "container/kubectl_cc/in-cluster.yaml"
MODE, STATE, CHANGING = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.mode.changing"
NODES = 12
LOCK = ("--lock-seconds", "2")
START = ("rollout", "start", "--mode", "on", "--budget", "2", *LOCK)


class CCManagers:
    """Each brings its node into the mode of its label; ``hold`` keeps one from it."""

    def __init__(self, server: Server) -> None:
        self._kube = Kube(of_file(str(server.kubeconfig("admin"))), agent="k8s-cc-manager")
        self.held: set[str] = set()
        self.most_out = 0
        self._nodes: dict[str, Any] = {}
        self._lock = threading.Lock()
        resource = Resource("/api/v1/nodes", {"labelSelector": STATE})
        self._watch = Watch(self._kube, resource, self._listed, lambda error: None, each=self._each)
        self._watch.start()

    def _listed(self, found: list[Any], _fresh: bool) -> None:
        for one in found:
            self._each("ADDED", one)

    def _each(self, _kind: str, found: Any) -> None:
        name, labels = found["metadata"]["name"], found["metadata"]["labels"]
        self._nodes[name] = found
        self.most_out = max(self.most_out, sum(map(is_out, self._nodes.values())))
        is_changing = CHANGING in (found["metadata"].get("annotations") or {})
        if labels.get(MODE) not in (None, labels.get(STATE)) and name not in self.held and not is_changing:
            mode = labels[MODE]
            self._patch(name, {STATE: ""}, {CHANGING: mode})
            self._patch(name, {STATE: mode}, {CHANGING: None})

    def release(self) -> None:
        """Let those go on that were held."""
        names, self.held = self.held, set()
        for name in names:
            self._patch(name, {}, {"nvidia.com/cc.mode.retry": "1"})

    def _patch(self, name: str, labels: Any, annotations: Any) -> None:
        body = {"metadata": {"labels": labels, "annotations": annotations}}
        self._kube.request("PATCH", f"/api/v1/nodes/{name}", None, body, content_type=MERGE_PATCH)

    def end(self) -> None:
        self._watch.end()
        self._kube.close()


def is_out(node: Any) -> bool:
    """By what stands on the object."""
    labels = node["metadata"]["labels"]
    return bool(node["spec"].get("unschedulable")) or labels.get(MODE) != labels.get(STATE)


@pytest.fixture
def managers(server: Server) -> Iterator[CCManagers]:
    """Of twelve nodes in three zones, off."""
    for one in yaml.safe_load_all(RIGHTS.read_text()):
        if one["kind"].endswith("Binding"):
            one["subjects"] = [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "rollout"}]
        if one["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
            server.apply(one)
    for number in range(NODES):
        labels = {MODE: "off", STATE: "off", "topology.kubernetes.io/zone": "abc"[number % 3]}
        metadata = {"name": f"gpu-{number}", "labels": labels}
        ready = {"type": "Ready", "status": "True", "reason": "Test", "message": ""}
        server.register({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"conditions": [ready]}})
    made = CCManagers(server)
    yield made
    made.end()
    server.request("DELETE", "/api/v1/namespaces/kube-system/configmaps/nvidia-cc-rollout")


def environment(server: Server) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "KUBECONFIG": str(server.kubeconfig("rollout"))}


def begin(server: Server, *words: str) -> Child:
    return server.run("kubectl-cc", sys.executable, PLUGIN, *words, environment=environment(server))


def run(server: Server, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, PLUGIN, *words],
        env=environment(server),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def states(server: Server) -> dict[str, str]:
    return {name: node["metadata"]["labels"].get(STATE, "") for name, node in server.nodes().items()}


def test_killed_in_the_middle_it_goes_on_where_it_was(server: Server, managers: CCManagers) -> None:
    managers.held.add("gpu-4")
    child = begin(server, *START)
    until(lambda: server.nodes()["gpu-4"]["metadata"]["labels"][MODE] == "on", words=child.words())
    child.end(signal.SIGKILL)
    assert server.nodes()["gpu-4"]["spec"]["unschedulable"]
    assert "not over" in run(server, "rollout", "start", "--mode", "devtools", status=2)
    managers.release()
    said = run(server, *START)
    assert "is the same, and is under way" in said
    assert set(states(server).values()) == {"on"}
    assert not any(node["spec"].get("unschedulable") for node in server.nodes().values())
    assert 1 <= managers.most_out <= 2
    rows = json.loads(run(server, "status", "-o", "json"))["nodes"]
    assert [row["node"] for row in rows] == [f"gpu-{number}" for number in range(NODES)]
    assert all(row["ready"] and row["since"] for row in rows)
    counted = server.counted("rollout")
    assert counted["patch nodes"] <= 2 * NODES + 2  # one that the kill cut off, and what it conflicted with
    assert not any(one["responseStatus"]["code"] == 403 for one in server.audit("rollout"))
    FIGURES.append(f"kubectl cc: {NODES} nodes, killed once: {dict(counted)}")
    assert "is undone" in run(server, "rollout", "undo", *LOCK)
    assert set(states(server).values()) == {"off"}


def test_wait_explain_and_a_right_that_is_missing(server: Server, managers: CCManagers) -> None:
    run(server, *START[:-2], "--detach")
    managers.held.add("gpu-1")
    server.patch("gpu-1", {"metadata": {"labels": {MODE: "on"}}})
    assert "no pod of the CC manager is on the node" in run(server, "explain", "gpu-1", status=1)
    waiting = begin(server, "wait", "gpu-1", "--timeout", "30")
    until(lambda: server.counted("rollout")["watch nodes"] or None, words=waiting.words())
    managers.release()
    assert waiting.process.wait(30) == 0
    who = {"PATH": os.environ["PATH"], "KUBECONFIG": str(server.kubeconfig("nobody"))}
    done = subprocess.run([sys.executable, PLUGIN, "status"], env=who, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "403" in done.stderr
    assert "forbidden" in done.stderr
