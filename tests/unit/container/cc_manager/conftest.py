# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Sites for the CC manager's tests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from simulation import Site

settings.register_profile("plain", deadline=None, database=None, derandomize=True)
settings.load_profile("plain")


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """What a test configures of the log is gone after it."""
    logger = logging.getLogger("cc_manager")
    before = (logger.handlers, logger.propagate, logger.level)
    yield
    logger.handlers, logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture
def site() -> Iterator[Callable[..., Site]]:
    """Make a site; at the end nothing may have happened on it that never must."""
    made: list[Site] = []

    def make(*arguments: str, **options: Any) -> Site:
        made.append(Site(*arguments, **options))
        return made[-1]

    yield make
    for one in made:
        assert one.violations == []
