# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The soak's own judgement: what it calls growth, what it calls broken, and what its relay does to requests."""

from __future__ import annotations

import itertools
import os
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_api.certificate import write
from fake_api.server import serving
from fake_api.store import Store
from kube.client import MERGE_PATCH, ApiError, Kube
from kube.connection import Connection
from kube.watch import Resource, Watch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.soak import measure, relay, slopes, trouble  # noqa: E402
from tests.soak.node import CHANGING, COMPONENTS, PAUSED, READY, STATE  # noqa: E402
from tests.soak.watchman import NOTICED_S, Broken, Watchman, unrest  # noqa: E402

NODES = "/api/v1/nodes"


# --- slopes -----------------------------------------------------------------------------------------------------------


def row(values: list[float], seconds: float = 3600.0, noise: float = 0.0, per_hour: float = 0.0) -> slopes.Row:
    """Of samples that are evenly spaced."""
    times = [seconds * number / (len(values) - 1) for number in range(len(values))]
    quantity = slopes.Quantity("one", "", noise, per_hour, "")
    (found,) = slopes.rows([quantity], times, [{"one": value} for value in values])
    return found


def test_the_slope_is_that_of_the_line_whatever_scatters_around_it() -> None:
    assert row([float(number) for number in range(61)]).slope == pytest.approx(60.0)
    scattered = [number + (-1) ** number * 3.0 for number in range(61)]
    assert row(scattered).slope == pytest.approx(60.0, abs=0.5)


def test_the_warm_up_is_no_growth() -> None:
    warm = [0.0] * 6 + [50.0] * 55
    assert row(warm).slope == 0.0
    assert row(warm).kept


