#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The main job on a node of eight emulated H100: modes, a change checked and made, the second run, and back to off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "gpu-admin-tools"))

from emulator.launch import launch  # noqa: E402  (needs the path above)

NODE = "hgx-h100"


def main() -> int:
    """Run the demonstration; the exit status is 0 when every step did what it says."""
    with tempfile.TemporaryDirectory(prefix="confidential-gpu-demo-") as folder, launch(NODE) as node:
        return Demonstration(Path(folder), node.sockets).run()


class Demonstration:
    """The steps and what each took."""

    def __init__(self, folder: Path, sockets: Path) -> None:
        self._folder = folder
        self._bus = "vfio-user:%s" % sockets
        self._steps: list[tuple[str, str, float]] = []

    def run(self) -> int:
        """Every step in order, then the table."""
        print("Eight emulated H100 and four NVSwitches are up. Their modes, as NVIDIA's gpu-admin-tools reads them:\n")
        self._show_modes()
        self._play("check: what would mode on do?", "on", "--check", "--diff", changed=1)
        self._play("mode on", "on", changed=1)
        self._play("mode on again", "on", changed=0)
        self._play("mode devtools", "devtools", changed=1)
        self._play("mode off", "off", changed=1)
        self._show_modes()
        print("%-34s %-10s %s" % ("step", "changed", "seconds"))
        for name, changed, seconds in self._steps:
            print("%-34s %-10s %.1f" % (name, changed, seconds))
        return 0

    def _play(self, name: str, mode: str, *options: str, changed: int) -> None:
        print("--- %s" % name)
        start = time.monotonic()
        output = self._ansible("playbooks/cc_mode.yml", {"cc_mode_mode": mode}, *options)
        self._steps.append((name, "changed=%d" % changed, time.monotonic() - start))
        if "changed=%d " % changed not in output:
            raise SystemExit("%s: expected changed=%d." % (name, changed))

    def _ansible(self, playbook: str, variables: dict[str, Any], *options: str) -> str:
        variables = {
            **variables,
            "ansible_python_interpreter": sys.executable,
            "cc_mode_bus": self._bus,
            "cc_mode_become": False,
            "cc_mode_fact_file": str(self._folder / "facts.d/confidential_gpu.fact"),
        }
        command = [
            str(Path(sys.executable).parent / "ansible-playbook"),
            "--inventory=localhost,",
            "--connection=local",
            "--extra-vars=%s" % json.dumps(variables),
            *options,
            str(ROOT / playbook),
        ]
        lines = []
        with own_process_group(command, ansible_environment(self._folder)) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                print(line, end="", flush=True)
        if process.returncode:
            raise SystemExit("ansible-playbook ended with status %d." % process.returncode)
        return "".join(lines)

    def _show_modes(self) -> None:
        arguments = {"ANSIBLE_MODULE_ARGS": {"bus": self._bus, "_ansible_remote_tmp": str(self._folder)}}
        module = "ansible_collections.confidential.gpu.plugins.modules.cc_mode_info"
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
            env={**ansible_environment(self._folder), "PYTHONPATH": str(collections_path(self._folder))},
        )
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)
        print("%-14s %-14s %-7s %-9s %-9s %s" % ("address", "name", "chip", "mode", "pending", "supported"))
        for device in json.loads(done.stdout)["devices"]:
            row = (device["address"], device["name"], device["chip"], device["mode"], device["pending_mode"])
            print("%-14s %-14s %-7s %-9s %-9s %s" % (*row, ", ".join(device["supported_modes"])))
        print()


@contextlib.contextmanager
def own_process_group(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run a command whose processes all end with this one, also when this one is interrupted."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        yield process
        process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise


def interrupted(_signal: int, _frame: object) -> None:
    """Let SIGTERM and SIGHUP end the demonstration as Ctrl-C does."""
    raise KeyboardInterrupt


def collections_path(folder: Path) -> Path:
    """A folder in which Ansible finds this collection under its name, wherever the repository lies."""
    link = folder / "collections/ansible_collections/confidential/gpu"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(ROOT)
    return folder / "collections"


def ansible_environment(folder: Path) -> dict[str, str]:
    """The environment of ansible-playbook: this collection, nothing of the user's own settings."""
    settings = folder / "ansible.cfg"
    settings.touch()
    # Ansible writes into a pipe here, and a person reads it.
    colour = "ANSIBLE_FORCE_COLOR" if sys.stdout.isatty() else "ANSIBLE_NOCOLOR"
    return {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(collections_path(folder)),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
        colour: "1",
        "ANSIBLE_CONFIG": str(settings),
        "ANSIBLE_LOCALHOST_WARNING": "0",
    }


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Stopped; the emulated node is gone.")
