# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The modules of the report inside this process: arguments in, JSON out."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from report_answers import device, reading

from ansible_collections.confidential.gpu.plugins.module_utils._core import chain
from ansible_collections.confidential.gpu.plugins.modules import (
    audit_trail_info,
    cc_mode,
    cc_mode_info,
    cluster_cc_mode_info,
    fleet_report,
)

GPU, B200, A100 = "0000:01:00.0", "0000:02:00.0", "0000:05:00.0"
HERE = Path(__file__).parent
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_module(module: Any, **arguments: Any) -> dict[str, Any]:
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            module.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert bool(ended.value.code) == bool(result.get("failed"))
        return result

    return run_module


# --- what cc_mode records ---------------------------------------------------------------------------------------------


@pytest.fixture
def change(run: Run, emulated: Any) -> Run:
    def run_change(**arguments: Any) -> dict[str, Any]:
        return run(cc_mode, bus=f"vfio-user:{emulated.sockets}", **arguments)

    return run_change


def records(folder: Path) -> list[dict[str, Any]]:
    found = chain.check(str(folder), "ansible")
    assert found.findings == []
    return found.records


def test_a_change_is_recorded_before_it_writes_and_after(change: Run, tmp_path: Path) -> None:
    result = change(mode="on", devices=[GPU], audit_folder=str(tmp_path), asked_by="alice")
    began, ended = records(tmp_path)
    assert [began["event"], ended["event"]] == ["began", "change"]
    assert ended["asked"] == {"by": "alice", "how": "Ansible, the module cc_mode"}
    (one,) = ended["devices"]
    assert (one["address"], one["before"], one["desired"], one["after"]) == (GPU, "off", "on", "on")
    assert (ended["result"], ended["writer"], ended["host"]) == ("done", "ansible", os.uname().nodename)
    assert "after" not in began["devices"][0]
    tail = chain.check(str(tmp_path), "ansible").tail
    assert result["audit"] == {"number": 2, "hash": tail.hash, "problem": ""}


def test_what_writes_nothing_is_not_recorded(change: Run, tmp_path: Path) -> None:
    audit = {"audit_folder": str(tmp_path / "trail")}
    assert change(mode="off", devices=[GPU], **audit)["audit"]["number"] == 0
    assert change(mode="on", devices=[GPU, A100], **audit)["failed"]
    assert "audit" not in change(mode="on", devices=[GPU], _ansible_check_mode=True, **audit)
    assert not (tmp_path / "trail").exists()


def test_a_change_that_fails_is_recorded_with_what_was_read_back(change: Run, emulated: Any, tmp_path: Path) -> None:
    emulated.control.fault(device=B200, event="reset", action="mode_stuck")
    result = change(mode="on", devices=[GPU, B200], audit_folder=str(tmp_path))
    assert result["failed"]
    ended = records(tmp_path)[-1]
    assert (ended["result"], ended["reason"]) == ("failed", result["msg"])
    assert [one["after"] for one in ended["devices"]] == ["on", "off"]


def test_a_folder_that_cannot_be_written_is_a_warning(
    change: Run, emulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []  # Ansible keeps warnings for all of a process, which is here that of many tests
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, text: warned.append(text))
    (tmp_path / "file").touch()
    result = change(mode="on", devices=[GPU], audit_folder=str(tmp_path / "file/trail"))
    assert result["changed"]
    assert emulated.control.state(GPU)["mode"] == "on"
    assert "Not a directory" in result["audit"]["problem"]
    (warning,) = warned
    assert "audit record could not be written" in warning


def test_a_reading_says_when_it_was(run: Run, emulated: Any) -> None:
    result = run(cc_mode_info, bus=f"vfio-user:{emulated.sockets}", devices=[GPU])
    assert len(result["read_at"]) == len("2026-11-27T06:00:00Z")


# --- audit_trail_info -------------------------------------------------------------------------------------------------


@pytest.fixture
def trails(tmp_path: Path) -> Path:
    for name in ("operand", "ansible"):
        trail = chain.Trail(str(tmp_path / "trails"), name)
        for number in range(3):
            trail.append("change", {"turn": number, "devices": []})
    return tmp_path / "trails"


def test_trails_are_read_and_checked(run: Run, trails: Path) -> None:
    result = run(audit_trail_info, folder=str(trails), records=2)
    assert [(one["name"], one["state"], one["count"]) for one in result["trails"]] == [
        ("ansible", "whole", 3),
        ("operand", "whole", 3),
    ]
    assert [one["turn"] for one in result["trails"][0]["records"]] == [1, 2]
    anchors = {one["name"]: one["anchor"] for one in result["trails"]}
    (trails / "operand.jsonl").unlink()
    with_anchors = run(audit_trail_info, folder=str(trails), anchors=anchors)
    states = {one["name"]: (one["state"], [each["what"] for each in one["findings"]]) for one in with_anchors["trails"]}
    assert states == {"ansible": ("whole", []), "operand": ("broken", ["truncated"])}


def test_several_anchors_and_one_that_is_none(run: Run, trails: Path) -> None:
    anchor = run(audit_trail_info, folder=str(trails))["trails"][0]["anchor"]
    result = run(audit_trail_info, folder=str(trails), anchors={"ansible": [anchor, f"2 {'0' * 64}"]})
    assert [one["what"] for one in result["trails"][0]["findings"]] == ["modified"]
    assert "no number with a hash" in run(audit_trail_info, folder=str(trails), anchors={"ansible": "x"})["msg"]


