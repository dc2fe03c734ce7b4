# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests, also to a server that does not answer as one should."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from typing import Any

import pytest
from fake_api import faults
from fake_api.clients import TIMEOUT_S
from fake_api.daemon_sets import PODS
from fake_api.plain import answering, http
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from fake_api.waiting import eventually
from kube.client import ApiError, Kube
from kube.connection import Connection
from kube_tools import NODE, cordon, get, pods


def test_errors_say_what_was_asked_and_answered(kube: Kube, server: ApiServer, store: Store) -> None:
    with pytest.raises(ApiError, match="GET /api/v1/nodes/other: 404 /api/v1/nodes/other not found") as caught:
        kube.request("GET", "/api/v1/nodes/other")
    assert caught.value.status == 404
    server.stop()
    with pytest.raises(ApiError) as caught:
        get(kube)
    assert caught.value.status == 0
    assert not caught.value.is_forbidden


def test_an_answer_that_is_not_json() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for status in (200, 500):
            client, _address = listener.accept()
            client.recv(65536)
            client.sendall(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!" % status)
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    kube = Kube(Connection(f"http://127.0.0.1:{listener.getsockname()[1]}"))
    with pytest.raises(ApiError, match="not JSON"):
        kube.request("GET", "/")
    with pytest.raises(ApiError, match="500 no!"):
        kube.request("GET", "/")
    kube.close()
    listener.close()


def test_the_servers_request_for_patience_is_kept_within_bounds() -> None:
    with answering(http(429, "", "Retry-After: 7"), http(429, "", "Retry-After: 99999"), http(429, "")) as url:
        kube = Kube(Connection(url))
        waits = []
        for _number in range(3):
            with pytest.raises(ApiError) as caught:
                kube.request("GET", "/")
            waits.append(caught.value.retry_after_s)
        assert waits == [7, 60, 0]
        kube.close()


@pytest.mark.parametrize("way", [faults.DRIP, faults.DRIP_HEADERS, faults.HANG])
@pytest.mark.parametrize("verb", ["get", "list", "patch"])
def test_a_request_ends_in_a_bounded_time(hasty: Kube, kube: Kube, store: Store, way: str, verb: str) -> None:
    store.faults.send(way, verb)
    asked = {"get": get, "list": pods, "patch": cordon}
    with pytest.raises(ApiError, match="no answer in time") as caught:
        asked[verb](hasty)
    assert caught.value.status == 0
    store.faults.clear()
    assert get(kube) == NODE


def test_a_connection_that_is_never_taken_is_given_up_in_time(store: Store) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kube = Kube(Connection(f"https://127.0.0.1:{listener.getsockname()[1]}"), TIMEOUT_S)
        with pytest.raises(ApiError, match="no answer in time"):  # TLS: nobody answers the hello
            get(kube)


@pytest.mark.parametrize("verb", ["get", "list"])
def test_an_answer_that_is_too_large_is_refused(server: ApiServer, store: Store, verb: str) -> None:
    store.faults.send(faults.HUGE, verb)
    with (
        contextlib.closing(Kube(Connection(server.url))) as patient,
        pytest.raises(ApiError, match="more than 33554432 bytes"),
    ):
        get(patient) if verb == "get" else pods(patient)


def test_an_answer_that_ends_with_its_connection(kube: Kube, store: Store) -> None:
    store.faults.send(faults.PLAIN, "get")
    assert get(kube) == NODE


def test_a_long_list_comes_in_pages(kube: Kube, store: Store) -> None:
    for number in range(250):
        spec = {"nodeName": NODE}
        store.create(PODS, {"metadata": {"name": f"p{number}", "namespace": "gpu-operator"}, "spec": spec})
    assert len(pods(kube)) == 250
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
        target=lambda: (eventually(lambda: store.requests), signal.pthread_kill(main, signal.SIGUSR1))  # type: ignore[func-returns-value]
    )
    asked.start()
    began = time.monotonic()
    try:
        with pytest.raises(ApiError, match="a stop was asked for"):
            get(kube)
        assert time.monotonic() - began < 5  # of the ten seconds that a request may take
        kube.interrupt()  # nothing is under way: nothing happens
    finally:
        asked.join()
        signal.signal(signal.SIGUSR1, before)
        kube.close()
