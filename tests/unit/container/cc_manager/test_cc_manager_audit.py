# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager's audit trail: what is recorded of a change, through kills, and in a folder that cannot be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cc_manager import chain
from kube.settings import BadSetting
from simulation import DEVICES, GPUS, MODE, NODE, NODES, Site

Make = Callable[..., Site]
AUDIT = "nvidia.com/cc.mode.audit"


def auditing(site: Make, folder: Path, *arguments: str) -> Site:
    return site("--cc-manager-audit-folder", str(folder), *arguments)


def checked(folder: Path, *anchors: str) -> chain.Checked:
    found = chain.check(str(folder), "operand", [one for one in map(chain.anchor, anchors) if one])
    assert found.findings == []
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    return checked(folder).records


def events(folder: Path) -> list[str]:
    return [one["event"] for one in records(folder)]


def ask(one: Site, mode: str, by: str = "kubectl-label", at: str = "2026-11-27T06:00:00Z") -> None:
    """Set the label, as the API server notes it."""
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:" + MODE: {}}}}
    entry = {"manager": by, "operation": "Update", "time": at, "fieldsType": "FieldsV1", "fieldsV1": fields}
    one.store.patch(NODES, NODE, {"metadata": {"labels": {MODE: mode}, "managedFields": [{"manager": "x"}, entry]}})


def test_a_change_is_recorded_with_who_asked_and_what_was_read_back(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path)
    one.run(3)
    ask(one, "on")
    one.until(lambda: one.state == "on")
    read, began, change = records(tmp_path)
    assert [each["event"] for each in (read, began, change)] == ["read", "began", "change"]
    assert change["asked"] == {
        "desired": "on",
        "by": "kubectl-label",
        "at": "2026-11-27T06:00:00Z",
        "how": "managed fields of nvidia.com/cc.mode",
    }
    assert (change["host"], change["writer"], change["result"], change["boot"]) == (NODE, "operand", "done", "first")
    about = {"kind": "gpu", "name": "H100-SXM", "before": "off", "desired": "on"}
    assert change["devices"] == [{"address": address, **about, "after": "on"} for address in GPUS]
    assert [("after" in each, each["desired"]) for each in began["devices"]] == [(False, "on")] * 2
    assert one.annotations[AUDIT] == checked(tmp_path).tail.text
    assert one.metrics.registry.get_sample_value("cc_manager_audit_records_total") == 3


def test_without_a_folder_nothing_is_recorded(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    assert AUDIT not in one.annotations


def test_a_folder_that_is_no_path_is_refused(site: Make) -> None:
    with pytest.raises(BadSetting, match="an absolute path, or nothing"):
        site("--cc-manager-audit-folder", "trails")


def test_the_default_mode_was_asked_for_by_nobody(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path, "--default-cc-mode", "on")
    one.until(lambda: one.state == "on")
    assert records(tmp_path)[-1]["asked"] == {"desired": "on", "by": "", "at": "", "how": "the default mode"}


def test_a_change_that_failed_says_what_was_read_back(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path)
    one.run(3)
    one.devices.fail["boot"] = "BootTimeout"
    ask(one, "on")
    one.until(lambda: "change" in events(tmp_path))
    change = next(each for each in records(tmp_path) if each["event"] == "change")
    assert (change["result"], change["reason"]) == ("failed", "BootTimeout happened. Mend it.")
    assert [each["after"] for each in change["devices"]] == [None, None]


def test_what_never_wrote_is_no_change(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path)
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    ask(one, "on")
    one.run(30)
    assert events(tmp_path) == ["read"]


def test_drift_is_recorded_with_nobody_who_asked(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path)
    one.run(3)
    one.request("on")
    one.devices.every[GPUS[1]].mode = one.devices.every[GPUS[1]].staged = "off"
    one.run(400)
    drift = records(tmp_path)[-1]
    assert drift["event"] == "drift"
    assert "asked" not in drift
    (device,) = drift["devices"]
    assert (device["address"], device["before"], device["after"]) == (GPUS[1], "on", "off")


def test_a_folder_that_cannot_be_written_keeps_nothing_from_being_done(
    site: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    one = auditing(site, tmp_path / "file/below")
    one.run(3)
    one.request("on")
    assert set(one.devices.modes()) == {"on"}
    assert one.metrics.registry.get_sample_value("cc_manager_audit_lost_total") == 4  # its start is told, too
    assert "audit record could not be written" in caplog.text
    assert AUDIT not in one.annotations


def test_a_kill_at_any_point_leaves_a_chain_that_tells_of_each_write(site: Make, tmp_path: Path) -> None:
    whole = auditing(site, tmp_path / "whole")
    whole.run(3)
    before = len(whole.cut_points)
    whole.request("on")
    points = range(before + 1, len(whole.cut_points) + 1)
    assert len(points) > 15
    for point in points:
        folder = tmp_path / str(point)
        one = auditing(site, folder)
        one.run(3)
        one.cut_at = point
        ask(one, "on")
        one.until(lambda one=one: one.state == "on" and DEVICES in one.annotations, 120)  # type: ignore[misc]
        one.run(3)
        found = checked(folder, one.annotations[AUDIT])
        happened = [each["event"] for each in found.records]
        assert happened.count("read") == 2, "the next process records what it reads"
        assert happened.count("began") >= happened.count("change")
        resets = sum(device.resets for device in one.devices.every.values())
        assert ("began" in happened) == (resets > 0)
        assert {each["after"] for each in found.records[-1]["devices"]} == {"on"}
        assert one.annotations[AUDIT] == found.tail.text


def test_a_line_that_a_kill_has_torn_is_cut_off_at_the_next_start(site: Make, tmp_path: Path) -> None:
    one = auditing(site, tmp_path)
    one.run(3)
    one.request("on")
    one.kill()
    with (tmp_path / "operand.jsonl").open("ab") as file:
        file.write(b'{"asked":{"by"')
    one.begin()
    assert events(tmp_path)[-1] == "repaired"
    one.run(3)
    assert events(tmp_path)[-2:] == ["repaired", "read"]
    assert one.annotations[AUDIT] == checked(tmp_path).tail.text