def test_no_folder_is_no_trail_and_a_file_is_an_error(run: Run, trails: Path, tmp_path: Path) -> None:
    none = run(audit_trail_info, folder=str(tmp_path / "nothing"))
    assert (none["folder_exists"], none["trails"]) == (False, [])
    assert run(audit_trail_info, folder=str(trails / "operand.jsonl"))["error"]["kind"] == "NotPermitted"


def test_a_whole_folder_that_is_gone_is_missed_by_its_anchors(run: Run, tmp_path: Path) -> None:
    result = run(audit_trail_info, folder=str(tmp_path / "nothing"), anchors={"operand": f"3 {'0' * 64}"})
    assert [(one["name"], one["state"]) for one in result["trails"]] == [("operand", "broken")]


# --- the cluster ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    """A folder that stands for a cluster, and the program that serves it."""
    program = tmp_path / "kubectl"
    source = (HERE.parent / "coco/fake_kubectl.py").read_text()
    program.write_text(f"#!{sys.executable} -SE\n{source}")
    program.chmod(0o755)
    return {"kubectl": str(program), "kubeconfig": str(tmp_path / "cluster")}


def put(cluster: dict[str, Any], path: str, **content: Any) -> None:
    file = Path(cluster["kubeconfig"]) / (path + ".json")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def test_nodes_with_gpus_their_anchors_and_events(run: Run, cluster: dict[str, Any]) -> None:
    anchor = f"7 {'a' * 64}"
    labels = {"nvidia.com/cc.mode": "on", "nvidia.com/cc.mode.state": "on"}
    about = {"name": "worker-1", "labels": labels, "annotations": {"nvidia.com/cc.mode.audit": anchor}}
    put(cluster, "api/v1/nodes/worker-1", metadata=about, spec={"providerID": "x://1"})
    put(cluster, "api/v1/nodes/control-plane", metadata={"name": "control-plane"})
    told = {"reason": "CCModeSet", "message": "In mode on.", "source": {"component": "k8s-cc-manager"}}
    put(cluster, "api/v1/namespaces/default/events/a", involvedObject={"kind": "Node", "name": "worker-1"}, **told)
    put(cluster, "api/v1/namespaces/default/events/b", involvedObject={"kind": "Node", "name": "x"}, source={})
    result = run(cluster_cc_mode_info, **cluster)
    (node,) = result["nodes"]
    assert (node["name"], node["wanted"], node["provider_id"]) == ("worker-1", "on", "x://1")
    assert [one["reason"] for one in node["events"]] == ["CCModeSet"]
    assert result["anchors"] == {"worker-1": anchor}
    assert result["anchors_by_provider_id"] == {"x://1": anchor}


def test_a_cluster_that_cannot_be_reached_is_an_error(run: Run, cluster: dict[str, Any]) -> None:
    assert run(cluster_cc_mode_info, **cluster)["error"]["kind"] == "ClusterUnreachable"


# --- fleet_report -----------------------------------------------------------------------------------------------------


def test_a_report_and_the_one_after_it(run: Run, tmp_path: Path) -> None:
    folder = str(tmp_path / "reports")
    first = run(fleet_report, folder=folder, hosts=["a"], readings={"a": reading(device())})
    assert first["changed"]
    assert not first["signed"]
    assert (first["summary"]["protected"], first["summary"]["drift"]) == (1, 0)
    second = run(fleet_report, folder=folder, hosts=["a"], readings={"a": reading(device(mode="off"))})
    assert second["summary"]["drift"] == 2
    data = json.loads((tmp_path / "reports/latest/report.json").read_text())
    assert data["previous"]["file"] == f"{folder}/latest/report.json"
    alone = run(fleet_report, folder=folder, hosts=["a"], readings={"a": reading(device())}, previous="none")
    assert alone["summary"]["drift"] == 0


def test_check_mode_writes_no_report(run: Run, tmp_path: Path) -> None:
    result = run(fleet_report, folder=str(tmp_path / "r"), hosts=["a"], _ansible_check_mode=True)
    assert (result["changed"], result["path"], result["summary"]["unknown"]) == (False, "", 0)
    assert not (tmp_path / "r").exists()


def test_a_cluster_that_failed_is_in_the_report(run: Run, tmp_path: Path) -> None:
    failed = {"failed": True, "msg": "kubectl cannot be run."}
    run(fleet_report, folder=str(tmp_path / "r"), hosts=[], cluster=failed, cluster_name="prod")
    sources = json.loads((tmp_path / "r/latest/report.json").read_text())["sources"]
    assert (sources["cluster"], sources["cluster_problem"]) == ("prod", "kubectl cannot be run.")
    assert "kubectl cannot be run." in (tmp_path / "r/latest/report.html").read_text()


def test_a_report_that_cannot_be_made_is_an_error(run: Run, tmp_path: Path) -> None:
    result = run(fleet_report, folder=str(tmp_path / "r"), hosts=[], key=str(tmp_path / "no-key"))
    assert (result["error"]["kind"], result["failed"]) == ("InvalidRequest", True)
