# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of a rollout on a host: whose it is, what it keeps, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from ansible_collections.confidential.gpu.plugins.modules import rollout_record

GPU = "0000:17:00.0"
OTHER = "0000:3d:00.0"


class Host:
    """One host's record, as the module shows it."""

    def __init__(self, folder: Path, capsys: Any) -> None:
        self.path = folder / "state/rollout.json"
        self._capsys = capsys

    def run(self, state: str | None, name: str = "first", check: bool = False, **given: Any) -> dict[str, Any]:
        arguments = {"state": state, "name": name, "path": str(self.path), "by": "alice", **given}
        if state in ("claimed", "begun"):
            arguments = {"mode": "on", **arguments}
        arguments = {option: value for option, value in arguments.items() if value is not None}
        with patch_module_args({**arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            rollout_record.main()
        answer: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        return answer

    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.path.read_text())
        return found


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def test_from_claim_to_end(host: Host) -> None:
    assert host.run(None)["record"] is None
    steps: list[tuple[str, dict[str, Any]]] = [
        ("claimed", {}),
        ("begun", {"before": {GPU: False}}),
        ("passed", {}),
        ("ended", {}),
    ]
    for state, given in steps:
        answer = host.run(state, **given)
        assert answer["changed"], state
        assert answer["record"]["state"] == state
        assert answer["record"] == host.kept()
        assert answer["open"] == (state != "ended")
        assert not host.run(state, **given)["changed"], "once more is no change"
    assert host.kept()["before"] == {GPU: "off"}
    assert (host.path.stat().st_mode & 0o777) == 0o600
    assert [one.name for one in host.path.parent.iterdir() if one.suffix == ".tmp"] == []


def test_begun_again_keeps_what_was_there_at_first(host: Host) -> None:
    host.run("begun", before={GPU: "off"})
    host.run("begun", before={GPU: "on", OTHER: "devtools"})
    assert host.kept()["before"] == {GPU: "off", OTHER: "devtools"}
    host.run("passed")
    assert host.run("begun", before={GPU: "on"})["record"]["state"] == "begun", "it has to pass the gates once more"
    assert host.kept()["before"][GPU] == "off"


def test_a_claim_keeps_what_is_known(host: Host) -> None:
    for state in ("begun", "passed", "ended"):
        more: dict[str, Any] = {"before": {GPU: "off"}} if state == "begun" else {}
        host.run(state, **more)
        assert not host.run("claimed")["changed"], state
        assert host.kept()["state"] == state


def test_nothing_was_changed_so_there_is_nothing_to_pass(host: Host) -> None:
    host.run("claimed")
    assert not host.run("passed")["changed"]
    assert host.kept()["state"] == "claimed"
    assert host.run("ended")["changed"]


@pytest.mark.parametrize("state", ["claimed", "begun", "passed", "ended"])
@pytest.mark.parametrize("check", [False, True])
def test_two_rollouts_exclude_each_other(host: Host, state: str, check: bool) -> None:
    host.run("begun", before={GPU: "off"})
    before = host.path.read_bytes()
    answer = host.run(state, name="second", check=check)
    assert answer["failed"]
    assert answer["error"]["kind"] == "HeldByAnother"
    for words in ("first", "alice", host.kept()["since"], "rollout_name=first", "rollout_take_over=first"):
        assert words in answer["msg"]
    assert host.path.read_bytes() == before


def test_one_that_ended_is_followed_by_another(host: Host) -> None:
    host.run("begun", before={GPU: "off"})
    host.run("ended")
    assert host.run("claimed", name="second", mode="off")["changed"]
    assert (host.kept()["name"], host.kept()["mode"], host.kept()["before"]) == ("second", "off", {})


def test_only_the_one_that_is_named_is_taken_over(host: Host) -> None:
    host.run("claimed")
    assert host.run("claimed", name="second", take_over="third")["failed"]
    assert host.run("claimed", name="second", take_over="first")["changed"]
    assert host.kept()["name"] == "second"
    assert host.run("passed")["error"]["kind"] == "HeldByAnother", "who was overtaken learns of it"


def test_undo(host: Host) -> None:
    assert "no record of the rollout first" in host.run("claimed", undo=True)["msg"]
    host.run("begun", before={GPU: "off"})
    host.run("passed")
    host.run("ended")
    answer = host.run("claimed", undo=True, mode=None)
    assert (answer["record"]["state"], answer["record"]["undo"]) == ("claimed", True)
    assert answer["record"]["before"] == {GPU: "off"}
    assert host.run("begun", undo=True)["record"]["state"] == "begun"
    host.run("passed")
    host.run("ended")
    assert not host.run("claimed", undo=True)["changed"], "what was put back stays so"
    assert host.run("claimed")["record"]["undo"] is False, "and may be rolled out once more"


def test_a_name_means_one_mode(host: Host) -> None:
    host.run("claimed")
    assert "for mode on, not off" in host.run("claimed", mode="off")["msg"]
    assert "No mode is given" in host.run("claimed", mode=None)["msg"]


def test_check_mode_writes_nothing(host: Host) -> None:
    assert host.run("claimed", check=True)["changed"]
    assert not host.path.parent.exists()


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "x" * 64, "x\n"])
def test_names_that_are_none(host: Host, name: str) -> None:
    assert host.run("claimed", name=name)["error"]["kind"] == "InvalidRequest"
    assert not host.path.parent.exists()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '"x"', "{}", "[" * 5000, '{"name": 1, "mode": "on", "by": "", "since": "", "state": "x"}'],
)
def test_a_broken_record_is_not_taken_for_none(host: Host, content: str) -> None:
    host.path.parent.mkdir()
    host.path.write_text(content)
    for state in (None, "claimed"):
        assert host.run(state)["error"]["kind"] == "RecordUnreadable"
    assert host.path.read_text() == content


@pytest.mark.parametrize("what", ["symlink", "fifo", "folder"])
def test_what_is_no_file_is_not_followed(host: Host, tmp_path: Path, what: str) -> None:
    host.path.parent.mkdir()
    aim = tmp_path / "aim"
    aim.write_text("kept")
    if what == "symlink":
        host.path.symlink_to(aim)
    elif what == "fifo":
        os.mkfifo(host.path)
    else:
        host.path.mkdir()
    assert host.run("claimed")["error"]["kind"] == "RecordUnreadable"
    assert aim.read_text() == "kept"


def test_a_folder_that_cannot_be_written(host: Host) -> None:
    host.path.parent.write_text("a file")
    answer = host.run("claimed")
    assert answer["error"]["kind"] in ("NotPermitted", "RecordUnreadable")
