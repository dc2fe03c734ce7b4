# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What mypy checks: every folder of tests that is not left out by name, and every helper under one name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Two folders have a module "subject", and one name stands for one file.
NOT_CHECKED = {"cuts"}
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]


def test_every_folder_of_tests_is_checked() -> None:
    checked = {name.removeprefix("tests.") for name in SETTINGS["packages"]}
    there = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").glob("*/**/*.py")}
    assert there - checked == NOT_CHECKED


def test_every_file_beside_the_folders_is_checked() -> None:
    assert {f"tests.{path.stem}" for path in (ROOT / "tests").glob("*.py")} == set(SETTINGS["modules"])


def test_what_is_left_out_is_a_helper_that_has_the_same_rules() -> None:
    """It is checked where it is imported, by the name that is imported."""
    left_out = set(re.findall(r"[a-z_]+(?=[|\n])", SETTINGS["exclude"].partition("(.*/)?(")[2]))
    (rules,) = [one for one in SETTINGS["overrides"] if "unit.*" in one["module"]]
    assert left_out == {name for name in rules["module"] if not name.endswith(".*")}
    for name in left_out:
        places = [path for path in (ROOT / "tests").rglob(f"{name}.py") if "cuts" not in path.parts]
        assert len(places) == 1, f"{name} stands for {places}"
        said = re.compile(rf"^ *(from {name} import|import {name}\b)", re.MULTILINE)
        assert any(said.search(path.read_text()) for path in (ROOT / "tests").rglob("*.py")), f"nobody imports {name}"
