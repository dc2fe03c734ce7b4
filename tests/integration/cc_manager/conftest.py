# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager as its own process: against an API server on loopback, with ansible-runner and emulated devices."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulator.launch import Emulator, launch
from fake_api.daemon_sets import NODES, PREFIX, DaemonSets
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Store

ROOT = Path(__file__).resolve().parents[3]
NODE = "node-1"
COMPONENTS = ("vfio-manager", "sandbox-validator", "kata-sandbox-device-plugin")
TIMEOUT_S = 60.0


class Installation:
    """A node with its API and its devices; CC managers come and go."""

    def __init__(self, folder: Path, emulator: Emulator, store: Store, api: ApiServer) -> None:
        self.folder, self.emulator, self.store, self.api = folder, emulator, store, api
        store.create(NODES, new_node(NODE, **{PREFIX + name: "true" for name in COMPONENTS}))
        self.daemon_sets = DaemonSets(store, NODE, grace_s=0.3)
        self.name = NODE
        self.ready = folder / "ready"
        self.process: subprocess.Popen[bytes] | None = None
        self.started: list[subprocess.Popen[bytes]] = []
        self._collections = folder / "collections"
        link = self._collections / "ansible_collections/confidential/gpu"
        link.parent.mkdir(parents=True)
        link.symlink_to(ROOT)

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """Start a CC manager."""
        config = self.folder / "kubeconfig"
        content = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.api.url}}],
            "users": [{"name": "u", "user": {}}],
        }
        config.write_text(yaml.safe_dump(content))
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "container"),
            "ANSIBLE_COLLECTIONS_PATH": str(self._collections),
            "TMPDIR": str(self.folder),
            "NODE_NAME": NODE,
            "KUBECONFIG": str(config),
            "OPERATOR_NAMESPACE": "gpu-operator",
            "CC_READINESS_FILE": str(self.ready),
            "CC_MANAGER_BUS": f"vfio-user:{self.emulator.sockets}",
            "CC_MANAGER_METRICS_PORT": "0",
            "CC_MANAGER_RETRY_DELAY": "1",
            **more,
        }
        command = [sys.executable, "-m", "cc_manager"]
        with self._log(len(self.started)).open("wb") as log:
            self.process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=log)
        self.started.append(self.process)
        return self.process

    def _log(self, number: int) -> Path:
        return self.folder / f"log-{number}"

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """The lines of one of the CC managers so far."""
        return self._log(self.started.index(process)).read_text(errors="replace")

    def end(self, how: signal.Signals) -> int:
        """End it: SIGTERM as kubelet does, SIGKILL as the kernel does, with all that it has started."""
        process, self.process = self.process, None
        assert process is not None
        if how == signal.SIGKILL:
            self.kill(process)
        else:
            process.send_signal(how)
        return process.wait(30)

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        """SIGKILL, if it still runs, with all that it has started."""
        if process.poll() is None:
            kill_tree(process.pid)
            process.wait(10)

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.store.get(NODES, NODE)["metadata"]["labels"])

    @property
    def annotations(self) -> dict[str, str]:
        return dict(self.store.get(NODES, NODE)["metadata"].get("annotations") or {})

    @property
    def state(self) -> str | None:
        return self.labels.get("nvidia.com/cc.mode.state")

    def components(self) -> set[str | None]:
        return {self.labels.get(PREFIX + name) for name in COMPONENTS}

    def modes(self) -> set[str]:
        """The active modes as the emulator knows them."""
        return {state["mode"] for state in self.emulator.control.state().values()}

    def modes_by_address(self) -> dict[str, str]:
        return {address: state["mode"] for address, state in self.emulator.control.state().items()}

    def gpus(self) -> list[str]:
        """The addresses of the GPUs, as the node tells them."""
        told = json.loads(self.annotations["nvidia.com/cc.mode.devices"])
        return [address for address, entry in sorted(told.items()) if entry["kind"] == "gpu"]

    def request(self, mode: str | None) -> None:
        self.store.patch(NODES, NODE, {"metadata": {"labels": {"nvidia.com/cc.mode": mode}}})

    def until(self, condition: Callable[[], Any]) -> float:
        """Wait for what other processes do; the seconds it took."""
        began = time.monotonic()
        while not condition():
            late = time.monotonic() - began > TIMEOUT_S
            assert not late, "\n".join([f"{self.labels} {self.annotations}", *map(self.said, self.started)])
            if self.process is not None:
                assert self.process.poll() is None, "the CC manager ended"
            time.sleep(0.01)
        return time.monotonic() - began


def kill_tree(pid: int) -> None:
    """kill -9 of a process and all below it, as the end of a pod's first process does."""
    os.kill(pid, signal.SIGSTOP)  # it starts no more
    below = [int(child) for child in _children(pid)]
    for child in below:
        kill_tree(child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += (task / "children").read_text().split()
    return found


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    store = Store()
    with launch("hgx-h100", boot_s=0.3, flr_s=0.02, rpc_s=0.0005) as emulator, serving(store) as api:
        made = Installation(tmp_path, emulator, store, api)
        yield made
        for process in made.started:
            made.kill(process)
