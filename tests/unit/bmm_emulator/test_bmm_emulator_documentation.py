# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""docs/bare-metal.md tells of everything there is: its tables against the code, its example run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bmm_emulator import faults, world
from bmm_emulator.__main__ import build_parser
from bmm_emulator.errors import DataError
from bmm_emulator.launch import launch

from ansible_collections.confidential.gpu.plugins.module_utils._bmm.credentials import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/bare-metal.md").read_text(encoding="utf-8")


def rows(head: str) -> dict[str, str]:
    """First to second column of the table that begins so."""
    lines = TEXT.partition(f"| {head} |")[2].splitlines()[2:]
    table = [line.strip("|").split("|") for line in lines[: [*(line[:1] == "|" for line in lines), False].index(False)]]
    return {re.findall(r"`([^` ]+)", cells[0])[0]: cells[1].strip() for cells in table}


def test_actions() -> None:
    assert rows("action") == faults.ACTIONS


def test_keys_of_the_file() -> None:
    assert list(rows("key of the file")) == list(world.KEYS)


def test_options() -> None:
    named = {option for action in build_parser()._actions for option in action.option_strings}
    assert set(rows("option")) == {option for option in named if option.startswith("--")} - {"--help"}


def test_environment() -> None:
    for variable in ENVIRONMENT.values():
        assert f"`{variable}`" in TEXT


def test_the_example() -> None:
    example = re.findall(r"```yaml\n(org: acme\n.*?)```", TEXT, re.DOTALL)[0]
    with launch(yaml.safe_load(example)) as emulator:
        assert emulator.instance("gpu-299")["interfaces"][0]["ipAddresses"] == ["10.0.1.44"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"colour": "red"}, "unknown key"),
        ({"api": "other"}, "nico, carbide, forge"),
        ({"instances": [{"site": "none"}]}, "there is no site"),
        ({"instances": [{"addresses": ["10.0.0.0/31"], "count": 3}]}, "no address number"),
        ({"instances": [{"id": "1"}, {"id": "1"}]}, "there is one with the id"),
        ({"faults": [{"action": "burn"}]}, "unknown"),
        ({"faults": [{"action": "delay"}]}, "needs seconds"),
        ({"faults": [{"action": "empty", "times": 0}]}, "forever"),
    ],
)
def test_a_mistake_in_the_file_is_named(data: object, words: str) -> None:
    with pytest.raises(DataError, match=words), launch(data):
        pass


def test_one_command_starts_and_a_signal_ends_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bmm_emulator", "--log", str(tmp_path / "log")]
    environment = {"PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert re.fullmatch(r"ready: http://127\.0\.0\.1:\d+ org acme api nico token emulated\n", line)
