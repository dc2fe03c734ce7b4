# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The role cc_mode as ansible-playbook runs it: what the rest of the play knows afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


class Play:
    """One play on this machine, with a folder of local facts of its own."""

    def __init__(self, folder: Path, bus: str) -> None:
        self._folder = folder
        self._bus = bus
        self.facts = folder / "facts.d"
        self.facts.mkdir()
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)

    def run(self, *tasks: dict[str, Any], check: bool = False) -> str:
        """What ansible-playbook prints; the run must succeed."""
        play = {
            "hosts": "all",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "cc_mode_bus": self._bus,
                "cc_mode_fact_file": str(self.facts / "confidential_gpu.fact"),
                "cc_mode_install_tool": False,
            },
            "tasks": list(tasks),
        }
        path = self._folder / "play.yml"
        path.write_text(yaml.safe_dump([play]))
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self._folder), "ANSIBLE_NOCOLOR": "1"}
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, "--inventory=localhost,", "--connection=local", *["--check"] * check, str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def play(tmp_path: Path, h100: Any) -> Play:
    return Play(tmp_path, h100.bus_name)


def role(mode: str) -> dict[str, Any]:
    return {"import_role": {"name": "confidential.gpu.cc_mode"}, "vars": {"cc_mode_mode": mode}}


def local_facts(folder: Path) -> dict[str, Any]:
    return {"setup": {"gather_subset": ["!all", "!min", "local"], "fact_path": str(folder)}}


def holds(*conditions: str) -> dict[str, Any]:
    return {"assert": {"that": list(conditions)}}


def test_the_fact_is_known_beside_others(play: Play, h100: Any) -> None:
    (play.facts / "rack.fact").write_text(json.dumps({"unit": 7}))
    address = next(iter(h100.modes()))
    play.run(
        local_facts(play.facts),
        role("on"),
        holds(
            "ansible_local.confidential_gpu.mode == 'on'",
            "ansible_local.confidential_gpu.gpus['%s'] == 'on'" % address,
            "ansible_local.rack.unit == 7",
            "ansible_facts.ansible_local.confidential_gpu.mode == 'on'",
        ),
        role("off"),
        holds("ansible_local.confidential_gpu.mode == 'off'", "ansible_local.rack.unit == 7"),
    )
    assert h100.modes() == {address: "off"}


def test_the_fact_is_known_where_nothing_was_gathered_or_changed(play: Play) -> None:
    play.run(role("off"), holds("ansible_local.confidential_gpu.mode == 'off'"))


def test_a_later_gathering_counts(play: Play) -> None:
    newer = {"copy": {"dest": str(play.facts / "confidential_gpu.fact"), "content": '{"mode": "devtools"}'}}
    play.run(role("on"), newer, local_facts(play.facts), holds("ansible_local.confidential_gpu.mode == 'devtools'"))


def test_check_mode_sets_no_fact(play: Play, h100: Any) -> None:
    play.run(role("on"), holds("ansible_local is not defined"), check=True)
    assert set(h100.modes().values()) == {"off"}
