# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The same work on many devices at once."""

from __future__ import annotations

import threading
from typing import Callable, Generic, Optional, Sequence, TypeVar

from .errors import ExplainedError

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Outcome(Generic[Item, Answer]):
    """What became of one item: an answer, or the ExplainedError that came instead."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.answer: Optional[Answer] = None
        self.error: Optional[ExplainedError] = None
        self.crash: Optional[BaseException] = None


def each(items: Sequence[Item], work: Callable[[Item], Answer]) -> list[Outcome[Item, Answer]]:
    """Do the work on every item, a thread for each, and return when all have ended.

    A ExplainedError stays with its item; anything else is a defect of ours and is raised here.
    """
    outcomes = [Outcome[Item, Answer](item) for item in items]
    threads = [threading.Thread(target=_run, args=(outcome, work)) for outcome in outcomes[1:]]
    for thread in threads:
        thread.start()
    for outcome in outcomes[:1]:
        _run(outcome, work)
    for thread in threads:
        thread.join()
    for outcome in outcomes:
        if outcome.crash is not None:
            raise outcome.crash
    return outcomes


def _run(outcome: Outcome[Item, Answer], work: Callable[[Item], Answer]) -> None:
    try:
        outcome.answer = work(outcome.item)
    except ExplainedError as error:
        outcome.error = error
    except BaseException as error:  # noqa: BLE001  (handed over to the thread that asked)
        outcome.crash = error
