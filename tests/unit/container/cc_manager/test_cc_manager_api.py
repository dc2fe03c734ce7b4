# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The requests by name and the whole process against an API server on loopback."""

from __future__ import annotations

import json
import logging
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cc_manager import settings
from cc_manager.alone import Alone
from cc_manager.cluster import Cluster
from cc_manager.messages import Message, RunEnded, RunPlanned
from cc_manager.node import Node, Patch
from cc_manager.pod import Pod
from cc_manager.process import Process, main
from cc_manager.run import Job
from fake_api.daemon_sets import NODES, PODS, PREFIX, DaemonSets
from fake_api.plain import answering, http
from fake_api.server import ApiServer
from fake_api.store import Refusal, Request, Store
from fake_api.waiting import SOON_S, eventually
from kube.client import ApiError, Kube
from kube.connection import Connection
from kube.delay import Delay
from kube.watch import Watch

NODE = "node-1"


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_node_is_read_and_patched(kube: Kube, store: Store) -> None:
    cluster = Cluster(kube, NODE)
    node = cluster.node()
    assert node.labels == {PREFIX + "vfio-manager": "true"}
    patched = cluster.patch(Patch({"a": "1"}, {"b": "2"}), node.resource_version)
    assert (patched.labels["a"], patched.annotations["b"]) == ("1", "2")
    with pytest.raises(ApiError, match="409 the object has been modified") as caught:
        cluster.patch(Patch({"a": "2"}), node.resource_version)
    assert caught.value.is_conflict
    assert "a" not in cluster.patch(Patch({"a": None})).labels


def test_pods_are_evicted_and_events_made(kube: Kube, store: Store) -> None:
    cluster = Cluster(kube, NODE)
    DaemonSets(store, NODE, grace_s=0.01)
    name = store.list(PODS, {})[0][0]["metadata"]["name"]
    cluster.evict(Pod("gpu-operator", name))
    assert "deletionTimestamp" in store.get(PODS, name)["metadata"]
    cluster.event("Warning", "CCModeFailed", "words")
    (event,) = store.list("/api/v1/namespaces/default/events", {})[0]
    assert event["involvedObject"]["name"] == NODE
    assert (event["type"], event["reason"], event["message"]) == ("Warning", "CCModeFailed", "words")


NOT_THE_API = ["[]", "null", '"x"', "{}", '{"metadata": 5}', '{"metadata": {"labels": 3, "name": "n"}}', "[" * 100_000]


@pytest.mark.parametrize("body", NOT_THE_API)
def test_json_of_somebody_else_is_an_error_of_the_api(body: str) -> None:
    with answering(http(200, body)) as url:
        kube = Kube(Connection(url))
        with pytest.raises(ApiError) as caught:
            Cluster(kube, NODE).node()
        assert caught.value.status == 0
        kube.close()


# --- watches ----------------------------------------------------------------------------------------------------------


class Told:
    """What a watch tells."""

    def __init__(self) -> None:
        self.seen: list[list[dict[str, Any]]] = []
        self.errors: list[ApiError] = []
        self.fresh: list[bool] = []

    def take(self, objects: list[dict[str, Any]], fresh: bool) -> None:
        """What the watch calls."""
        self.seen.append(objects)
        self.fresh.append(fresh)

    def watch(self, kube: Kube, server: str = NODE, pods: bool = False) -> Watch:
        cluster = Cluster(kube, server)
        resource = cluster.pods_resource("gpu-operator") if pods else cluster.this_node()
        watch = Watch(kube, resource, self.take, self.errors.append, Delay(0.01, 0.05))
        watch.start()
        return watch

    def label(self, name: str) -> str | None:
        """Of the node as it was told last."""
        found = self.seen[-1] if self.seen else []
        return found[0]["metadata"]["labels"].get(name) if found else None


def label(store: Store, **labels: str) -> None:
    store.patch(NODES, NODE, {"metadata": {"labels": labels}})


def test_a_watch_tells_the_node_and_each_change(kube: Kube, store: Store) -> None:
    told = Told()
    watch = told.watch(kube)
    eventually(lambda: told.seen)
    assert [one["metadata"]["name"] for one in told.seen[-1]] == [NODE]
    assert "status" not in told.seen[-1][0]
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    store.patch(NODES, "node-2", {"metadata": {"labels": {"a": "2"}}})
    store.delete(NODES, NODE)
    eventually(lambda: told.seen[-1] == [])
    watch.end()
    assert told.errors == []


def test_pods_come_and_go(kube: Kube, store: Store) -> None:
    sets = DaemonSets(store, NODE, grace_s=0.01)
    told = Told()
    watch = told.watch(kube, pods=True)
    eventually(lambda: told.seen and len(told.seen[-1]) == 1)
    label(store, **{PREFIX + "vfio-manager": "false"})
    eventually(lambda: told.seen[-1] == [])
    assert sets.pods("vfio-manager") == []
    watch.end()


# --- the whole process ------------------------------------------------------------------------------------------------


