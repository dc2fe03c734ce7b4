# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One API server for all tests; each brings its own bare-metal manager."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bmm_emulator.launch import launch  # noqa: E402
from bmm_emulator.server import Emulator  # noqa: E402

from tests.cloud.programs import FIGURES, grant  # noqa: E402
from tests.cloud.server import Child, Server, running  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

DATA = {"instances": [{"name": "gpu-{n}", "count": 6, "type": "gpu.8xh100", "addresses": ["10.0.0.0/24", "fd00::/64"]}]}


@pytest.fixture(scope="session")
def shared() -> Iterator[Server]:
    """etcd and an API server."""
    try:
        with running() as made:
            yield made
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def server(shared: Server, tmp_path: Path) -> Iterator[Server]:
    """It, with the chart's rights and without nodes; what a test starts is ended."""
    grant(shared, tmp_path)
    shared.clear()
    shared.forget()
    before: list[Child] = list(shared.started)
    yield shared
    for one in shared.started:
        if one not in before and one not in shared.children:
            one.end()
    shared.started = before


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """Six instances."""
    with launch(DATA) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of the run."""
    for line in FIGURES:
        terminalreporter.write_line(line)
