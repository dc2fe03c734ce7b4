# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One emulated node for each family, NVIDIA's command line on it, and the matrix of what was run at the end."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from emulator.launch import launch
from families import FAMILIES, FAST
from subject import Subject

COMMAND, CHECKED = "command", "checked"
PASSED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def subjects() -> Iterator[dict[str, Subject]]:
    """Family to its running node; a node is started when a test first wants it."""
    with contextlib.ExitStack() as running:

        class Started(dict[str, Subject]):
            def __missing__(self, name: str) -> Subject:
                family = FAMILIES[name]
                self[name] = Subject(family, running.enter_context(launch(family.node(), **FAST)))
                return self[name]

        yield Started()


@pytest.fixture
def subject(subjects: dict[str, Subject], family: str, request: pytest.FixtureRequest) -> Iterator[Subject]:
    """The family's node as it was after its start; the commands run on it are counted in the matrix."""
    found = subjects[family]
    found.emulator.control.restore()
    found.ran = []
    yield found
    for command in found.ran:
        request.node.user_properties.append((COMMAND, (family, command)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on the teardown's report, which comes after the commands are known, whether the test itself passed."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    if report.when == "teardown":
        report.user_properties.append((CHECKED, item.stash.get(PASSED, False)))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Family by command: how often the command was run in tests that passed, and in tests that failed."""
    passed: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") != "teardown":
                continue
            good = dict(report.user_properties).get(CHECKED, False)
            for name, value in report.user_properties:
                if name == COMMAND:
                    (passed if good else failed)[tuple(value)] += 1
    ran = {*passed, *failed}
    if not ran:
        return
    families = [name for name in FAMILIES if any(family == name for family, _command in ran)]
    terminalreporter.section("runs of NVIDIA's command line: passed, or passed/failed")
    terminalreporter.write_line("%-22s" % "command" + "".join("%14s" % name for name in families))
    for command in sorted({command for _family, command in ran}):
        cells = [_cell(passed[family, command], failed[family, command]) for family in families]
        terminalreporter.write_line("%-22s" % command + "".join("%14s" % cell for cell in cells))
    terminalreporter.write_line("%d runs, %d in failed tests" % (passed.total() + failed.total(), failed.total()))


def _cell(passed: int, failed: int) -> str:
    if failed:
        return "%d/%d" % (passed, failed)
    return str(passed or "-")
