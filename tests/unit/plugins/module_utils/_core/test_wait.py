# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Waiting, on a clock that the test turns."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import SYSTEM_CLOCK, poll


def test_the_first_true_answer_ends_it(clock: Any) -> None:
    answers = iter([0, "", "here", "later"])
    assert poll(lambda: next(answers), 10, 0.5, clock) == "here"
    assert clock.sleeps == [0.5, 0.5]


def test_it_asks_once_even_without_time(clock: Any) -> None:
    assert poll(lambda: 7, 0, 1, clock) == 7
    assert clock.sleeps == []


def test_it_gives_up_and_says_after_how_long(clock: Any) -> None:
    asked = []
    with pytest.raises(TimeoutError, match="nothing after 2 s"):
        poll(lambda: asked.append(clock.now()), 2, 1, clock)
    assert asked == [0, 1, 2]


def test_what_comes_at_the_last_moment_is_seen(clock: Any) -> None:
    come: list[int] = []
    clock.at(2, lambda: come.append(1))
    assert poll(lambda: come, 2, 1, clock) == [1]


def test_the_system_clock_grows() -> None:
    before = SYSTEM_CLOCK.now()
    SYSTEM_CLOCK.sleep(0.001)
    assert SYSTEM_CLOCK.now() - before >= 0.001
