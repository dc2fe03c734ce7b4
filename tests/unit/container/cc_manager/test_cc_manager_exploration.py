# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every single event, and every failing request after it, at every state of a change.

Deeper searches take minutes: ``tests/cuts/explore_cc_manager.py``.
"""

from __future__ import annotations

import pytest
from exploration import Explorer


@pytest.mark.parametrize("busy", ["refuse", "drain"])
def test_nothing_that_can_happen_once_goes_wrong(busy: str) -> None:
    found = Explorer("--cc-manager-busy", busy).search(depth_max=1)
    assert found.wrong == []
    assert found.roots > 15
    assert found.states > 150


@pytest.mark.parametrize("busy", ["refuse", "drain"])
def test_no_order_of_two_events_goes_wrong(busy: str) -> None:
    found = Explorer("--cc-manager-busy", busy, retry=0, stop=0, fault=0).search(depth_max=2)
    assert found.wrong == []
    assert found.states > 150
