# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The playbook report, as ansible-playbook runs it, on emulated hosts and one that does not answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Nothing listens at port 1 of this machine: the connection is refused at once.
SILENT = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
NASTY = "rack</script><b>"


class Fleet:
    """Hosts that are this machine, each with devices of its own."""

    def __init__(self, folder: Path, sites: dict[str, Any]) -> None:
        self._folder = folder
        self.sites = sites
        self.reports = folder / "reports"
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)
        hosts: dict[str, Any] = {NASTY: SILENT}
        for name, site in sites.items():
            bus, trail = site.bus_name, str(self.trail(name))
            hosts[name] = {"ansible_connection": "local", "report_bus": bus, "report_audit_folder": trail}
            hosts[name] |= {"cc_mode_bus": bus, "cc_mode_audit_folder": trail}
        shared = {"ansible_python_interpreter": sys.executable, "report_become": False, "cc_mode_become": False}
        self._inventory = folder / "inventory.json"
        self._inventory.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))

    def trail(self, host: str) -> Path:
        return self._folder / "trails" / host

    def play(self, name: str, **variables: Any) -> str:
        """What ansible-playbook prints; the run must succeed."""
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(self._folder), "ANSIBLE_NOCOLOR": "1"}
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory", str(self._inventory)]
        command += ["--extra-vars", json.dumps(variables), str(ROOT / "playbooks" / f"{name}.yml")]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def cluster(self, *nodes: dict[str, Any]) -> dict[str, str]:
        """Variables for a cluster that is a folder."""
        program, folder = self._folder / "kubectl", self._folder / "cluster"
        source = (ROOT / "tests/unit/plugins/coco/fake_kubectl.py").read_text()
        program.write_text(f"#!{sys.executable} -SE\n{source}")
        program.chmod(0o755)
        for node in nodes:
            file = folder / f"api/v1/nodes/{node['metadata']['name']}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(node))
        return {"report_cluster": "true", "report_kubectl": str(program), "report_kubeconfig": str(folder)}

    def report(self, **variables: Any) -> dict[str, Any]:
        """Make a report; its data."""
        self.play("report", report_folder=str(self.reports), **variables)
        found: dict[str, Any] = json.loads((self.reports / "latest/report.json").read_text())
        return found


@pytest.fixture
def fleet(tmp_path: Path, running: Callable[[str], Any]) -> Fleet:
    return Fleet(tmp_path, {"gpu-1": running("h100-pcie"), "gpu-2": running("mixed")})


def test_a_fleet_from_the_first_report_to_a_trail_that_was_changed(fleet: Fleet, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    changed = fleet.play(
        "cc_mode", cc_mode_mode="on", cc_mode_hosts="gpu-1", cc_mode_fact_file="", cc_mode_asked_by="alice"
    )
    assert "changed=1" in changed
    first = fleet.report(report_key=str(tmp_path / "key"))
    verdicts = {(one["host"], one["address"]): (one["verdict"], one["mode"]) for one in first["devices"]}
    assert verdicts[("gpu-1", "0000:17:00.0")] == ("protected", "on")
    assert verdicts[(NASTY, "")] == ("unknown", None)
    assert {verdict for (host, _address), (verdict, _mode) in verdicts.items() if host == "gpu-2"} >= {"unprotected"}
    assert first["summary"]["hosts"] == 3
    assert first["summary"]["hosts_not_reached"] == 1
    assert [one["asked_by"] for one in first["devices"] if one["host"] == "gpu-1"] == ["alice"]
    (trail,) = [one for one in first["trails"] if one["host"] == "gpu-1"]
    assert (trail["name"], trail["state"], trail["count"]) == ("ansible", "whole", 2)
    assert (fleet.reports / "latest/SHA256SUMS.sig").exists()
    assert NASTY not in (fleet.reports / "latest/report.html").read_text()

    file = fleet.trail("gpu-1") / "ansible.jsonl"
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    fleet.sites["gpu-1"].control.set("0000:17:00.0", mode="off")
    labels = {"nvidia.com/cc.mode": "on"}
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:nvidia.com/cc.mode": {}}}}
    asked = [{"manager": "kubectl-label", "time": "2026-11-27T06:00:00Z", "fieldsV1": fields}]
    node = {"metadata": {"name": "gpu-2", "labels": labels, "managedFields": asked}}
    second = fleet.report(**fleet.cluster(node))
    assert {one["asked_by"] for one in second["devices"] if one["host"] == "gpu-2"} == {"kubectl-label"}
    assert {one["host"]: one["wanted"] for one in second["hosts"]} == {"gpu-1": "", "gpu-2": "on", NASTY: ""}
    assert [(one["host"], one["what"], one["before"], one["now"]) for one in second["drift"]] == [
        ("gpu-1", "mode", "on", "off"),
        ("gpu-1", "verdict", "protected", "unprotected"),
    ]
    (trail,) = [one for one in second["trails"] if one["host"] == "gpu-1"]
    assert (trail["state"], [one["what"] for one in trail["findings"]]) == ("broken", ["truncated"])
    assert second["previous"]["made_at"] == first["made_at"]
