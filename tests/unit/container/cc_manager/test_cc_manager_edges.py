# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests by name and the process when little works: rights that are missing, watches that died, no lock."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cc_manager import settings
from cc_manager.alone import Alone
from cc_manager.cluster import Cluster
from cc_manager.messages import Message, NodeSeen, PodsSeen, RunEnded
from cc_manager.node import Node
from cc_manager.pod import Pod, Witness
from cc_manager.process import Process
from cc_manager.run import Job
from fake_api import faults
from fake_api.daemon_sets import NODES, PODS, DaemonSets
from fake_api.server import ApiServer
from fake_api.store import Store
from fake_api.waiting import SOON_S, eventually
from kube.client import ApiError, Kube
from kube.connection import Connection

NODE = "node-1"
# Some bookmarks of the server's, which come each half second.


def label(store: Store, **labels: str) -> None:
    store.patch(NODES, NODE, {"metadata": {"labels": labels}})


# --- requests by name -------------------------------------------------------------------------------------------------


def test_a_node_is_cordoned_and_uncordoned(kube: Kube, store: Store) -> None:
    cluster = Cluster(kube, NODE)
    assert not cluster.node().unschedulable
    cordoned = cluster.cordon(True, cluster.node().resource_version)
    assert cordoned.unschedulable
    assert cluster.node().unschedulable
    label(store, a="1")
    with pytest.raises(ApiError) as caught:
        cluster.cordon(False, cordoned.resource_version)
    assert caught.value.is_conflict
    assert not cluster.cordon(False, None).unschedulable
    assert "unschedulable" not in store.get(NODES, NODE)["spec"]


