# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A running emulator for all tests of this folder; each test finds it as after the start."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "gpu-admin-tools"), str(Path(__file__).parent)]

from emulator import Emulator, launch  # noqa: E402
from vfio_client import Client  # noqa: E402

HOPPER, SWITCH, B200, RTX, OLD, ASLEEP, A100 = (f"0000:{bus:02x}:00.0" for bus in range(0x10, 0x17))
NODE = {
    "name": "unit",
    "timing": {"flr_s": 0.02, "boot_s": 0.02, "rpc_s": 0.001},
    "devices": [
        {"address": HOPPER, "model": "h100-sxm", "module_id": 3},
        {"address": SWITCH, "model": "nvswitch-ls10"},
        {"address": B200, "model": "b200", "timing": {"firewall_s": 0.01}},
        {"address": RTX, "model": "rtx-pro-6000", "timing": {"firewall_s": 0.01}},
        {"address": OLD, "model": "h100-pcie", "firmware": "old", "locked": ["CCM"], "flr": False},
        {"address": ASLEEP, "model": "h200", "power": "d3hot", "memory_decode": False, "knobs": {"CCM": 1, "CCD": 1}},
        {"address": A100, "model": "a100"},
    ],
}


@pytest.fixture(scope="session")
def running() -> Iterator[Emulator]:
    with launch(NODE) as emulator:
        yield emulator


@pytest.fixture
def emulator(running: Emulator) -> Iterator[Emulator]:
    running.control.restore()
    yield running
    running.control.restore()


@pytest.fixture
def connect(emulator: Emulator) -> Iterator[Callable[..., Client]]:
    """Opens connections and closes them at the end."""
    opened: list[Client] = []

    def open_one(address: str = HOPPER, **options: bool) -> Client:
        opened.append(Client(emulator.sockets / f"{address}.sock", **options))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()
