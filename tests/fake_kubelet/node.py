# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A node for a device plugin: a kubelet, folders of a host with devices in them, and processes of the plugin."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import yaml
from device_plugin.own_node import OwnNode
from device_plugin.process import Process
from device_plugin.settings import Settings

from .kubelet import FakeKubelet

TDX = "tdx.intel.com/tdx-guest"
SEV = "sev.amd.com/sev-guest"
CONFIG: dict[str, Any] = {"resources": [{"device": "tdx-guest", "slots": 3}]}
CONTAINER = Path(__file__).resolve().parents[2] / "container"
# A device that every machine has; what its number stands for, the node's own sys says.
DEVICE = Path("/dev/null")
NUMBER = f"{os.major(DEVICE.stat().st_rdev)}:{os.minor(DEVICE.stat().st_rdev)}"


def run(work: Coroutine[Any, Any, None], within_s: float = 60.0) -> None:
    """Run a test's coroutine to its end."""
    asyncio.run(asyncio.wait_for(work, within_s))


async def eventually(what: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait for something of which nothing tells. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.01)


class Node:
    """Folders below one folder. Paths of sockets are short, so the folder has to be, too."""

    def __init__(self, folder: Path, release: tuple[int, int] = (1, 36)) -> None:
        self.root = folder / "host"
        self.dev = self.root / "dev"
        self.sys = folder / "sys"
        self.plugins = folder / "p"
        self.config = folder / "config" / "config.yaml"
        for one in (self.dev, self.plugins, self.config.parent, self.root / "run"):
            one.mkdir(parents=True)
        self.pod_resources = folder / "pr.sock"
        self.kubelet = FakeKubelet(self.plugins, self.pod_resources, release)
        self.configure(CONFIG)

    def configure(self, config: Any) -> None:
        """Replace the file, as a ConfigMap's is: whole, by a rename."""
        text = config if isinstance(config, str) else yaml.safe_dump(config)
        new = self.config.with_name("..new")
        new.write_text(text)
        new.replace(self.config)

    def add_device(self, name: str = "tdx_guest", stands_for: str | None = None) -> None:
        """A device comes: the kernel knows its number, and its node is there."""
        about = self.sys / "dev/char" / NUMBER / "uevent"
        about.parent.mkdir(parents=True, exist_ok=True)
        about.write_text(f"MAJOR=1\nDEVNAME={stands_for or name}\n")
        (self.dev / name).symlink_to(DEVICE)

    def remove_device(self, name: str = "tdx_guest") -> None:
        """It goes."""
        (self.dev / name).unlink()

    def settings(self, **changes: Any) -> Settings:
        """For a process of the plugin."""
        values: dict[str, Any] = {
            "source": "tee",
            "config": self.config,
            "plugins_folder": self.plugins,
            "pod_resources": self.pod_resources,
            "host_root": self.root,
            "sys": self.sys,
            "sees_nodes": True,
            "pod": None,
            "metrics_port": 0,
            "log_json": False,
            "debug": False,
        }
        return Settings(**{**values, **changes})

    def environment(self) -> dict[str, str]:
        """For the program itself."""
        return {
            "DEVICE_PLUGIN_CONFIG": str(self.config),
            "DEVICE_PLUGIN_FOLDER": str(self.plugins),
            "DEVICE_PLUGIN_HOST_ROOT": str(self.root),
            "DEVICE_PLUGIN_SYS": str(self.sys),
            "DEVICE_PLUGIN_POD_RESOURCES": str(self.pod_resources),
            "DEVICE_PLUGIN_METRICS_PORT": "0",
            "PYTHONPATH": str(CONTAINER),
            "PATH": os.environ["PATH"],
        }

    def sockets(self) -> list[str]:
        """Ours in the kubelet's folder."""
        return sorted(one.name for one in self.plugins.glob("cdp-*"))

    @contextlib.asynccontextmanager
    async def plugin(self, own_node: OwnNode | None = None, **changes: Any) -> AsyncIterator[Process]:
        """A process of the plugin, in this event loop, which is stopped at the end."""
        process = Process(self.settings(**changes), own_node)
        task = asyncio.create_task(process.run())
        try:
            yield process
        finally:
            process.stop()
            await task

    async def allocatable(self, count: int, name: str = TDX, within_s: float = 5.0) -> float:
        """Wait until the kubelet has so many; the seconds that it took."""
        return await self.kubelet.until(lambda: self.kubelet.allocatable(name) == count, within_s)


@contextlib.asynccontextmanager
async def node_with_kubelet(folder: Path, release: tuple[int, int] = (1, 36)) -> AsyncIterator[Node]:
    """A node with a TDX device whose kubelet runs, and ends at last."""
    node = Node(folder, release)
    node.add_device()
    await node.kubelet.start()
    try:
        yield node
    finally:
        await node.kubelet.kill()