def test_a_leak_of_one_descriptor_in_ten_rounds_is_found() -> None:
    leaking = [20.0 + number // 10 for number in range(60)]
    assert not row(leaking, 600.0, noise=1.0).kept
    assert row([20.0 + number % 2 for number in range(60)], 600.0, noise=1.0).kept


def test_the_noise_counts_for_less_the_longer_it_lasts() -> None:
    assert row([0.0] * 11, 3600.0, noise=1.0).limit == pytest.approx(1 / 0.9)
    assert row([0.0] * 11, 360.0, noise=1.0).limit == pytest.approx(10 / 0.9)


def test_a_few_samples_tell_nothing() -> None:
    with pytest.raises(ValueError, match="samples"):
        row([1.0] * 4)


def test_the_table_names_what_grows() -> None:
    growing, still = row([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), row([1.0] * 7)
    first, second = slopes.table([growing, still])[1:]
    assert "GROWS" in first
    assert " ok " in second


def test_what_is_measured_has_a_limit() -> None:
    names = {one.name for one in measure.quantities(10.0, 10.0)}
    assert set(measure.of_process(os.getpid())) <= names


# --- what must never be seen ------------------------------------------------------------------------------------------


def node(state: str = "on", ready: str = "", **more: Any) -> dict[str, Any]:
    """A node that names this state."""
    metadata = {"labels": {STATE: state, READY: ready, **more.get("labels", {})}, "annotations": more.get("marks", {})}
    return {"metadata": metadata, "spec": {}}


def devices(*modes: str, resets: int = 0) -> dict[str, Any]:
    """As the emulator tells them."""
    counters = {"resets": resets, "knob_writes": 0}
    return {f"device {number}": {"mode": mode, "counters": counters} for number, mode in enumerate(modes)}


def components(count: int = len(COMPONENTS)) -> list[dict[str, Any]]:
    """Their pods."""
    owner = [{"kind": "DaemonSet", "name": "some"}]
    return [{"metadata": {"name": str(number), "ownerReferences": owner}} for number in range(count)]


def test_a_label_that_names_a_mode_which_a_device_has_not() -> None:
    watchman = Watchman()
    watchman.look(0.0, node("on"), devices("on", "on"), node("on"))
    with pytest.raises(Broken, match="device 1"):
        watchman.look(1.0, node("on"), devices("on", "off"), node("on"))


@pytest.mark.parametrize("state", ["", "failed", "mixed"])
def test_a_label_that_names_no_mode_is_no_lie(state: str) -> None:
    Watchman().look(0.0, node(state), devices("on", "off"), node(state))


def test_a_label_that_changes_while_it_is_looked_at_is_not_judged() -> None:
    watchman = Watchman()
    watchman.look(0.0, node("on"), devices("off", "off"), node(""))
    assert watchman.compared == 0


def test_a_device_that_was_moved_by_somebody_else_is_noticed_in_time() -> None:
    watchman = Watchman()
    watchman.harmed(10.0)
    watchman.look(20.0, node("on"), devices("on", "off"), node("on"))
    with pytest.raises(Broken):
        watchman.look(10.0 + NOTICED_S + 1.0, node("on"), devices("on", "off"), node("on"))


def test_once_the_label_was_right_again_it_must_stay_so() -> None:
    watchman = Watchman()
    watchman.harmed(10.0)
    watchman.look(11.0, node("on"), devices("on", "on"), node("on"))
    with pytest.raises(Broken):
        watchman.look(12.0, node("on"), devices("on", "off"), node("on"))


def test_ready_without_a_mode_that_protects() -> None:
    with pytest.raises(Broken, match="ready"):
        Watchman().look(0.0, node("off", "true"), devices("off"), node("off", "true"))


def test_devices_in_use_are_not_changed() -> None:
    watchman = Watchman()
    watchman.in_use("one", devices("on"))
    watchman.look(0.0, node("on"), devices("on"), node("on"))
    with pytest.raises(Broken, match="the pod one"):
        watchman.look(1.0, node(""), devices("on", resets=1), node(""))
    watchman.free("one")
    watchman.look(2.0, node(""), devices("on", resets=2), node(""))


def test_rest() -> None:
    assert unrest(node("on"), components(), devices("on", "on"), "on") == []
    assert len(unrest(node("failed"), components(), devices("on", "off"), "on")) == 2
    assert unrest(node("on", labels={"one": PAUSED}), components(), devices("on"), "on") == ["one is paused"]
    assert CHANGING in unrest(node("on", marks={CHANGING: "on"}), components(), devices("on"), "on")[0]
    assert "1 of 2" in unrest(node("on"), components(1), devices("on"), "on")[0]


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_a_seed_tells_the_whole_row() -> None:
    first, again, other = (list(itertools.islice(trouble.rounds(seed, ["a", "b"]), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    kinds = {one.kind for row_of in itertools.islice(trouble.rounds(1, ["a"]), 500) for one in row_of}
    assert kinds == set(trouble.WEIGHTS)


# --- the relay --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store() -> Store:
    """With one node."""
    made = Store()
    made.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one", "labels": {}}})
    return made


@pytest.fixture
def between(store: Store, tmp_path: Path) -> Iterator[relay.Relay]:
    """A relay before a server of that store."""
    certificate, key = write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(store, context) as server:
        made = relay.Relay(server.port, certificate, 1)
        yield made
        made.end()


@pytest.fixture
def kube(between: relay.Relay) -> Iterator[Kube]:
    """The CC manager's client."""
    made = Kube(Connection(between.url), timeout_s=2.0)
    yield made
    made.close()


def label(kube: Kube) -> None:
    """Set one."""
    kube.request("PATCH", f"{NODES}/one", None, {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE_PATCH)


def test_requests_go_through_and_are_counted(between: relay.Relay, kube: Kube, store: Store) -> None:
    label(kube)
    assert kube.request("GET", f"{NODES}/one")["metadata"]["labels"] == {"a": "b"}
    assert between.counted() == {"patch nodes": 1, "get nodes": 1}
    assert store.get(NODES, "one")["metadata"]["labels"] == {"a": "b"}


def test_a_refused_request_is_not_carried_out(between: relay.Relay, kube: Kube, store: Store) -> None:
    between.spoil("503", 1.0)
    with pytest.raises(ApiError) as error:
        label(kube)
    assert error.value.status == 503
    assert not store.requests
    between.clear()
    label(kube)


def test_a_lost_answer_is_that_of_a_request_that_was_carried_out(
    between: relay.Relay, kube: Kube, store: Store
) -> None:
    between.spoil(relay.LOST, 1.0)
    with pytest.raises(ApiError):
        label(kube)
    assert store.get(NODES, "one")["metadata"]["labels"] == {"a": "b"}


def test_an_answer_is_held_until_the_weather_is_fine(between: relay.Relay, kube: Kube, store: Store) -> None:
    between.spoil(relay.HELD, 1.0)
    carried_out = threading.Event()
    store.after = carried_out.set
    answered = threading.Event()
    thread = threading.Thread(target=lambda: (label(kube), answered.set()))  # type: ignore[func-returns-value]
    thread.start()
    assert carried_out.wait(5)
    assert not answered.is_set()
    between.clear()
    assert answered.wait(5)
    thread.join()


def test_a_watch_goes_through_and_can_be_muted(between: relay.Relay, kube: Kube, store: Store) -> None:
    seen: list[int] = []
    changed = threading.Condition()

    def told(objects: list[dict[str, Any]], _fresh: bool) -> None:
        with changed:
            seen.append(len(objects[0]["metadata"]["labels"]))
            changed.notify()

    watch = Watch(kube, Resource(NODES), told, lambda _error: None)
    watch.start()
    with changed:
        assert changed.wait_for(lambda: seen == [0], 5)
    store.patch(NODES, "one", {"metadata": {"labels": {"a": "b"}}})
    with changed:
        assert changed.wait_for(lambda: seen[-1] == 1, 5)
    between.mute()
    store.patch(NODES, "one", {"metadata": {"labels": {"c": "d"}}})
    with changed:
        assert not changed.wait_for(lambda: seen[-1] == 2, 0.7)  # longer than between two bookmarks
    between.cut()
    with changed:
        assert changed.wait_for(lambda: seen[-1] == 2, 10)
    watch.end()
    assert between.counted()["list nodes"] == 2


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/api/v1/nodes/one", "get nodes"),
        ("GET", "/api/v1/nodes?fieldSelector=a", "list nodes"),
        ("GET", "/api/v1/namespaces/x/pods?watch=1", "watch pods"),
        ("POST", "/api/v1/namespaces/x/pods/y/eviction", "create pods/eviction"),
        ("POST", "/api/v1/namespaces/default/events", "create events"),
        ("PATCH", "/apis/group/v1/namespaces/x/things/y", "patch things"),
    ],
)
def test_requests_by_verb_and_resource(method: str, path: str, words: str) -> None:
    assert relay.about(method, path) == words


def test_the_disk_is_measured_without_sockets(tmp_path: Path) -> None:
    empty = measure.disk_kib([tmp_path])
    (tmp_path / "one").write_bytes(b"x" * 20000)
    assert measure.disk_kib([tmp_path]) - empty >= 19
    assert measure.disk_kib([tmp_path / "nothing"]) == 0
