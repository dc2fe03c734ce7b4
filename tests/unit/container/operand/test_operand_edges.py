# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests and watches when little works: answers without an end, silent watches, an etcd that was restored."""

from __future__ import annotations

import contextlib
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_tools import SOON_S, eventually
from fake_api import faults
from fake_api.daemon_sets import NODES, PODS, PREFIX, DaemonSets
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from operand import settings
from operand.alone import Alone
from operand.cluster import Cluster
from operand.connection import Connection
from operand.health import STALE_S, Health
from operand.kube import ApiError, Kube
from operand.messages import Message, NodeSeen, PodsSeen, RunEnded
from operand.node import Node
from operand.pod import Pod, Witness
from operand.process import Process
from operand.run import Job
from operand.watch import SLACK_S, Delay, Kept, Watch

NODE = "node-1"
EVENTS = "/api/v1/namespaces/default/events"
# Short, so that a test need not wait for long; a client without such a bound would wait for ever.
TIMEOUT_S, SILENCE_S = 0.5, 0.6
# Some bookmarks of the server's, which come each half second.
BOOKMARKS_S = 3.0


@pytest.fixture
def store() -> Store:
    made = Store()
    made.create(NODES, new_node(NODE, **{PREFIX + "vfio-manager": "true"}))
    return made


@pytest.fixture
def server(store: Store) -> Iterator[ApiServer]:
    with serving(store) as running:
        yield running


@contextlib.contextmanager
def used(kube: Kube) -> Iterator[Kube]:
    """A client, whose watches have ended when it is no longer used."""
    try:
        yield kube
    finally:
        kube.close()
        eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))


@pytest.fixture
def kube(server: ApiServer) -> Iterator[Kube]:
    with used(Kube(Connection(server.url))) as made:
        yield made


@pytest.fixture
def hasty(server: ApiServer) -> Iterator[Kube]:
    """A client that gives requests little time."""
    with used(Kube(Connection(server.url), TIMEOUT_S)) as made:
        yield made


@pytest.fixture
def alert(server: ApiServer) -> Iterator[Kube]:
    """A client that soon notices silence."""
    with used(Kube(Connection(server.url), silence_s=SILENCE_S)) as made:
        yield made


def label(store: Store, **labels: str) -> None:
    store.patch(NODES, NODE, {"metadata": {"labels": labels}})


# --- answers that do not end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [faults.DRIP, faults.DRIP_HEADERS, faults.HANG])
@pytest.mark.parametrize("verb", ["get", "list", "patch"])
def test_a_request_ends_in_a_bounded_time(hasty: Kube, kube: Kube, store: Store, way: str, verb: str) -> None:
    store.faults.send(way, verb)
    cluster = Cluster(hasty, NODE)
    asked = {"get": cluster.node, "list": cluster.pods, "patch": lambda: cluster.cordon(True, None)}
    with pytest.raises(ApiError, match="no answer in time") as caught:
        asked[verb]()
    assert caught.value.status == 0
    store.faults.clear()
    assert Cluster(kube, NODE).node().name == NODE


def test_a_connection_that_is_never_taken_is_given_up_in_time(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kube = Kube(Connection(f"https://127.0.0.1:{listener.getsockname()[1]}"), TIMEOUT_S)
        with pytest.raises(ApiError, match="no answer in time"):  # TLS: nobody answers the hello
            Cluster(kube, NODE).node()


@pytest.mark.parametrize("verb", ["get", "list"])
def test_an_answer_that_is_too_large_is_refused(server: ApiServer, store: Store, verb: str) -> None:
    store.faults.send(faults.HUGE, verb)
    with contextlib.closing(Kube(Connection(server.url))) as patient:
        cluster = Cluster(patient, NODE)
        with pytest.raises(ApiError, match="more than 33554432 bytes"):
            cluster.node() if verb == "get" else cluster.pods()


def test_an_answer_that_ends_with_its_connection(kube: Kube, store: Store) -> None:
    store.faults.send(faults.PLAIN, "get")
    assert Cluster(kube, NODE).node().name == NODE


def test_a_long_list_comes_in_pages(kube: Kube, store: Store) -> None:
    for number in range(250):
        spec = {"nodeName": NODE}
        store.create(PODS, {"metadata": {"name": f"p{number}", "namespace": "gpu-operator"}, "spec": spec})
    assert len(Cluster(kube, NODE).pods()) == 250
    assert [one.verb for one in store.requests] == ["list"] * 3


def test_a_list_without_an_end_has_one(kube: Kube, store: Store) -> None:
    class Many(list[Any]):
        """More than anybody can read, each like the other."""

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: Any) -> Any:
            return [{"metadata": {"name": "p"}}]

    class Endless(Store):
        """Each page is followed by another."""

        def list(self, collection: str, field: Any) -> tuple[list[dict[str, Any]], int]:
            return Many(), 1

    endless = Endless()
    with serving(endless) as running, contextlib.closing(Kube(Connection(running.url))) as other:
        with pytest.raises(ApiError, match="has no end"):
            other.items("/api/v1/pods", {})
        assert len(endless.requests) <= 100


