# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Foreseeing that a file cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.files import ensure_writable


def test_a_folder_that_can_be_made_will_do(tmp_path: Path) -> None:
    ensure_writable(str(tmp_path / "x"), "file")
    ensure_writable(str(tmp_path / "a" / "b" / "x"), "file")


@pytest.mark.parametrize("path", ["file/x", "file/a/x", "folder", "/proc/self/x"])
def test_what_cannot_be_written_is_foreseen(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(NotPermitted, match="The thing .* cannot be written"):
        ensure_writable(str(tmp_path / path), "thing")
