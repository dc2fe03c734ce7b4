# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Work on many devices at once."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.parallel import each
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceGone


def test_all_work_at_the_same_time_and_answers_keep_their_order() -> None:
    together = threading.Barrier(4, timeout=10)

    def work(number: int) -> int:
        together.wait()
        return number * number

    outcomes = each([1, 2, 3, 4], work)
    assert [(one.item, one.answer, one.error) for one in outcomes] == [(n, n * n, None) for n in (1, 2, 3, 4)]


def test_an_error_stays_with_its_item() -> None:
    error = DeviceGone("B.", "C.")

    def work(name: str) -> str:
        if name == "b":
            raise error
        return name.upper()

    outcomes = each(["a", "b", "c"], work)
    assert [(one.answer, one.error) for one in outcomes] == [("A", None), (None, error), ("C", None)]


def test_a_defect_is_raised_but_only_when_all_have_ended() -> None:
    crashed = threading.Event()
    finished = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            crashed.set()
            raise ZeroDivisionError
        assert crashed.wait(10)
        finished.set()

    with pytest.raises(ZeroDivisionError):
        each([0, 1], work)
    assert finished.is_set()


def test_nothing_to_do() -> None:
    assert each([], print) == []