def test_pods_now(kube: Kube, store: Store) -> None:
    DaemonSets(store, NODE)
    elsewhere = {"nodeName": NODE, "containers": [{"resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    store.create("/api/v1/namespaces/x/pods", {"metadata": {"name": "user", "namespace": "x"}, "spec": elsewhere})
    other = {"metadata": {"name": "far", "namespace": "x"}, "spec": {"nodeName": "node-2"}}
    store.create("/api/v1/namespaces/x/pods", other)
    cluster = Cluster(kube, NODE, "gpu-operator")
    assert {pod.namespace for pod in cluster.pods()} == {"gpu-operator", "x"}
    assert [pod.name for pod in cluster.pods() if pod.holds_gpus] == ["user"]
    assert {pod.namespace for pod in cluster.components_pods()} == {"gpu-operator"}


@pytest.mark.parametrize("status", [401, 403, 500])
def test_pods_that_cannot_be_seen_are_not_no_pods(kube: Kube, store: Store, status: int) -> None:
    store.faults.refuse("list", "/pods", status)
    with pytest.raises(ApiError) as caught:
        Cluster(kube, NODE).pods()
    assert (caught.value.status, caught.value.is_denied) == (status, status != 500)
    assert caught.value.is_forbidden == (status == 403)


def test_a_list_without_the_own_pod_is_not_believed(kube: Kube, store: Store) -> None:
    believing = Cluster(kube, NODE, "gpu-operator", Witness("gpu-operator", "manager"))
    for ask in (believing.pods, believing.components_pods):
        with pytest.raises(ApiError, match="lacks the CC manager's own pod gpu-operator/manager"):
            ask()
    assert Cluster(kube, NODE, "elsewhere", Witness("gpu-operator", "manager")).components_pods() == ()
    own = {"metadata": {"name": "manager", "namespace": "gpu-operator"}, "spec": {"nodeName": NODE}}
    store.create(PODS, own)
    assert [pod.name for pod in believing.pods()] == ["manager"]


def test_another_pod_of_that_name_is_not_evicted(kube: Kube, store: Store) -> None:
    store.create(PODS, {"metadata": {"name": "p", "namespace": "gpu-operator", "uid": "new"}, "spec": {}})
    with pytest.raises(ApiError) as caught:
        Cluster(kube, NODE).evict(Pod("gpu-operator", "p", "old"))
    assert caught.value.is_conflict
    assert "deletionTimestamp" not in store.get(PODS, "p")["metadata"]
    Cluster(kube, NODE).evict(Pod("gpu-operator", "p", "new"))
    assert "deletionTimestamp" in store.get(PODS, "p")["metadata"]


# --- the process ------------------------------------------------------------------------------------------------------


class NoRuns:
    """A runner whose runs never answer."""

    number = 0

    def start(self, _job: Job) -> NoRuns:
        return self

    def open_gate(self) -> None:
        """Nothing."""

    close_gate = kill = open_gate


class OneGpu:
    """A runner that reads one GPU, which is off."""

    number = 1

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell

    def start(self, _job: Job) -> OneGpu:
        entry = {
            "address": "0000:17:00.0",
            "kind": "gpu",
            "name": "H100",
            "supported_modes": ["off", "on"],
            "mode": "off",
            "pending_mode": "off",
            "in_use": False,
            "settings_unproven": False,
            "problem": None,
        }
        host = {"tdx": {"value": "no"}, "sev_snp": {"value": "unknown"}}
        self._tell(RunEnded(self.number, {"devices": [entry], "host": host}))
        return self

    def open_gate(self) -> None:
        """Nothing."""

    close_gate = kill = open_gate


class DeadlyInbox(queue.SimpleQueue[Message]):
    """It ends the first thread that tells of the node."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def put(self, item: Message, block: bool = True, timeout: float | None = None) -> None:
        self.heard.append(item)
        if isinstance(item, NodeSeen) and sum(isinstance(one, NodeSeen) for one in self.heard) == 1:
            raise SystemExit
        super().put(item, block, timeout)


@contextlib.contextmanager
def running(process: Process) -> Iterator[None]:
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        yield
    finally:
        process.stop()
        thread.join(SOON_S)
        assert not thread.is_alive()


def chosen(**environment: str) -> settings.Settings:
    plain = {"NODE_NAME": NODE, "CC_MANAGER_METRICS_PORT": "0", "CC_READINESS_FILE": "", **environment}
    return settings.parse([], plain)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_process_begins_a_dead_watch_anew(kube: Kube, store: Store) -> None:
    process = Process(chosen(), kube, lambda _tell: NoRuns(), look_after_s=0.05)
    inbox = process.inbox = DeadlyInbox()
    with running(process):
        eventually(lambda: sum(isinstance(one, NodeSeen) for one in inbox.heard) > 1)
        eventually(lambda: process.health.is_alive)
        restarts = process.metrics.registry.get_sample_value("cc_manager_watch_restarts_total", {"watch": "node"})
        assert restarts == 1
        silence = process.metrics.registry.get_sample_value("cc_manager_watch_silence_seconds", {"watch": "node"})
        assert silence is not None


def test_where_no_lock_can_be_had_nothing_is_done_until_it_can(kube: Kube, store: Store, tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    alone = Alone(str(tmp_path / "state"), again_s=0.01)
    process = Process(chosen(), kube, lambda _tell: NoRuns(), alone=alone)
    with running(process):
        time.sleep(0.2)
        assert store.requests == []
        assert not process.health.is_ready
        assert process.health.is_alive
        (tmp_path / "state").unlink()
        eventually(lambda: store.requests)


def test_a_stop_takes_the_readiness_file_away_at_once_and_for_good(
    server: ApiServer, store: Store, tmp_path: Path
) -> None:
    """Although the main loop waits for an answer of the API."""
    ready = tmp_path / "ready"
    patient = Kube(Connection(server.url))
    process = Process(chosen(CC_READINESS_FILE=str(ready)), patient, OneGpu)
    with running(process):
        eventually(ready.exists)
        store.faults.send(faults.HANG, "patch", times=1)
        store.faults.send(faults.HANG, "create", times=1)
        ready.unlink()  # the loop writes it whenever it is at rest
        label(store, **{"nvidia.com/cc.mode": "bogus"})
        eventually(lambda: any(one.verb == "patch" for one in store.requests))
        ready.touch()
        process.stop()
        assert not ready.exists()
        store.faults.clear()
    assert not ready.exists()
    patient.close()


@pytest.mark.parametrize("status", [401, 403])
def test_pods_that_cannot_be_watched_are_unknown(kube: Kube, store: Store, status: int) -> None:
    store.faults.refuse("list", "/pods", status)
    messages = pods_seen(kube, None)
    assert messages.denied
    assert messages.pods == ()


def test_a_watched_list_without_the_own_pod_is_unknown(kube: Kube, store: Store) -> None:
    assert "lacks the CC manager's own pod" in pods_seen(kube, "gpu-operator").denied
    store.create(PODS, {"metadata": {"name": "manager", "namespace": "gpu-operator"}, "spec": {"nodeName": NODE}})
    found = pods_seen(kube, "gpu-operator")
    assert (found.denied, [pod.name for pod in found.pods]) == ("", ["manager"])


def pods_seen(kube: Kube, own_namespace: str | None) -> PodsSeen:
    """What the process first tells of the pods of all namespaces."""
    process = Process(replace(chosen(), own_namespace=own_namespace or ""), kube, lambda _tell: NoRuns())
    watch = process.watch_pods(True)
    try:
        message = process.inbox.get(timeout=SOON_S)
        assert isinstance(message, PodsSeen)
        return message
    finally:
        watch.end()


def test_the_node_is_told_as_fresh_or_not(kube: Kube, store: Store, server: ApiServer) -> None:
    heard: list[tuple[Node | None, bool]] = []

    class Inbox(queue.SimpleQueue[Message]):
        """It keeps what is told of the node."""

        def put(self, item: Message, block: bool = True, timeout: float | None = None) -> None:
            if isinstance(item, NodeSeen):
                heard.append((item.node, item.fresh))
            super().put(item, block, timeout)

    process = Process(chosen(), kube, lambda _tell: NoRuns())
    process.inbox = Inbox()
    with running(process):
        eventually(lambda: heard)
        label(store, a="1")
        eventually(lambda: any(node is not None and node.labels.get("a") == "1" and not fresh for node, fresh in heard))
        server.cut()
        eventually(lambda: heard[-1][1])