def test_a_signal_ends_the_request_that_the_main_thread_waits_for(server: ApiServer, store: Store) -> None:
    store.faults.send(faults.HANG, "get")
    kube = Kube(Connection(server.url))
    before = signal.signal(signal.SIGUSR1, lambda *_: kube.interrupt())
    main = threading.main_thread().ident
    assert main is not None
    asked = threading.Thread(
        target=lambda: (eventually(lambda: store.requests), signal.pthread_kill(main, signal.SIGUSR1))
    )
    asked.start()
    began = time.monotonic()
    try:
        with pytest.raises(ApiError, match="a stop was asked for"):
            Cluster(kube, NODE).node()
        assert time.monotonic() - began < 5  # of the ten seconds that a request may take
        kube.interrupt()  # nothing is under way: nothing happens
    finally:
        asked.join()
        signal.signal(signal.SIGUSR1, before)
        kube.close()


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
        with pytest.raises(ApiError, match="lacks the operand's own pod gpu-operator/manager"):
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


def test_what_is_said_again_is_counted_also_by_the_next_process(kube: Kube, store: Store) -> None:
    for _process in range(2):
        cluster = Cluster(kube, NODE)
        cluster.event("Warning", "CCModeFailed", "words")
        cluster.event("Warning", "CCModeFailed", "other words")
    cluster.event("Warning", "CCModeFailed", "words")
    found = {one["message"]: one for one in store.list(EVENTS, {})[0]}
    assert {message: one["count"] for message, one in found.items()} == {"words": 3, "other words": 2}


def test_a_message_is_cut_where_a_character_ends(kube: Kube, store: Store) -> None:
    Cluster(kube, NODE).event("Normal", "CCModeSet", "x" + "\u00e4" * 1000)
    (event,) = store.list(EVENTS, {})[0]
    assert event["message"] == "x" + "\u00e4" * 511


@pytest.mark.parametrize("status", [403, 404])
def test_an_event_that_cannot_be_counted_was_said_already(kube: Kube, store: Store, status: int) -> None:
    cluster = Cluster(kube, NODE)
    cluster.event("Normal", "CCModeSet", "words")
    store.faults.refuse("patch", "/events", status)
    cluster.event("Normal", "CCModeSet", "words")
    store.faults.refuse("create", "/events", 500)
    with pytest.raises(ApiError):
        cluster.event("Normal", "CCModeSet", "words")


# --- watches ----------------------------------------------------------------------------------------------------------


class Told:
    """What a watch of the node tells."""

    def __init__(self, kube: Kube) -> None:
        self.seen: list[list[dict[str, Any]]] = []
        self.fresh: list[bool] = []
        self.errors: list[ApiError] = []
        self.watch = Watch(kube, Cluster(kube, NODE).this_node(), self.take, self.errors.append, Delay(0.01, 0.05))

    def take(self, objects: list[dict[str, Any]], fresh: bool) -> None:
        """What the watch calls."""
        self.fresh.append(fresh)
        self.seen.append(objects)

    def label(self, name: str) -> str | None:
        """Of the node as it was told last."""
        return self.seen[-1][0]["metadata"]["labels"].get(name) if self.seen and self.seen[-1] else None


