# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Watches that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fake_api.waiting import eventually
from kube.client import Kube
from kube_tools import Told


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
