# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Machines with an emulated GPU each, the API that lends them, a Kubernetes API server, and our controller between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bmm_emulator.launch import launch as launch_api  # noqa: E402
from bmm_emulator.server import Emulator  # noqa: E402
from emulator.launch import launch as launch_gpus  # noqa: E402

from tests.cloud.programs import ORG, TOKEN, grant, kubelet_node, start_ours, until  # noqa: E402
from tests.cloud.server import Refused, Server, running  # noqa: E402
from tests.cluster.kube.programs import EVERY  # noqa: E402
from tests.fleet.machine import Machine, ssh_program  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

NAMES = ("gpu-0", "gpu-1", "gpu-2", "gpu-3")
DATA = {
    "tokens": [TOKEN],
    "timing": {"reboot_s": 1.0},
    "instances": [{"name": name, "type": "gpu.1xh100", "addresses": ["10.0.0.0/24"]} for name in NAMES],
}
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


class Run:
    """How the playbook ended. ``changed``, ``failed``: names; unreachable ones count as failed."""

    def __init__(self, status: int, output: str) -> None:
        self.status = status
        self.output = output
        self.changed: set[str] = set()
        self.failed: set[str] = set()
        self.played: set[str] = set()
        for name, _ok, changed, unreachable, failed in RECAP.findall(output):
            self.played.add(name)
            if int(changed):
                self.changed.add(name)
            if int(unreachable) or int(failed):
                self.failed.add(name)


class Fleet:
    """``machines`` and ``gpus`` by name; ``lost``: those whose machine is repaired instead of power-cycled."""

    def __init__(self, folder: Path, server: Server, api: Emulator, stack: contextlib.ExitStack) -> None:
        self.server, self.api = server, api
        self.lost: set[str] = set()
        self.machines: dict[str, Machine] = {}
        self.gpus: dict[str, Any] = {}
        self._folder = folder
        self._ssh = ssh_program(folder)
        for name in NAMES:
            gpus = self.gpus[name] = stack.enter_context(
                launch_gpus("h100-pcie", boot_s=0.05, flr_s=0.005, rpc_s=0.0002)
            )
            machine = self.machines[name] = Machine(folder, name, gpus.sockets, self._registers(name))
            stack.callback(machine.end)
            machine.start()
        api.on_power_cycle(self._power_cycled)
        collections = folder / "ansible_collections/confidential"
        collections.mkdir(parents=True)
        (collections / "gpu").symlink_to(ROOT)

    def _registers(self, name: str) -> Any:
        def register(provider_id: str) -> None:
            try:
                # With its addresses, as a kubelet does.
                self.server.request("POST", "/api/v1/nodes", kubelet_node(name, provider_id=provider_id))
            except Refused as refused:  # it is there
                if refused.status != 409:
                    raise

        return register

    def _power_cycled(self, instance: dict[str, Any]) -> None:
        name = instance["name"]
        if name in self.lost:
            self.api.alter("instance", name, {"status": "Repairing", "message": "A power supply is replaced"})
        else:
            self.machines[name].power_cycle()

    def run(self, *options: str, **variables: Any) -> Run:
        """The playbook, to its end."""
        source = {
            "plugin": "confidential.gpu.bmm",
            "endpoint": self.api.url,
            "org": ORG,
            "compose": {"ansible_host": "bmm_name"},
        }
        (self._folder / "fleet.bmm.yml").write_text(yaml.safe_dump(source))
        given = {
            "ansible_ssh_executable": str(self._ssh),
            "ansible_ssh_transfer_method": "piped",
            "ansible_python_interpreter": sys.executable,
            "host_become": False,
            "iommu_technology": "passthrough",
            # A parameter that this machine's own kernel does not have, so that there is a reboot.
            "iommu_add": ["confidential_gpu.fleet=1"],
            "bootloader_reboot_ok": True,
            "bootloader_reboot_timeout": 25,
            "cc_mode_mode": "on",
            "cc_mode_bus": "vfio-user:/run/gpus",
            "cc_mode_install_tool": False,
            "fleet_api": {"endpoint": self.api.url, "org": ORG},
            "fleet_kubectl": str(EVERY["kubectl"].path()),
            "fleet_kubeconfig": str(self.server.kubeconfig("admin")),
            "fleet_node_timeout": 30,
            "fleet_serial": 2,
            **variables,
        }
        command = [
            *(str(Path(sys.executable).parent / "ansible-playbook"), "confidential.gpu.fleet", *options),
            *("--inventory", str(self._folder / "fleet.bmm.yml"), "--extra-vars", json.dumps(given)),
        ]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(self._folder),
            "ANSIBLE_HOME": str(self._folder / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_TIMEOUT": "3",
            "NVIDIA_BMM_TOKEN": TOKEN,
        }
        done = subprocess.run(
            command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return Run(done.returncode, done.stdout + done.stderr)

    def label(self, name: str) -> str | None:
        """Of the instance: the mode of its machine."""
        found: str | None = self.api.instance(name)["labels"].get("confidential-gpu")
        return found

    def mode(self, name: str) -> set[str]:
        """Of the machine's GPUs, as the emulator knows it."""
        return {one["mode"] for one in self.gpus[name].control.state().values()}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four machines and a controller manager."""
    folder = tmp_path_factory.mktemp("fleet")
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running())
        except NotPossible as reason:
            if os.environ.get("REQUIRE_ALL"):
                raise
            pytest.skip(str(reason))
        grant(server, folder)
        api = stack.enter_context(launch_api(DATA))
        made = Fleet(folder, server, api, stack)
        stack.callback(start_ours(server, api).end)
        yield made


__all__ = ["until"]
