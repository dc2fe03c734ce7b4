# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced at once, and foreseeing that one cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._core.files import (
    ensure_writable,
    read_json,
    replace_json,
)


def test_a_folder_that_can_be_made_will_do(tmp_path: Path) -> None:
    ensure_writable(str(tmp_path / "x"), "file")
    ensure_writable(str(tmp_path / "a" / "b" / "x"), "file")


@pytest.mark.parametrize("path", ["file/x", "file/a/x", "folder", "/proc/self/x"])
def test_what_cannot_be_written_is_foreseen(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotPermitted, match="The thing .* cannot be written"):
        ensure_writable(str(tmp_path / path), "thing")


def test_neither_a_link_nor_a_fifo_is_read(tmp_path: Path) -> None:
    replace_json(str(tmp_path / "real"), {"a": 1}, "note")
    os.symlink(tmp_path / "real", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    assert [read_json(str(tmp_path / name)) for name in ("real", "link", "fifo")] == [{"a": 1}, None, None]
