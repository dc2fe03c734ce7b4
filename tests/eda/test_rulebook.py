# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The rulebook, run by ansible-rulebook: of the alerts that it gets, some set the mode of emulated devices."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator.launch import launch

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".cache" / "eda" / "venv"
LOCK = ROOT / "requirements" / "eda.txt"
TOKEN = "only-for-this-test"
NODES = ("gpu-1", "gpu-2")
# Java starts, then a playbook; on a machine that does much else.
TIMEOUT_S = 180.0


@pytest.fixture(scope="session")
def program() -> Path:
    """ansible-rulebook, in an environment of its own: it needs many packages that nothing else here does."""
    if shutil.which("java") is None:
        reason = "ansible-rulebook needs Java: apt-get install default-jre-headless, or make system-deps"
        if os.environ.get("REQUIRE_ALL"):
            pytest.fail(reason)
        pytest.skip(reason)
    subprocess.run([sys.executable, ROOT / "tools" / "venv.py", VENV, LOCK], cwd=ROOT, check=True)
    return VENV / "bin" / "ansible-rulebook"


class Rulebook:
    """A running ansible-rulebook that serves two nodes of one emulated GPU each."""

    def __init__(self, process: subprocess.Popen[str], port: int, nodes: dict[str, Any]) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}/alerts"
        self._lines: queue.Queue[str] = queue.Queue()
        self._nodes = nodes
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def stop(self) -> None:
        """End it, and read what it still says."""
        self._process.terminate()
        self._process.wait(60)
        self._reader.join(60)

    def wait_for(self, text: str) -> None:
        """Read what it prints until a line has this text."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
            assert line, "ansible-rulebook ended: " + "".join(self.said)
            self.said.append(line)
            if text in line:
                return

    def post(self, *alerts: dict[str, Any], token: str = TOKEN) -> int:
        """Send alerts as Alertmanager does; the HTTP status."""
        body = json.dumps({"version": "4", "status": "firing", "alerts": alerts}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(self._url, body, headers)) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def modes(self) -> dict[str, str]:
        """Of the nodes' devices, as the emulator knows them."""
        return {name: next(iter(node.control.state().values()))["mode"] for name, node in self._nodes.items()}


def alert(name: str, node: str, status: str = "firing") -> dict[str, Any]:
    """One alert of a notification."""
    return {"status": status, "labels": {"alertname": name, "node": node, "severity": "critical"}, "annotations": {}}


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def rulebook(program: Path, tmp_path: Path) -> Iterator[Rulebook]:
    """Listens when it is yielded; ended after the test."""
    port = free_port()
    (tmp_path / "settings.yml").write_text(yaml.safe_dump({"webhook_port": port, "webhook_token": TOKEN}))
    with launch("h100-pcie") as first, launch("h100-pcie") as second:
        nodes = dict(zip(NODES, (first, second), strict=True))
        (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory(nodes, tmp_path)))
        folder = tmp_path / "ansible_collections" / "confidential"
        folder.mkdir(parents=True)
        (folder / "gpu").symlink_to(ROOT)
        environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path), "ANSIBLE_HOME": str(tmp_path / "home")}
        environment |= {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
        command: list[str | Path] = [program, "--rulebook", "confidential.gpu.cc_mode"]
        command += ["--inventory", tmp_path / "inventory.yml", "--vars", tmp_path / "settings.yml", "--verbose"]
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            made = Rulebook(process, port, nodes)
            try:
                made.wait_for("Waiting for events")
                yield made
            finally:
                made.stop()


def inventory(nodes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the inventory of a fleet has: how each host is reached, and the mode that it shall have."""
    hosts = {
        name: {
            "cc_mode_bus": f"vfio-user:{node.sockets}",
            "cc_mode_fact_file": str(folder / f"{name}.fact"),
        }
        for name, node in nodes.items()
    }
    common = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "cc_mode_become": False,
        "cc_mode_install_tool": False,
        "cc_mode_mode": "on",
    }
    return {"all": {"hosts": hosts, "vars": common}}


def test_an_alert_sets_the_mode_of_its_node_and_of_no_other(rulebook: Rulebook) -> None:
    assert rulebook.post(alert("ConfidentialComputingDrift", "gpu-1"), token="wrong") == 401
    ignored = [
        alert("ConfidentialComputingDrift", "gpu-2", status="resolved"),
        alert("ConfidentialComputingNotRead", "gpu-2"),
        alert("ConfidentialComputingDrift", "all"),
    ]
    assert rulebook.post(*ignored, alert("ConfidentialComputingDrift", "gpu-1")) == 200
    rulebook.wait_for("PLAY RECAP")
    rulebook.wait_for("gpu-1")
    assert rulebook.modes() == {"gpu-1": "on", "gpu-2": "off"}

    # Events are handled in their order: had the first ones run anything, it would have been before this.
    assert rulebook.post(alert("ConfidentialComputingGaveUp", "gpu-2")) == 200
    rulebook.wait_for("PLAY RECAP")
    rulebook.wait_for("gpu-2")
    assert rulebook.modes() == {"gpu-1": "on", "gpu-2": "on"}
    recaps = [line for line in rulebook.said if "ok=" in line and "changed=" in line]
    assert [name for line in recaps for name in NODES if name in line] == ["gpu-1", "gpu-2"]
