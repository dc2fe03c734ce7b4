# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An API server on loopback, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_api.clients import SILENCE_S, TIMEOUT_S, used
from fake_api.daemon_sets import NODES, PREFIX
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from kube.client import Kube
from kube.connection import Connection

NODE = "node-1"


@pytest.fixture
def store() -> Store:
    made = Store()
    made.create(NODES, new_node(NODE, **{PREFIX + "vfio-manager": "true"}))
    made.create(NODES, new_node("node-2"))
    return made


@pytest.fixture
def server(store: Store) -> Iterator[ApiServer]:
    with serving(store) as running:
        yield running


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
