# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of an emulated fleet, and of a controller for each ansible-core that is there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bmm_controller import FLEET, Controller, programs
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with launch(FLEET) as running:
        yield running


@pytest.fixture
def controller(emulator: Emulator, tmp_path: Path) -> Controller:
    return Controller(tmp_path, emulator, programs()["here"])


@pytest.fixture(params=list(programs()))
def each_controller(request: pytest.FixtureRequest, emulator: Emulator, tmp_path: Path) -> Controller:
    """One controller for each ansible-core that is there."""
    return Controller(tmp_path, emulator, programs()[request.param])
