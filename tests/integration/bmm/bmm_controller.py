# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Fleets behind an emulated API, and Ansible's own programs that ask it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from bmm_emulator.server import Emulator

ROOT = Path(__file__).resolve().parents[3]
TOKEN, USER_DATA = "t0ken-of-the-test", "#cloud-config: passw0rd"
FLEET: dict[str, Any] = {
    "tokens": [TOKEN],
    "timing": {"reboot_s": 0.2},
    "sites": [
        {"name": "sjc4", "location": {"city": "San Jose", "state": "CA", "country": "USA"}},
        {"name": "rno1"},
    ],
    "instances": [
        {
            "name": "gpu-{n}",
            "count": 3,
            "type": "gpu.8xh100",
            "addresses": ["10.0.0.0/24", {"ipAddresses": ["192.168.0.0/24"], "isPhysical": False}],
            "labels": {"env": "prod"},
            "fields": {"userData": USER_DATA},
        },
        {"name": "cpu-0", "site": "rno1", "addresses": ["fe80::1", "fd00::7"], "status": "Repairing"},
        {"name": "twin", "id": "11111111-1111-4111-8111-111111111111"},
        {"name": "twin", "id": "22222222-2222-4222-8222-222222222222", "site": "rno1"},
        {"name": "{{ 7 * 7 }}", "id": "33333333-3333-4333-8333-333333333333", "labels": {"env": "{{ 1 + 1 }}"}},
        {"name": "old", "status": "Terminated"},
    ],
}


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: str
    words: str


def programs() -> dict[str, Path]:
    """Name to folder of the programs of each ansible-core on this machine: this environment's, and sanity's."""
    found = {"here": Path(sys.executable).parent}
    for folder in sorted((ROOT / ".cache" / "sanity").glob("*/venv/bin")):
        if (folder / "ansible-inventory").exists():
            found["python" + folder.parts[-3]] = folder
    return found


class Controller:
    """A machine that Ansible runs on: a folder, an environment, an inventory file."""

    def __init__(self, folder: Path, emulator: Emulator, bin_folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self._emulator = emulator
        self._bin = bin_folder
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)
        self.environment = {
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "HOME": str(folder),
            "ANSIBLE_HOME": str(folder / "ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(folder),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "NVIDIA_BMM_TOKEN": TOKEN,
            "LANG": "C.UTF-8",
        }

    def source(self, name: str = "fleet.bmm.yml", **options: Any) -> Path:
        """An inventory file; None takes an option out."""
        content = {
            "plugin": "confidential.gpu.bmm",
            "endpoint": self._emulator.url,
            "org": "acme",
            "deadline": 1,
            **options,
        }
        path = self.folder / name
        path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
        return path

    def cached(self, **options: Any) -> Path:
        """The same with a cache."""
        kept: dict[str, Any] = {
            "cache": True,
            "cache_plugin": "ansible.builtin.jsonfile",
            "cache_connection": str(self.cache),
        }
        return self.source(**kept, **options)

    def run(self, program: str, *arguments: str | Path) -> Done:
        """Run a program to its end."""
        command = [str(self._bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, " ".join(done.stderr.split()))

    def listed(self, source: Path, *more: str) -> dict[str, Any]:
        """What --list prints, without the mark of untrusted text. The run must succeed."""
        done = self.run("ansible-inventory", "-i", source, "--list", *more)
        assert done.code == 0, done.words
        found: dict[str, Any] = _plain(json.loads(done.out))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return (
            value["__ansible_unsafe"]
            if set(value) == {"__ansible_unsafe"}
            else {k: _plain(v) for k, v in value.items()}
        )
    return [_plain(one) for one in value] if isinstance(value, list) else value
