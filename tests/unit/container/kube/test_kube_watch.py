# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Watches: silence, errors, an etcd that was restored, threads that die or hang."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fake_api import faults
from fake_api.clients import used
from fake_api.daemon_sets import NODES
from fake_api.daemon_sets import node as new_node
from fake_api.plain import answering, http
from fake_api.server import ApiServer
from fake_api.store import Refusal, Request, Store
from fake_api.waiting import SOON_S, eventually
from kube.client import ApiError, Kube
from kube.connection import Connection
from kube.delay import Delay
from kube.health import STALE_S, Health
from kube.watch import SLACK_S, Kept, Resource, Watch
from kube_tools import ITS_PODS, NODE, THIS_NODE, Told, label


@pytest.mark.parametrize("how", ["cut", "stop and start", "compacted", "compacted while away", "etcd answers 500"])
def test_13_a_watch_survives_every_error(how: str, kube: Kube, server: ApiServer, store: Store) -> None:
    told = Told(kube)
    told.watch.start()
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    if how == "cut":
        server.cut()
    elif how == "stop and start":
        server.stop()
        label(store, b="1")
        server.start()
        eventually(lambda: told.label("b") == "1")
    elif how == "compacted":
        store.compact()
        server.cut()
    elif how == "compacted while away":
        server.stop()
        label(store, b="1")
        store.compact()
        server.start()
        eventually(lambda: told.label("b") == "1")
    else:
        count = iter(range(3))

        def broken(request: Request) -> None:
            if next(count, None) is not None:
                raise Refusal(500, "etcd is not there")

        store.before = broken
        server.cut()
        eventually(lambda: len(told.errors) >= 2)
    label(store, a="2")
    eventually(lambda: told.label("a") == "2")
    told.watch.end()


LIST = '{"items": [], "metadata": {"resourceVersion": "5"}}'


NO_EVENTS = ["[]", "5", '{"type": "MODIFIED"}', '{"type": "ADDED", "object": []}', '{"type": "ERROR", "object": null}']


NO_LISTS = ["[]", "{}", '{"items": 5, "metadata": {}}', '{"items": [null], "metadata": {}}']


@pytest.mark.parametrize("told_first", [*([one] for one in NO_LISTS), *([LIST, one + "\n"] for one in NO_EVENTS)])
def test_13_a_watch_survives_answers_of_somebody_else(told_first: list[str]) -> None:
    node = json.dumps({"items": [new_node(NODE)], "metadata": {"resourceVersion": "6"}})
    with answering(*(http(200, one) for one in (*told_first, node))) as url:
        kube = Kube(Connection(url))
        told = Told(kube)
        told.watch.start()
        eventually(lambda: told.seen and told.seen[-1])
        told.watch.end()
        kube.close()
        eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))
    assert told.errors


def test_a_watch_without_the_right_is_tried_again_at_another_pace(kube: Kube, store: Store) -> None:
    store.faults.refuse("list", "/pods", 403)
    told = Told(kube, ITS_PODS, forbidden=Delay(30, 60))
    told.watch.start()
    eventually(lambda: told.errors)
    time.sleep(0.3)
    told.watch.end()
    assert len(told.errors) == 1


def test_a_watch_is_one_request_for_long(kube: Kube, store: Store) -> None:
    told = Told(kube)
    told.watch.start()
    eventually(lambda: len(store.requests) == 2)
    for number in range(20):
        label(store, a=str(number))
    eventually(lambda: told.label("a") == "19")
    time.sleep(1.2)  # bookmarks go by
    assert [request.verb for request in store.requests] == ["list", "watch"]
    told.watch.end()


def test_a_server_that_ends_each_watch_at_once_is_not_asked_without_a_pause() -> None:
    asked: list[str] = []

    class Ends:
        """A stream without an event."""

        def events(self) -> Iterator[dict[str, Any]]:
            return iter(())

        def end(self) -> None:
            """Nothing."""

        def close(self) -> None:
            """Nothing."""

    class Hasty:
        """The API server."""

        silence_s = 1.0

        def items(self, *_arguments: Any) -> tuple[list[dict[str, Any]], str]:
            return [], "1"

        def stream(self, path: str, _query: Any, _accept: str) -> Ends:
            asked.append(path)
            return Ends()

    watch = Watch(Hasty(), THIS_NODE, lambda _o, _f: None, lambda _e: None, Delay(0.1, 0.2))  # type: ignore[arg-type]
    watch.start()
    time.sleep(0.5)
    watch.end()
    assert 1 <= len(asked) <= 10


