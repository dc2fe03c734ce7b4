# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Emulators of the bare-metal manager's API, and clients of them whose pauses take no time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator

from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Client
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.credentials import token_source
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.settings import Settings

FLEET = {
    "clients": [{"id": "ci", "secret": "s3cr3t", "life_s": 300}],
    "ngc_keys": ["key-1"],
    "timing": {"reboot_s": 0.0},
    "sites": [{"name": "sjc4", "location": {"city": "San Jose", "state": "CA", "country": "USA"}}, {"name": "rno1"}],
    "instances": [
        {"name": "gpu-{n:03d}", "count": 250, "addresses": ["10.0.0.0/16", "fd00::/64"], "type": "gpu.8xh100"},
        {"name": "alien", "tenant": "other"},
        {"name": "gone", "status": "Terminated"},
    ],
}
Connect = Callable[..., Client]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with launch(FLEET) as running:
        yield running


@pytest.fixture
def connect(emulator: Emulator, clock: Any) -> Iterator[Connect]:
    """A client; keywords are credentials, or settings if they are named so."""
    clients: list[Client] = []

    def make(observe: Any = lambda call: None, kind: type[Client] = Client, **given: Any) -> Client:
        wanted = {name: given.pop(name) for name in list(given) if name in Settings._fields}
        settings = Settings(**{"endpoint": emulator.url, "org": "acme", "timeout_s": 5.0, **wanted})
        tokens = token_source(given or {"token": "emulated"}, clock=clock)
        clients.append(kind(settings, tokens, clock, random.Random(1), observe))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
