# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The local fact of the modes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.fact import fact, keep


def devices(*modes: str | None, switch: str | None = None) -> list[Any]:
    listed: list[Any] = [
        {"address": "gpu%d" % number, "kind": "gpu", "mode_after": mode} for number, mode in enumerate(modes)
    ]
    return [*listed, {"address": "switch", "kind": "nvswitch", "mode_after": switch}] if switch else listed


@pytest.mark.parametrize(
    ("listed", "mode"),
    [
        (devices("on", "on"), "on"),
        (devices("on", "off"), "mixed"),
        (devices("on", None), None),
        (devices(None), None),
        (devices(), None),
        (devices("on", switch="off"), "on"),
        (devices(switch="ppcie"), None),
    ],
)
def test_one_word_for_all_gpus(listed: list[Any], mode: str | None) -> None:
    content = fact(listed, "mode_after")
    assert content["mode"] == mode
    assert {**content["gpus"], **content["nvswitches"]} == {one["address"]: one["mode_after"] for one in listed}


def test_it_is_kept_readable_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "facts.d" / "confidential_gpu.fact"
    keep(str(path), fact(devices("off"), "mode_after"), ["gpu0"])
    content = keep(str(path), fact(devices("on"), "mode_after"), ["gpu0"])
    assert json.loads(path.read_text()) == content == {"gpus": {"gpu0": "on"}, "nvswitches": {}, "mode": "on"}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "drafts are left behind"


def test_devices_of_earlier_runs_stay_as_long_as_they_are_present(tmp_path: Path) -> None:
    path = str(tmp_path / "x.fact")
    keep(path, fact(devices("off", "off", "off"), "mode_after"), ["gpu0", "gpu1", "gpu2"])
    content = keep(path, fact(devices("on"), "mode_after"), ["gpu0", "gpu1"])
    assert content == {"gpus": {"gpu0": "on", "gpu1": "off"}, "nvswitches": {}, "mode": "mixed"}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"gpus": 3}', "[" * 100_000])
def test_a_file_that_holds_something_else_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.fact"
    path.write_text(text)
    assert keep(str(path), fact(devices("on"), "mode_after"), ["gpu0", "gpu1"])["gpus"] == {"gpu0": "on"}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotPermitted, match="cannot be written: (ENOTDIR|EEXIST)"):
        keep(str(tmp_path / "file" / "x.fact"), fact([], "mode_after"), [])
    with pytest.raises(NotPermitted, match="null"):
        keep("/x\0y/z", fact([], "mode_after"), [])


def test_the_draft_goes_when_the_file_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.fact").mkdir()
    with pytest.raises(NotPermitted, match="EISDIR"):
        keep(str(tmp_path / "x.fact"), fact([], "mode_after"), [])
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fact"]


def test_the_mode_of_a_device_that_went_is_not_known(tmp_path: Path) -> None:
    path = str(tmp_path / "x.fact")
    keep(path, fact(devices("on", "on"), "mode_after"), ["gpu0", "gpu1"])
    told = keep(path, fact(devices("on"), "mode_after"), ["gpu0"], {"gpu1": "gpu", "switch": "nvswitch"})
    assert told == {"mode": None, "gpus": {"gpu0": "on", "gpu1": None}, "nvswitches": {"switch": None}}
