# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One cluster for all scenarios of a file, which begin in it bare and go on where the one before ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.cluster.kube.cluster import running  # noqa: E402
from tests.cluster.kube.programs import check_machine  # noqa: E402
from tests.coco.actors import Actors  # noqa: E402
from tests.coco.bench import FIGURES, Bench  # noqa: E402
from tools.needs import NotPossible  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    """For machines that have the real charts."""
    for name in ("nfd", "operator", "kata"):
        parser.addoption(f"--{name}-chart", default="", help="an archive of the real chart, instead of the stub")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bare cluster whose pods do what the real ones do."""
    try:
        check_machine()
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))
    with running(keep=ROOT / "tests/output/coco") as cluster:
        made = Bench(cluster, tmp_path_factory.mktemp("bench"))
        for name, key in (("nfd", "nfd"), ("operator", "gpu_operator"), ("kata", "kata")):
            made.charts[key] = request.config.getoption(f"--{name}-chart") or made.charts[key]
        made.prepare()
        with Actors(cluster.api) as actors:
            made.actors = actors
            yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of the run."""
    for line in FIGURES:
        terminalreporter.write_line(line)
