# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The programs that are timed, each a process of its own: the module's payload, the playbook, NVIDIA's command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "gpu-admin-tools"), str(ROOT / "playbooks")]

import demo  # noqa: E402  (needs the path above)
from emulator.launch import Emulator, launch  # noqa: E402

NVIDIA_CLI = ROOT / "tests/conformance/nvidia_cli.py"
ADDRESSES = ["0000:%02x:00.0" % bus for bus in range(0x10, 0x20)]


def gpus(count: int) -> dict[str, Any]:
    """A node of that many H100 and no switch, with the default timing."""
    return {"name": "%d-gpus" % count, "devices": [{"address": at, "model": "h100-sxm"} for at in ADDRESSES[:count]]}


class Bench:
    """A folder in which every program finds the node that is measured at the moment under one name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = folder / "current"
        self._nodes: dict[str, Emulator] = {}
        self._stack = contextlib.ExitStack()
        self._environment = demo.ansible_environment(folder)
        self._payload: Path | None = None

    @classmethod
    @contextlib.contextmanager
    def prepared(cls) -> Iterator[Bench]:
        """With a temporary folder, and the nodes ended at the end."""
        with tempfile.TemporaryDirectory(prefix="confidential-gpu-bench-") as folder:
            bench = cls(Path(folder))
            with bench._stack:
                yield bench

    def use(self, name: str, mode: str) -> None:
        """Put a node where the programs look, all of it in a mode; a number is that many GPUs, else a shipped node.

        It is started at its first use.
        """
        if name not in self._nodes:
            self._nodes[name] = self._stack.enter_context(launch(gpus(int(name)) if name.isdigit() else name))
        emulator = self._nodes[name]
        emulator.control.restore()
        emulator.control.set(mode=mode)
        self._current.unlink(missing_ok=True)
        self._current.symlink_to(emulator.sockets)

    def build_payload(self) -> None:
        """Let Ansible build what it runs on a host, keep it, and never build it again: mode on, all devices."""
        remote = self._folder / "remote"
        arguments = {"mode": "on", "bus": "vfio-user:%s" % self._current}
        command = [str(Path(sys.executable).parent / "ansible"), "localhost", "--inventory=localhost,"]
        command += ["--connection=local", "--module-name=confidential.gpu.cc_mode", "--args=%s" % json.dumps(arguments)]
        command += ["--extra-vars=%s" % json.dumps({"ansible_python_interpreter": sys.executable})]
        keep = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_PIPELINING": "0", "ANSIBLE_REMOTE_TEMP": str(remote)}
        _run(command, {**self._environment, **keep})
        (self._payload,) = remote.glob("*/AnsiballZ_cc_mode.py")

    def module(self) -> float:
        """Seconds for the module's process alone, as Ansible starts it on the host; it changes something."""
        return self._module(changed=True)

    def module_already_right(self) -> float:
        """The same where nothing is to be changed."""
        return self._module(changed=False)

    def _module(self, changed: bool) -> float:
        seconds, text = _run([sys.executable, str(self._payload)], dict(os.environ))
        answer = json.loads(text)
        assert answer["changed"] is changed, answer
        return seconds

    def playbook(self, mode: str) -> float:
        """Seconds for ansible-playbook with the playbook that users run."""
        variables = {
            "ansible_python_interpreter": sys.executable,
            "cc_mode_become": False,
            "cc_mode_bus": "vfio-user:%s" % self._current,
            "cc_mode_fact_file": str(self._folder / "facts.d/confidential_gpu.fact"),
            "cc_mode_mode": mode,
            "gpu_admin_tools_install": False,
        }
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--inventory=localhost,"]
        command += ["--connection=local", "--extra-vars=%s" % json.dumps(variables)]
        seconds, text = _run([*command, str(ROOT / "playbooks/cc_mode.yml")], self._environment)
        assert "changed=1 " in text, text
        return seconds

    def nvidia(self, *options: str) -> float:
        """Seconds for NVIDIA's command line."""
        command = [sys.executable, str(NVIDIA_CLI), str(self._current), "--", *options]
        return _run(command, dict(os.environ))[0]


def _run(command: list[str], environment: dict[str, str]) -> tuple[float, str]:
    began = time.monotonic()
    done = subprocess.run(
        command, env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise SystemExit("%s ended with status %d:\n%s%s" % (command, done.returncode, done.stdout, done.stderr))
    return seconds, done.stdout