@pytest.fixture
def telling(kube: Kube, alert: Kube) -> Iterator[Callable[[], Told]]:
    """Begin a watch of the node, through one of those clients; it ends before they do."""
    made: list[Told] = []

    def begin(through: Kube = kube) -> Told:
        made.append(Told(through))
        made[-1].watch.start()
        return made[-1]

    yield begin
    for told in made:
        told.watch.end()


@pytest.fixture
def told(telling: Callable[[], Told]) -> Told:
    made = telling()
    eventually(lambda: made.seen)
    return made


def count(store: Store, verb: str) -> int:
    return sum(one.verb == verb for one in store.requests)


@pytest.mark.parametrize("way", [faults.SILENT, faults.BYTES])
def test_a_watch_that_hears_no_whole_event_is_begun_anew(
    telling: Callable[[Kube], Told], alert: Kube, store: Store, way: str
) -> None:
    store.faults.send(way, "watch", times=1)
    told = telling(alert)
    eventually(lambda: count(store, "watch") == 1)
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    assert told.fresh[-1]
    assert "no answer in time" in str(told.errors[0])


def test_a_watch_with_an_event_that_never_ends_is_begun_anew(telling: Callable[[], Told], store: Store) -> None:
    store.faults.send(faults.HUGE, "watch", times=1)
    told = telling()
    eventually(lambda: told.errors)
    assert "an event of more than" in str(told.errors[0])
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")


def test_bookmarks_are_heard(telling: Callable[[Kube], Told], server: ApiServer, store: Store) -> None:
    """A watch without one would be given up."""
    with used(Kube(Connection(server.url), silence_s=BOOKMARKS_S)) as kube:
        told = telling(kube)
        eventually(lambda: count(store, "watch") == 1)
        before = told.watch.heard_at
        time.sleep(2 * BOOKMARKS_S)
        assert told.watch.heard_at > before + BOOKMARKS_S
        assert (count(store, "list"), told.errors) == (1, [])
        told.watch.end()


def test_a_watch_that_is_not_chunked_tells_each_event_when_it_comes(telling: Callable[[], Told], store: Store) -> None:
    store.faults.send(faults.PLAIN, "watch")
    told = telling()
    eventually(lambda: count(store, "watch") == 1)
    for number in range(3):
        label(store, a=str(number))
        eventually(lambda number=number: told.label("a") == str(number))
    assert not told.fresh[-1]


def test_a_server_that_ends_each_watch_after_an_event_is_not_asked_without_a_pause(
    server: ApiServer, store: Store
) -> None:
    store.faults.send(faults.EARLY, "watch")
    kube = Kube(Connection(server.url))
    cluster = Cluster(kube, NODE)
    watch = Watch(kube, cluster.this_node(), lambda *_: None, lambda _e: None, Delay(0.2, 5.0))
    watch.start()
    ended = threading.Event()

    def changes() -> None:
        number = 0
        while not ended.wait(0.005):
            number += 1
            label(store, a=str(number))

    busy = threading.Thread(target=changes)
    busy.start()
    time.sleep(1.5)
    ended.set()
    busy.join()
    watch.end()
    assert 1 <= count(store, "watch") <= 5  # 0.1, 0.2, 0.4, 0.8 s at the least
    eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))
    kube.close()


@pytest.mark.parametrize("connections", ["cut", "kept"])
def test_after_etcd_was_restored_the_list_is_the_truth(
    told: Told, store: Store, server: ApiServer, connections: str
) -> None:
    label(store, a="before")
    eventually(lambda: told.label("a") == "before")
    snapshot = store.snapshot()
    for number in range(20):
        label(store, a=str(number))
    eventually(lambda: told.label("a") == "19")
    store.restore(snapshot)
    if connections == "cut":
        server.cut()
    eventually(lambda: told.label("a") == "before")
    assert told.fresh[-1]
    label(store, a="after")
    eventually(lambda: told.label("a") == "after")


def test_each_list_is_fresh_and_each_event_is_not(told: Told, store: Store, server: ApiServer) -> None:
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    assert told.fresh == [True, False]
    server.cut()
    eventually(lambda: told.fresh[-1])


