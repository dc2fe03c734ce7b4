# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory, an emulated bare-metal manager, and the controllers between them, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ccm_bed import Bed, bed


@pytest.fixture
def make_bed() -> Iterator[Callable[..., Bed]]:
    """Beds of given data; they end with the test."""
    made: list[Any] = []

    def make(**how: Any) -> Bed:
        one = bed(**how)
        made.append(one)
        found: Bed = one.__enter__()
        return found

    yield make
    for one in made:
        one.__exit__(None, None, None)


@pytest.fixture
def some(make_bed: Callable[..., Bed]) -> Bed:
    """Four instances."""
    return make_bed()
