# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP port: what the probes are answered, and what whoever can reach it cannot do to it."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.error
import urllib.request

import pytest
from fake_api.waiting import SOON_S, eventually
from kube.health import STALE_S, STUCK_S, Health
from kube.pages import CONNECTIONS_MAX, LIFE_S, Pages
from kube.port import Server
from prometheus_client import CollectorRegistry


class SomeWatch:
    """A watch as the health sees it."""

    heard_at = 0.0
    is_alive = True
    has_ended = False


class Probed:
    """A port and what is behind it."""

    def __init__(self) -> None:
        self.now = [0.0]
        self.health = Health(["node"], lambda: self.now[0])
        pages = Pages(CollectorRegistry(), lambda: self.health.is_alive, self.health.problems)
        self.server = Server(0, pages)
        self.server.start()

    def status(self, path: str) -> int:
        try:
            url = f"http://127.0.0.1:{self.server.port}{path}"
            with urllib.request.urlopen(url, timeout=SOON_S) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code


@pytest.fixture
def probed() -> Probed:
    return Probed()


def test_a_main_loop_that_hangs_fails_the_probes(probed: Probed) -> None:
    probed.health.ready = True
    probed.health.busy()
    assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 200)
    probed.now[0] += STUCK_S
    assert (probed.status("/healthz"), probed.status("/readyz")) == (503, 503)
    probed.health.idle()
    assert probed.status("/healthz") == 200


def test_a_dead_watch_fails_the_probes(probed: Probed) -> None:
    watch = SomeWatch()
    probed.health.ready = True
    probed.health.follow("pods", watch)
    assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 200)
    watch.is_alive = False
    assert (probed.status("/healthz"), probed.status("/readyz")) == (503, 503)


def test_an_old_request_is_not_ready_but_alive(probed: Probed) -> None:
    probed.health.ready = True
    probed.health.follow("node", SomeWatch())
    probed.now[0] += STALE_S
    assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 503)
    assert probed.health.silence_s("node") == STALE_S


def test_what_is_not_known_is_not_ready(probed: Probed) -> None:
    assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 503)
    assert (probed.status("/metrics"), probed.status("/other")) == (200, 404)


@pytest.mark.parametrize("said", [b"", b"GET /healthz HT"])
def test_who_opens_connections_and_says_nothing_keeps_nobody_out(probed: Probed, said: bytes) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _number in range(4 * CONNECTIONS_MAX):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", probed.server.port), SOON_S))
            silent.sendall(said)
        assert probed.status("/healthz") == 200
        # Sooner than silence ends a connection.
        eventually(lambda: threading.active_count() <= before + CONNECTIONS_MAX, LIFE_S / 2)


def test_what_is_not_ready_is_said(probed: Probed) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{probed.server.port}/readyz?verbose", timeout=SOON_S)
    with caught.value as answer:
        assert answer.read() == b"What is known is not told yet.\n"