class QuickRunner:
    """Runs that are as quick as messages: one GPU that does as it is told."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self.tell, self.number, self.mode, self.job = tell, 0, "off", Job(False)

    def start(self, job: Job) -> QuickRunner:
        self.number, self.job = self.number + 1, job
        if job.is_change:
            self.tell(RunPlanned(self.number))
        else:
            modes = {"mode": self.mode, "pending_mode": self.mode}
            entry = self._entry(**modes, in_use=False, settings_unproven=False, problem=None)
            host = {"tdx": {"value": "no"}, "sev_snp": {"value": "unknown"}}
            self.tell(RunEnded(self.number, {"devices": [entry], "host": host}))
        return self

    def _entry(self, **more: Any) -> dict[str, Any]:
        modes = ["off", "on", "devtools", "ppcie"]
        return {"address": "0000:17:00.0", "kind": "gpu", "name": "H100", "supported_modes": modes, **more}

    def open_gate(self) -> None:
        before, self.mode = self.mode, str(self.job.mode)
        entry = self._entry(mode_before=before, mode_after=self.mode, staged=True, reset=True, seconds={})
        self.tell(RunEnded(self.number, {"devices": [entry]}))

    def close_gate(self) -> None:
        self.tell(RunEnded(self.number, {"msg": "The gate did not open."}, failed=True))

    def kill(self) -> None:
        """Nothing is at work."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_the_process_follows_the_label(tmp_path: Path, kube: Kube, server: ApiServer, store: Store) -> None:
    sets = DaemonSets(store, NODE, grace_s=0.05)
    ready, port = tmp_path / "validations" / "ready", free_port()
    environment = {
        "NODE_NAME": NODE,
        "OPERATOR_NAMESPACE": "gpu-operator",
        "CC_READINESS_FILE": str(ready),
        "CC_MANAGER_METRICS_PORT": str(port),
    }
    process = Process(settings.parse([], environment), kube, QuickRunner)
    thread = threading.Thread(target=process.run)
    thread.start()

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""

    def state() -> Any:
        return store.get(NODES, NODE)["metadata"]["labels"].get("nvidia.com/cc.mode.state")

    try:
        eventually(lambda: state() == "off")
        eventually(ready.exists)
        eventually(lambda: get("/readyz")[0] == 200)
        for mode in ("on", "ppcie", "off"):
            label(store, **{"nvidia.com/cc.mode": mode})
            eventually(lambda mode=mode: state() == mode)  # type: ignore[misc]
            eventually(lambda: sets.pods("vfio-manager"))
        server.cut()
        label(store, **{"nvidia.com/cc.mode": "on"})
        eventually(lambda: state() == "on")
        assert get("/healthz") == (200, "ok\n")
        eventually(lambda: 'cc_manager_state{state="on"} 1.0' in get("/metrics")[1])
        assert get("/other")[0] == 404
        store.before = forbid_pods
        label(store, **{"nvidia.com/cc.mode": "off"})
        eventually(lambda: state() == "failed")
        eventually(lambda: not ready.exists())
    finally:
        process.stop()
        thread.join(SOON_S)
    assert not thread.is_alive()


def test_a_process_that_waits_for_another_ends_when_it_is_asked_to(tmp_path: Path, kube: Kube, store: Store) -> None:
    other = Alone(str(tmp_path))
    other.take(lambda: None)
    chosen = settings.parse([], {"NODE_NAME": NODE, "CC_MANAGER_METRICS_PORT": "0"})
    process = Process(chosen, kube, QuickRunner, alone=Alone(str(tmp_path)))
    thread = threading.Thread(target=process.run)
    thread.start()
    process.stop()
    thread.join(SOON_S)
    assert not thread.is_alive()
    assert store.requests == []
    other.release()


def forbid_pods(request: Request) -> None:
    if request.verb == "list" and request.path.endswith("/pods"):
        raise Refusal(403, "pods is forbidden")


def test_the_process_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], {}) == 2
    assert "NODE_NAME is not set" in capsys.readouterr().err
    assert main(["--node-name", "x", "--debug"], {"CC_MANAGER_LOG_FORMAT": "json"}) == 2
    assert "in no pod" in capsys.readouterr().err


def test_the_last_line_is_json_too(tmp_path: Path, server: ApiServer, capsys: pytest.CaptureFixture[str]) -> None:
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    with socket.create_server(("", 0)) as other:
        port = str(other.getsockname()[1])
        options = ["--node-name", NODE, "--kubeconfig", str(tmp_path / "config"), "--cc-manager-metrics-port", port]
        assert main(options, {"CC_MANAGER_LOG_FORMAT": "json"}) == 1
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["level"] == "error"
    assert "Address already in use" in last["trace"]
    logger = logging.getLogger("cc_manager")
    logger.handlers, logger.propagate = [], True


def test_nodes_of_the_api_without_metadata_maps() -> None:
    node = Node.of({"metadata": {"name": "n"}})
    assert (node.labels, node.annotations) == ({}, {})
    assert json.dumps(Patch({"a": None}).body("5")) == '{"metadata": {"resourceVersion": "5", "labels": {"a": null}}}'
