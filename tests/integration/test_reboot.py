# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The role bootloader and a host that does not come back: in what state it was left, however the reboot failed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What the module kernel_cmdline had answered.
RESULT = {
    "before": "quiet iommu=pt",
    "after": "quiet intel_iommu=on",
    "backup_files": ["/etc/default/grub.1.2026-01-31@12:00:00~"],
    "reboot_required": True,
}


def reboot(folder: Path, host: Mapping[str, Any]) -> str:
    """What the part of the role says that reboots; the run must fail."""
    collections = folder / "ansible_collections/confidential"
    collections.mkdir(parents=True)
    (collections / "gpu").symlink_to(ROOT)
    role = {"name": "confidential.gpu.bootloader", "tasks_from": "reboot"}
    variables = {"bootloader_result": RESULT, "bootloader_reboot_timeout": 3}
    tasks = [{"name": "Reboot", "ansible.builtin.include_role": role, "vars": variables}]
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"server": dict(host)}}}))
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "ansible-playbook"),
            f"--inventory={folder / 'inventory.json'}",
            str(folder / "play.yml"),
        ],
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_TIMEOUT": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0, done.stdout
    return done.stdout


@pytest.fixture
def nobody() -> int:
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_host_that_does_not_answer(tmp_path: Path, nobody: int) -> None:
    said = reboot(tmp_path, {"ansible_host": "127.0.0.1", "ansible_port": nobody, "ansible_user": "root"})
    told(said)


def test_a_reboot_that_is_refused(tmp_path: Path) -> None:
    """Ansible never reboots the machine that it runs on."""
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    said = reboot(tmp_path, local)
    assert "would reboot the control node" in said
    told(said)


def told(said: str) -> None:
    """The message has the new command line, the former one, the copies and what to do."""
    (message,) = {
        line for line in said.splitlines() if "The host did not come back after its reboot" in line and "fatal" in line
    }
    for words in (
        "has the new command line: quiet intel_iommu=on.",
        "Before this run it was: quiet iommu=pt.",
        "The former files: /etc/default/grub.1.2026-01-31@12:00:00~.",
        "Look at its console.",
    ):
        assert words in message
