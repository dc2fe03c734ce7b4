# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The runner of the suites: what counts as a failure, and what the last lines say."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
YES = (sys.executable, "-c", "")
NO = (sys.executable, "-c", "raise SystemExit(3)")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("suite_runner", ROOT / "tests" / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["suite_runner"] = module
    spec.loader.exec_module(module)
    return module


runner = _load()


def ended(*given: object, require_all: bool = False) -> tuple[str, int]:
    """The table of these suites, run."""
    text, code = runner.table([runner.run(suite, ROOT) for suite in given], require_all)
    return str(text), int(code)


def test_all_passed() -> None:
    text, code = ended(runner.Suite("a", [YES]), runner.Suite("b", [YES, YES]))
    assert code == 0
    assert text.splitlines()[-1] == "2 passed, 0 failed"


def test_one_failed_command_fails_its_suite_and_the_run() -> None:
    text, code = ended(runner.Suite("a", [YES]), runner.Suite("b", [NO, YES]))
    assert code == 1
    assert text.splitlines()[-1] == "1 passed, 1 failed"
    assert "FAILED" in text
    assert "status 3" in text


def test_a_suite_for_root_alone_says_so() -> None:
    text, _code = ended(runner.Suite("a", [YES]), runner.Suite("b", [YES], as_root=True))
    assert ("run it as root" in text) == (os.geteuid() != 0)


def test_a_missing_tool_is_named_with_its_remedy_and_fails_only_where_all_is_required() -> None:
    needy = runner.Suite("b", [YES], tools=["no-such-tool"], enable="apt install it")
    text, code = ended(runner.Suite("a", [YES]), needy)
    assert code == 0
    assert "no no-such-tool: apt install it" in text
    text, code = ended(runner.Suite("a", [YES]), needy, require_all=True)
    assert code == 1
    assert text.splitlines()[-1] == "1 passed, 1 failed"


def test_a_run_in_which_nothing_ran_is_no_success() -> None:
    text, code = ended(runner.Suite("b", [YES], files="no/such/*.py"))
    assert code == 1
    assert text.splitlines()[-1] == "0 passed, 0 failed"


def test_suites_are_selected_by_name_and_group_in_their_own_order() -> None:
    every = [runner.Suite(name, []) for name in ("layers", "unit", "sanity-3.11", "sanity-3.12")]
    assert [suite.name for suite in runner.select(every, ["sanity", "layers"])] == [
        "layers",
        "sanity-3.11",
        "sanity-3.12",
    ]
    assert runner.select(every, []) == every


def test_a_suite_that_takes_long_runs_only_when_it_is_named() -> None:
    every = [runner.Suite("fast", [YES]), runner.Suite("slow", [YES], on_request=True)]
    assert [suite.name for suite in runner.select(every, [])] == ["fast"]
    assert [suite.name for suite in runner.select(every, ["slow"])] == ["slow"]


def test_what_takes_long_is_built_beside_other_suites(tmp_path: Path) -> None:
    there, absent = tmp_path / "there", tmp_path / "absent"
    every = [
        runner.Suite("slow", [YES], prepare=("touch", str(there))),
        runner.Suite("needy", [YES], tools=["no-such-tool"], prepare=("touch", str(absent))),
    ]
    with runner.prepared(every, tmp_path / "log"):
        until_it_exists(there)
    assert not absent.exists()


def test_a_build_does_not_outlive_the_run(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    every = [runner.Suite("slow", [YES], prepare=("sh", "-c", f"exec > {pipe}; echo begun; exec sleep 600"))]
    with runner.prepared(every, tmp_path / "log"):
        held = os.open(pipe, os.O_RDONLY)
        assert os.read(held, 100) == b"begun\n"
    # The pipe's other end is closed by the end of the process, and by nothing else.
    readable, _, _ = select.select([held], [], [], 30)
    assert readable
    assert os.read(held, 100) == b""
    os.close(held)


def until_it_exists(path: Path, timeout_s: float = 30) -> None:
    """Wait for a file of a process that runs beside the test."""
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not made"
        time.sleep(0.01)


def test_a_suite_over_its_budget_is_a_warning_and_no_failure() -> None:
    outcomes = [
        runner.Outcome(runner.Suite("quick", [], budget_s=10), runner.PASSED, 9.9),
        runner.Outcome(runner.Suite("slow", [], budget_s=10), runner.PASSED, 12.0),
    ]
    text, code = runner.table(outcomes, require_all=True)
    lines = text.splitlines()
    assert code == 0
    assert [line for line in lines if "warning" in line] == ["warning: slow took 12 s, its budget is 10 s"]
    assert [line.split() for line in lines if line.startswith("slow")] == [["slow", "passed", "12.0", "10"]]
    assert [line.split()[:2] for line in lines if line.startswith("all")] == [["all", "21.9"]]
    assert lines[-1] == "2 passed, 0 failed"


def test_a_run_over_the_budget_of_all_is_a_warning() -> None:
    outcomes = [runner.Outcome(runner.Suite("slow", [], budget_s=9000), runner.PASSED, runner.BUDGET_S + 60.0)]
    text, _code = runner.table(outcomes, require_all=False)
    assert "warning: the suites took 74 minutes, the budget is 73" in text.splitlines()


def test_the_budgets_of_the_suites_add_up_to_that_of_all() -> None:
    each = {suite.name.partition("-3.")[0]: suite.budget_s for suite in runner.suites() if not suite.on_request}
    assert sum(each.values()) <= runner.BUDGET_S


def test_a_suite_that_is_not_there_is_refused() -> None:
    every = [runner.Suite("unit", [YES])]
    with pytest.raises(KeyError):
        runner.select(every, ["unti"])


def test_this_python_is_found_and_a_dead_shim_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = tmp_path / "python3.14"
    dead.write_text("#!/bin/sh\necho 'command not found' >&2\nexit 127\n")
    dead.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    found = runner.pythons()
    assert found == {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}


def test_a_suite_for_root_does_not_run_as_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    text, code = ended(runner.Suite("a", [YES]), runner.Suite("b", [YES], as_root=True))
    assert code == 0
    assert "run it as root" in text


def test_every_python_compiles_and_imports_and_the_oldest_and_the_newest_run_all_of_sanity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "pythons", lambda: {"3.9": "nine", "3.11": "eleven", "3.12": "twelve"})
    asked = {suite.name: list(suite.commands[0][2:]) for suite in runner.sanity()}
    assert asked == {
        "sanity-3.9": ["nine"],
        "sanity-3.11": ["eleven", "compile", "import"],
        "sanity-3.12": ["twelve"],
    }


def test_contributors_read_which_suites_run_only_when_they_are_named() -> None:
    """In the table of CONTRIBUTING.md, where one row may stand for several."""
    rows = [line.split("|") for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `")]
    told = {
        name.replace("-3.x", ""): row[2].strip().startswith("on request")
        for row in rows
        for name in re.findall(r"`([^`]+)`", row[1])
    }
    assert told == {suite.name.partition("-3.")[0]: suite.on_request for suite in runner.suites()}


def test_the_releases_of_kubernetes_are_those_that_can_be_built() -> None:
    modules = (ROOT / "tests/cluster/go").glob("kubernetes-*/go.mod")
    assert sorted(runner.RELEASES) == sorted(path.parent.name.removeprefix("kubernetes-") for path in modules)
