# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A cluster in memory for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cc_bed import Bed, bed


@pytest.fixture
def some() -> Iterator[Bed]:
    """Without nodes."""
    with bed() as made:
        yield made
