#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The device plugin's own program beside a kubelet of the tests: what it offers, what fails, and how it recovers.

No root, no cluster, no GPU: the TEE device is a link, and NVIDIA's driver a library that gcc builds here.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "container"), str(ROOT / "tests")]

from fake_kubelet.node import CONFIG, TDX, Node  # noqa: E402  (needs the path above)
from fake_nvml.driver import Driver, build, uuid  # noqa: E402

GPU = "nvidia.com/gpu"
SHARES = {"version": "v1", "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": 4}]}}}
VERDICT = f"run/device-plugin-gpu/{uuid(1)}.json"
# Of the driver's errors: the GPU has fallen off its bus.
XID = 79
WITHIN_S = 10.0
# A program, or a file, and Debian's package of it.
COMPILER = (("gcc", "gcc"), ("/usr/include/dlfcn.h", "libc6-dev"))


class Demonstration:
    """One resource of a node, and the table of what the kubelet has of it."""

    def __init__(self, node: Node, resource: str) -> None:
        self._node = node
        self._resource = resource
        self._began = time.monotonic()
        print(f"\n{'':46} {'healthy':>8} {'of':>4} {'seconds':>8}")

    def step(self) -> None:
        """Something is about to happen."""
        self._began = time.monotonic()

    async def shows(self, what: str, healthy: int, of: int) -> None:
        """Wait until the kubelet has so many, and say so."""
        kubelet, name = self._node.kubelet, self._resource

        def seen() -> tuple[int, int]:
            return kubelet.allocatable(name), kubelet.capacity(name)

        try:
            await kubelet.until(lambda: seen() == (healthy, of), WITHIN_S)
        except TimeoutError:
            log = (self._node.root.parent / "log").read_text()
            raise SystemExit(
                f"{what}: expected {healthy} of {of}, and the kubelet has {seen()}. The plugin's log:\n{log}"
            ) from None
        print(f"{what:46} {healthy:8} {of:4} {time.monotonic() - self._began:8.2f}", flush=True)
        self.step()

    async def pod(self, count: int = 1) -> None:
        """What a pod gets."""
        got = await self._node.kubelet.allocate(self._resource, count, "pod")
        given = [f"{one.host_path} ({one.permissions})" for one in got.devices]
        given += [f"folder {one.host_path}" for one in got.mounts]
        given += [f"{name}={value}" for name, value in got.envs.items()]
        print(f"  a pod with {self._resource}: {count} gets {', '.join(given)}", flush=True)
        self.step()


@contextlib.asynccontextmanager
async def program(node: Node, source: str) -> AsyncIterator[None]:
    """The plugin's own program."""
    environment = {**node.environment(), "DEVICE_PLUGIN_SOURCE": source}
    with (node.root.parent / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "device_plugin"], env=environment, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 20)


async def tee(folder: Path) -> None:
    """The device of a TDX guest."""
    node = Node(folder)
    node.add_device()
    node.configure({"resources": [{**CONFIG["resources"][0], "slots": 110}]})
    print(f"A TDX guest with /dev/tdx_guest, offered as {TDX} in 110 slots:")
    await node.kubelet.start()
    shown = Demonstration(node, TDX)
    try:
        async with program(node, "tee"):
            await shown.shows("the plugin starts", 110, 110)
            await shown.pod()
            node.remove_device()
            await shown.shows("the guest's module is unloaded", 0, 110)
            node.add_device()
            await shown.shows("the module is loaded again", 110, 110)
            await node.kubelet.restart()
            await shown.shows("the kubelet was killed, and starts", 110, 110)
    finally:
        await node.kubelet.kill()


async def gpu(folder: Path, library: Path) -> None:
    """Two GPUs in time slices."""
    node = Node(folder)
    driver = Driver(node.root, node.sys, library)
    node.configure(SHARES)
    print(f"\nA node with two H100, offered as {GPU} in 4 time slices each:")
    await node.kubelet.start()
    shown = Demonstration(node, GPU)
    try:
        async with program(node, "gpu"):
            await shown.shows("the plugin starts", 8, 8)
            await shown.pod()
            driver.xid(uuid(1), XID)
            await shown.shows(f"XID {XID} of the second GPU: all its slices", 4, 8)
            await node.kubelet.restart()
            await shown.shows("the kubelet was killed, and starts", 4, 8)
        async with program(node, "gpu"):
            await shown.shows("another plugin's process: the verdict holds", 4, 8)
            (node.root / VERDICT).unlink()
            await shown.shows("the GPU was reset, its verdict removed", 8, 8)
            driver.confidential(True)
            await shown.shows("confidential computing on: no slices", 0, 0)
    finally:
        driver.close()
        await node.kubelet.kill()


def lacking() -> list[str]:
    """Debian's packages that build the driver's library, of those that are missing."""
    return [package for what, package in COMPILER if shutil.which(what) is None and not Path(what).exists()]


def main() -> int:
    """Both parts; 0 when every step did what it says."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="dp") as folder:
        asyncio.run(tee(Path(folder)))
    if missing := lacking():
        print(f"\nGPUs are not shown: their driver is built here, and that needs apt install {' '.join(missing)}.")
        return 0
    with tempfile.TemporaryDirectory(prefix="dp") as folder, tempfile.TemporaryDirectory(prefix="nvml") as built:
        asyncio.run(gpu(Path(folder), build(Path(built))))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
