# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A rollout over four hosts in two zones, each with an emulated GPU, by ansible-playbook."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from emulator.launch import launch

from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

ROOT = Path(__file__).resolve().parents[2]
ZONES = {"n1": "a", "n2": "a", "n3": "b", "n4": "b"}
# Of two hosts that a budget of two would allow, a zone gives one.
WAVES = ["wave 1 of 3: n1", "wave 2 of 3: n2, n3", "wave 3 of 3: n4"]


class Fleet:
    """Hosts that are this machine, each with an emulator and a record of its own."""

    def __init__(self, folder: Path, emulators: Mapping[str, Any]) -> None:
        self._folder = folder
        self.emulators = emulators
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)
        self.gate_log = folder / "gate.log"
        self.gate = folder / "gate.yml"
        self.gate.write_text(
            json.dumps([{"ansible.builtin.shell": "echo {{ rollout_wave_hosts | join(',') }} >> %s" % self.gate_log}])
        )
        hosts = {
            name: {
                "cc_mode_bus": "vfio-user:%s" % emulator.sockets,
                "cc_mode_fact_file": "",
                "rollout_record_path": str(self.record_path(name)),
                "rack_zone": ZONES[name],
            }
            for name, emulator in emulators.items()
        }
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "cc_mode_boot_timeout": 5,
            "rollout_become": False,
            "rollout_zone": "rack_zone",
            "rollout_budget": 2,
            "rollout_by": "alice",
        }
        self._inventory = folder / "inventory.json"
        self._inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))

    def record_path(self, name: str) -> Path:
        return self._folder / name / "rollout.json"

    def record(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.record_path(name).read_text())
        return found

    def play(self, succeeds: bool = True, name: str = "first", **variables: Any) -> str:
        """What the playbook prints."""
        given = {"cc_mode_mode": "on", "rollout_name": name, "rollout_gate_tasks": str(self.gate), **variables}
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self._folder), "ANSIBLE_NOCOLOR": "1"}
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, "-i", str(self._inventory), "confidential.gpu.rollout", "-e", json.dumps(given)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == succeeds, done.stdout + done.stderr
        # Ansible breaks no line of a message into a pipe, but quotes it.
        return done.stdout

    def modes(self) -> dict[str, str]:
        return {name: state["mode"] for name, state in self._states().items()}

    def resets(self) -> dict[str, int]:
        return {name: state["counters"]["resets"] for name, state in self._states().items()}

    def _states(self) -> dict[str, Any]:
        return {name: next(iter(one.control.state().values())) for name, one in self.emulators.items()}

    def gates(self) -> list[str]:
        """The waves that have passed the gate since it was asked last."""
        found = self.gate_log.read_text().split() if self.gate_log.exists() else []
        self.gate_log.unlink(missing_ok=True)
        return found

    @contextlib.contextmanager
    def used(self, name: str) -> Iterator[None]:
        """Somebody uses the host's GPU."""
        (function,) = VfioUserBus(str(self.emulators[name].sockets)).find()
        function.open()
        try:
            yield
        finally:
            function.close()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(launch("h100-pcie", boot_s=0.05, flr_s=0.005, rpc_s=0.0002)) for name in ZONES
        }
        yield Fleet(tmp_path, started)


def changed(printed: str) -> dict[str, int]:
    """How many changes the recap counts, by host."""
    return {name: int(count) for name, count in re.findall(r"^(n\d)\s+: .*\bchanged=(\d+)", printed, re.MULTILINE)}


def test_a_rollout_from_the_dry_run_to_the_undo(fleet: Fleet) -> None:
    printed = fleet.play(rollout_dry_run=True)
    assert re.findall(r"wave \d of \d: [n0-9, ]+", printed) == WAVES
    assert set(fleet.modes().values()) == {"off"}
    assert not fleet.record_path("n1").exists(), "a dry run takes no host"

    with fleet.used("n3"):
        printed = fleet.play(succeeds=False)
    for words in ("Wave 2 of 3 of the rollout first", "n3: ", "0000:17:00.0", "run the same command again"):
        assert words in printed
    assert fleet.modes() == {"n1": "on", "n2": "on", "n3": "off", "n4": "off"}, "those of its wave come to their end"
    assert fleet.gates() == ["n1"], "the second wave has not come to its gate"
    assert {name: fleet.record(name)["state"] for name in ZONES} == {
        "n1": "passed",
        "n2": "begun",
        "n3": "claimed",
        "n4": "claimed",
    }

    printed = fleet.play(succeeds=False, name="second", cc_mode_mode="off")
    for words in ("n1: the rollout first (mode on) has it", "begun by alice at", "rollout_take_over"):
        assert words in printed
    assert fleet.modes()["n1"] == "on"

    fleet.play()
    assert set(fleet.modes().values()) == {"on"}
    assert set(fleet.resets().values()) == {1}, "none was changed twice"
    assert fleet.gates() == ["n2,n3", "n4"], "what has passed is not asked once more"
    assert {fleet.record(name)["state"] for name in ZONES} == {"ended"}
    assert fleet.record("n1")["before"] == {"0000:17:00.0": "off"}

    assert changed(fleet.play()) == dict.fromkeys(ZONES, 0)
    assert fleet.gates() == []

    fleet.play(rollout_undo=True)
    assert set(fleet.modes().values()) == {"off"}
    assert fleet.gates() == ["n1", "n2,n3", "n4"]
    assert {fleet.record(name)["state"] for name in ZONES} == {"ended"}


def test_an_undo_after_a_failure_frees_all_hosts(fleet: Fleet) -> None:
    with fleet.used("n1"):
        fleet.play(succeeds=False)
    assert "No host has modes from before" in fleet.play(succeeds=False, rollout_undo=True)
    with fleet.used("n3"):
        fleet.play(succeeds=False)
    fleet.play(rollout_undo=True)
    assert set(fleet.modes().values()) == {"off"}
    assert fleet.resets() == {"n1": 2, "n2": 2, "n3": 0, "n4": 0}
    assert {fleet.record(name)["state"] for name in ZONES} == {"ended"}
