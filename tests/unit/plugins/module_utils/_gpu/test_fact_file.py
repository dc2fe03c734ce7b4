# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The local fact of the modes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.fact import fact, keep


def devices(*modes: str | None, switch: str | None = None) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = [
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
def test_one_word_for_all_gpus(listed: list[dict[str, object]], mode: str | None) -> None:
    assert fact(listed)["mode"] == mode
    assert fact(listed)["devices"] == {one["address"]: one["mode_after"] for one in listed}


def test_it_is_kept_readable_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "facts.d" / "confidential_gpu.fact"
    keep(str(path), {"mode": "off"})
    keep(str(path), {"mode": "on"})
    assert json.loads(path.read_text()) == {"mode": "on"}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "drafts are left behind"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotPermitted, match="cannot be written: (ENOTDIR|EEXIST)") as caught:
        keep(str(tmp_path / "file" / "x.fact"), {})
    assert "fact_file" in caught.value.remedy


def test_the_draft_goes_when_the_file_cannot_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.fact").mkdir()
    with pytest.raises(NotPermitted, match="EISDIR"):
        keep(str(tmp_path / "x.fact"), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.fact"]