def test_a_token_that_has_expired_is_no_missing_right(kube: Kube, store: Store) -> None:
    store.faults.refuse("list", "/pods", 401, times=1)
    errors: list[ApiError] = []
    seen: list[list[dict[str, Any]]] = []
    resource = Cluster(kube, NODE).pods_resource(None)
    watch = Watch(
        kube, resource, lambda found, _fresh: seen.append(found), errors.append, Delay(0.01, 0.02), Delay(30, 60)
    )
    watch.start()
    eventually(lambda: seen)  # it did not wait for half a minute
    assert [error.status for error in errors] == [401]
    watch.end()


# --- watches that die or hang -----------------------------------------------------------------------------------------


class Deadly:
    """Of those who listen to a watch: one that ends its thread, the first time."""

    def __init__(self) -> None:
        self.seen: list[bool] = []
        self.dead = False

    def take(self, _objects: Any, fresh: bool) -> None:
        if not self.dead:
            self.dead = True
            raise SystemExit
        self.seen.append(fresh)


def test_a_fault_of_who_listens_ends_no_watch(kube: Kube, store: Store) -> None:
    heard: list[bool] = []

    def take(_objects: Any, fresh: bool) -> None:
        heard.append(fresh)
        if len(heard) < 3:
            raise RuntimeError("a fault")

    def failed(_error: ApiError) -> None:
        raise RuntimeError("another")

    watch = Watch(kube, Cluster(kube, NODE).this_node(), take, failed, Delay(0.01, 0.02))
    watch.start()
    eventually(lambda: len(heard) == 3)
    assert watch.is_alive
    watch.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_died_is_known_and_begun_anew(kube: Kube, server: ApiServer, store: Store) -> None:
    deadly, now = Deadly(), [1000.0]
    resource = Cluster(kube, NODE).this_node()
    kept = Kept(
        lambda _kept: Watch(kube, resource, deadly.take, lambda _e: None, Delay(0.01, 0.02), now=lambda: now[0])
    )
    health = Health(lambda: now[0])
    health.follow("node", kept)
    eventually(lambda: not kept.is_alive)
    assert not health.is_alive
    server.stop()
    now[0] += STALE_S
    assert kept.revive()
    assert health.silence_s("node") == STALE_S  # to be begun anew is not to hear anything
    server.start()
    eventually(lambda: deadly.seen)
    assert health.is_alive
    assert not kept.revive()
    kept.end()
    assert health.is_alive  # one that was asked to end is not missed


def test_a_watch_that_hangs_is_known(kube: Kube, store: Store) -> None:
    now = [1000.0]
    hangs, goes_on = threading.Event(), threading.Event()

    def take(_objects: Any, _fresh: bool) -> None:
        hangs.set()
        goes_on.wait(SOON_S)

    watch = Watch(kube, Cluster(kube, NODE).this_node(), take, lambda _e: None, now=lambda: now[0])
    watch.start()
    assert hangs.wait(SOON_S)
    assert watch.is_alive
    now[0] += SLACK_S + 31.0
    assert not watch.is_alive
    goes_on.set()
    watch.end()


def test_an_api_that_is_away_is_no_reason_to_end_the_process(kube: Kube, server: ApiServer, store: Store) -> None:
    """A restart would help nobody, and break off what is at work; but the node is not called ready any more."""
    now = [1000.0]
    errors: list[ApiError] = []
    resource = Cluster(kube, NODE).this_node()
    kept = Kept(
        lambda _kept: Watch(kube, resource, lambda *_: None, errors.append, Delay(0.01, 0.02), now=lambda: now[0])
    )
    health = Health(lambda: now[0])
    health.follow("node", kept)
    health.ready = True
    eventually(lambda: count(store, "watch") == 1)
    assert health.is_ready
    server.stop()
    for _number in range(4):
        before = len(errors)
        eventually(lambda before=before: len(errors) > before + 1)
        now[0] += STALE_S / 3
    assert health.is_alive
    assert not health.is_ready
    assert health.silence_s("node") >= STALE_S
    server.start()
    eventually(lambda: health.silence_s("node") == 0)
    assert health.is_ready
    kept.end()


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
    assert "lacks the operand's own pod" in pods_seen(kube, "gpu-operator").denied
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