BOOKMARKS_S = 3.0


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
        eventually(lambda number=number: told.label("a") == str(number))  # type: ignore[misc]
    assert not told.fresh[-1]


def test_a_server_that_ends_each_watch_after_an_event_is_not_asked_without_a_pause(
    server: ApiServer, store: Store
) -> None:
    store.faults.send(faults.EARLY, "watch")
    kube = Kube(Connection(server.url))
    watch = Watch(kube, THIS_NODE, lambda *_: None, lambda _e: None, Delay(0.2, 5.0))
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
    resource = ITS_PODS
    watch = Watch(
        kube, resource, lambda found, _fresh: seen.append(found), errors.append, Delay(0.01, 0.02), Delay(30, 60)
    )
    watch.start()
    eventually(lambda: seen)  # it did not wait for half a minute
    assert [error.status for error in errors] == [401]
    watch.end()


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

    watch = Watch(kube, THIS_NODE, take, failed, Delay(0.01, 0.02))
    watch.start()
    eventually(lambda: len(heard) == 3)
    assert watch.is_alive
    watch.end()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_watch_that_died_is_known_and_begun_anew(kube: Kube, server: ApiServer, store: Store) -> None:
    deadly, now = Deadly(), [1000.0]
    resource = THIS_NODE
    kept = Kept(
        lambda _kept: Watch(kube, resource, deadly.take, lambda _e: None, Delay(0.01, 0.02), now=lambda: now[0])
    )
    health = Health(["node"], lambda: now[0])
    health.follow("node", kept)
    eventually(lambda: not kept.is_alive)
    assert not health.is_alive
    server.stop()
    now[0] += STALE_S
    assert kept.revive()
    assert health.silence_s("node") == STALE_S  # to be begun again is not to hear anything
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

    watch = Watch(kube, THIS_NODE, take, lambda _e: None, now=lambda: now[0])
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
    resource = THIS_NODE
    kept = Kept(
        lambda _kept: Watch(kube, resource, lambda *_: None, errors.append, Delay(0.01, 0.02), now=lambda: now[0])
    )
    health = Health(["node"], lambda: now[0])
    health.follow("node", kept)
    health.ready = True
    eventually(lambda: count(store, "watch") == 1)
    assert health.is_ready
    server.stop()
    for _number in range(4):
        before = len(errors)
        eventually(lambda before=before: len(errors) > before + 1)  # type: ignore[misc]
        now[0] += STALE_S / 3
    assert health.is_alive
    assert not health.is_ready
    assert health.silence_s("node") >= STALE_S
    server.start()
    eventually(lambda: health.silence_s("node") == 0)
    assert health.is_ready
    kept.end()


def test_each_event_alone_and_only_what_is_kept_of_an_object(kube: Kube, store: Store) -> None:
    every: list[tuple[str, dict[str, Any]]] = []
    kept = Resource("/api/v1/nodes", trim=lambda one: {"metadata": {"name": one["metadata"]["name"]}}, page=1)
    told = Told(kube, kept, each=lambda kind, one: every.append((kind, one)))
    told.watch.start()
    eventually(lambda: sum(one.verb == "watch" for one in store.requests) == 1)
    name, other = ({"metadata": {"name": one}} for one in (NODE, "node-2"))
    assert told.seen == [[name, other]]
    assert sum(one.verb == "list" for one in store.requests) == 2  # a page for each
    label(store, a="1")
    store.delete(NODES, NODE)
    eventually(lambda: len(every) == 2)
    assert every == [("MODIFIED", name), ("DELETED", name)]
    assert told.seen == [[name, other]]
    told.watch.end()


def test_one_object_is_watched_without_the_right_to_list(kube: Kube, store: Store, server: ApiServer) -> None:
    told = Told(kube, replace(THIS_NODE, name=NODE))
    store.faults.refuse("list", "/nodes", 403)
    store.delete(NODES, NODE)
    told.watch.start()
    eventually(lambda: told.seen == [[]])  # it is not there
    store.create(NODES, new_node(NODE))
    label(store, a="1")
    eventually(lambda: told.label("a") == "1")
    for number in range(20):
        store.patch(NODES, "node-2", {"metadata": {"labels": {"b": str(number)}}})
    store.compact()  # the object's own version is too old to watch from
    server.cut()
    eventually(lambda: (count(store, "get"), count(store, "watch")) == (2, 2))
    label(store, a="2")
    eventually(lambda: told.label("a") == "2")
    assert (count(store, "get"), count(store, "watch")) == (2, 2)
    assert told.fresh[0]
    assert {one.verb for one in store.requests} == {"get", "watch"}
    told.watch.end()
