# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A running emulator for all tests of this folder; each test finds it as after the start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2] / "gpu-admin-tools"), str(HERE)]

from emulator import Emulator, launch  # noqa: E402
from emulator_node import HOPPER, NODE, UNHURRIED  # noqa: E402
from vfio_client import Client  # noqa: E402


@pytest.fixture(scope="session")
def running() -> Iterator[Emulator]:
    with launch(NODE) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Iterator[Emulator]:
    running.control.restore()
    yield running
    running.control.restore()


@pytest.fixture(scope="session")
def running_unhurried() -> Iterator[Emulator]:
    with launch(UNHURRIED) as emulator:
        yield emulator


@pytest.fixture
def unhurried(running_unhurried: Emulator) -> Iterator[Emulator]:
    """Devices that take long enough for a test to look while they do, on a busy machine too."""
    running_unhurried.control.restore()
    yield running_unhurried
    running_unhurried.control.restore()


@pytest.fixture
def connect(emulator: Emulator) -> Iterator[Callable[..., Client]]:
    """Opens connections and closes them at the end."""
    yield from clients(emulator)


@pytest.fixture
def connect_unhurried(unhurried: Emulator) -> Iterator[Callable[..., Client]]:
    """The same for the devices that take their time."""
    yield from clients(unhurried)


def clients(emulator: Emulator) -> Iterator[Callable[..., Client]]:
    opened: list[Client] = []

    def open_one(address: str = HOPPER, **options: bool) -> Client:
        opened.append(Client(emulator.sockets / f"{address}.sock", **options))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()
