# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Imports of containerd that an older kata-deploy left: those whose file is gone are removed, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.cache import ROOT


def cleaned(folder: Path, settings: Path) -> str:
    """What the tasks say of a file."""
    role = {"name": "confidential.gpu.confidential_containers", "tasks_from": "imports"}
    given: dict[str, Any] = {
        "confidential_containers_containerd_settings": str(settings),
        "ansible_python_interpreter": sys.executable,
    }
    task = {"ansible.builtin.include_role": role}
    (folder / "play.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "vars": given, "tasks": [task]}])
    )
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_HOME": str(folder),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local"]
    done = subprocess.run(
        [*command, str(folder / "play.yml")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["GONE"], []),
        (["/etc/containerd/conf.d/*.toml", "GONE", "THERE"], ["/etc/containerd/conf.d/*.toml", "THERE"]),
        (["OTHER", "GONE"], ["OTHER"]),
    ],
    ids=["alone", "between", "last"],
)
def test_imports_whose_file_is_gone(tmp_path: Path, before: list[str], after: list[str]) -> None:
    """OTHER is gone, too, and not Kata's."""
    (tmp_path / "kata-there.toml").touch()
    names = {"GONE": "kata-gone.toml", "THERE": "kata-there.toml", "OTHER": "other.toml"}

    def paths(words: list[str]) -> list[str]:
        return [str(tmp_path / names[word]) if word in names else word for word in words]

    settings = tmp_path / "config.toml"
    listed = ",\n  ".join(f'"{path}"' for path in paths(before))
    settings.write_text(f"version = 3\nimports = [\n  {listed}\n]\n[plugins]\n")
    assert "changed=1" in cleaned(tmp_path, settings)
    assert tomllib.loads(settings.read_text()) == {"version": 3, "imports": paths(after), "plugins": {}}


def test_settings_without_such_imports_and_none_at_all(tmp_path: Path) -> None:
    settings = tmp_path / "config.toml"
    assert "changed=0" in cleaned(tmp_path, settings)
    settings.write_text('version = 3\nroot = "/opt/kata/x"\n')
    assert "changed=0" in cleaned(tmp_path, settings)
