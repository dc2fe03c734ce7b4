# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The forms of answers that type checkers know are those that the modules document, on both sides of the border.

That the modules' real answers have them: test_modules.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from answer_forms import amiss, undocumented

from ansible_collections.confidential.gpu.plugins.module_utils._core import answers
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest, Several
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import host
from ansible_collections.confidential.gpu.plugins.modules import cc_mode, cc_mode_info

ROOT = Path(__file__).resolve().parents[4]
OURS = "ansible_collections.confidential.gpu.plugins"


@pytest.mark.parametrize(
    ("documentation", "form", "not_documented"),
    [
        (cc_mode_info.RETURN, answers.InfoAnswer, {"changed"}),
        (cc_mode.RETURN, answers.ChangeAnswer, {"changed", "diff"}),
    ],
    ids=["cc_mode_info", "cc_mode"],
)
def test_an_answer_has_the_form_that_is_documented(documentation: str, form: Any, not_documented: set[str]) -> None:
    documented = yaml.safe_load(documentation)
    error = documented.pop("error")
    assert list(undocumented(documented, form, not_documented)) == []
    assert list(amiss(error["sample"], answers.Problem)) == []


def test_what_is_registered_has_all_of_an_answer() -> None:
    answer, registered = get_type_hints(answers.InfoAnswer), get_type_hints(answers.RegisteredInfo)
    assert {key: registered.get(key) for key in answer} == answer


def test_errors_and_facts_of_the_host_have_their_forms(tmp_path: Path) -> None:
    error = InvalidRequest("One.", "Do this.", device="a")
    assert list(amiss(error.as_dict(), answers.Problem)) == []
    assert list(amiss(Several([error, error]).as_dict(), answers.Problem)) == []
    assert list(amiss(host.facts(str(tmp_path)), answers.HostFacts)) == []


def test_the_cc_manager_has_the_same_file() -> None:
    own, theirs = (ROOT / path for path in ("container/cc_manager/answers.py", "plugins/module_utils/_core/answers.py"))
    assert own.is_symlink()
    assert own.resolve() == theirs.resolve()


@pytest.mark.parametrize(
    "program",
    [f"{OURS}.modules.cc_mode", f"{OURS}.modules.cc_mode_info", f"{OURS}.modules.fleet_report", "cc_manager.process"],
)
def test_no_program_loads_it(program: str, tmp_path: Path) -> None:
    (tmp_path / "ansible_collections/confidential").mkdir(parents=True)
    (tmp_path / "ansible_collections/confidential/gpu").symlink_to(ROOT)
    code = f"import sys, {program}\nprint([one for one in sys.modules if one.endswith('.answers')])"
    path = f"{tmp_path}:{ROOT / 'container'}"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


# --- the comparison itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "hint", "said"),
    [
        ({}, answers.AuditTail, "number is missing"),
        ({"number": 1, "hash": "", "problem": "", "more": 1}, answers.AuditTail, "more is not a key of AuditTail"),
        ({"number": True, "hash": "", "problem": ""}, answers.AuditTail, "answer.number: True is not <class 'int'>"),
        ([{"device": "a", "step": "reset", "knob": 1}], list[answers.PlanStep], "answer[0].knob: 1 is not"),
        ({"stage": "long"}, dict[str, float], "answer.stage: 'long' is not"),
        ([], answers.Diff, "no Diff"),
        (None, str, "None is not"),
    ],
)
def test_a_value_of_another_form_is_told(value: object, hint: Any, said: str) -> None:
    assert any(said in one for one in amiss(value, hint))


@pytest.mark.parametrize(
    ("documented", "said"),
    [
        ({}, "only one of both has after"),
        ({"more": {}}, "only one of both has more"),
        ({"before": {"type": "int", "sample": ""}}, "documented as int"),
        ({"before": {"type": "str", "sample": 1}}, "sample of answer.before: 1 is not"),
        ({"before": {"type": "str"}}, "no sample"),
    ],
)
def test_a_documentation_of_another_form_is_told(documented: dict[str, Any], said: str) -> None:
    assert any(said in one for one in undocumented(documented, answers.Diff, set()))
