# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GPUs, whole and shared: what the kubelet is told, what a container gets, and health that tells the truth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from device_plugin.api import deviceplugin_pb2 as api
from device_plugin.api.deviceplugin_grpc import DevicePluginStub
from device_plugin.gpu.source import STATE
from fake_kubelet.node import Node, eventually, run
from fake_nvml.driver import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    GPU_RESET,
    MISMATCH,
    NODE_REBOOT,
    NOTHING,
    Driver,
    uuid,
)
from grpclib.exceptions import GRPCError
from test_device_plugin_process import free_port, get

GPU, SHARED = "nvidia.com/gpu", "nvidia.com/gpu.shared"
WHOLE: dict[str, Any] = {"version": "v1"}


def sharing(*resources: dict[str, Any], **slices: Any) -> dict[str, Any]:
    """A configuration with time slices."""
    every = [{"name": GPU, "replicas": 4, **one} for one in resources or ({},)]
    return {"version": "v1", "sharing": {"timeSlicing": {**slices, "resources": every}}}


@contextlib.asynccontextmanager
async def gpu_node(
    folder: Path, library: Path, config: Any = WHOLE, release: tuple[int, int] = (1, 36)
) -> AsyncIterator[tuple[Node, Driver]]:
    """A node with two GPUs whose kubelet runs."""
    node = Node(folder, release)
    driver = Driver(node.root, node.sys, library)
    node.configure(config)
    await node.kubelet.start()
    try:
        yield node, driver
    finally:
        driver.close()
        await node.kubelet.kill()


def ids(node: Node, name: str = GPU) -> list[str]:
    """What the kubelet was told, in order."""
    return list(node.kubelet.endpoints[name].devices)


def test_whole_gpus_have_their_uuid_and_their_node_of_memory(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, _driver), node.plugin(source="gpu") as process:
            await node.allocatable(2, GPU)
            assert ids(node) == [uuid(0), uuid(1)]
            devices = node.kubelet.endpoints[GPU].devices
            assert [devices[one].topology.nodes[0].ID for one in ids(node)] == [0, 1]
            assert not node.kubelet.endpoints[GPU].options.get_preferred_allocation_available
            got = await node.kubelet.allocate(GPU, 2, "pod")
            assert dict(got.envs) == {"NVIDIA_VISIBLE_DEVICES": f"{uuid(0)},{uuid(1)}"}
            assert not got.devices
            assert not got.cdi_devices
            await eventually(lambda: process.problems() == [])

    run(work())


@pytest.mark.parametrize(("rename", "name"), [(False, GPU), (True, SHARED)])
def test_shares_have_the_names_and_ids_of_nvidias_plugin(
    folder: Path, libnvidia_ml: Path, rename: bool, name: str
) -> None:
    async def work() -> None:
        config = sharing(renameByDefault=rename)
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu"):
            await node.allocatable(8, name)
            assert ids(node, name) == [f"{uuid(gpu)}::{number}" for gpu in (0, 1) for number in range(4)]
            assert list(node.kubelet.endpoints) == [name]
            assert node.kubelet.endpoints[name].options.get_preferred_allocation_available
            got = await node.kubelet.allocate(name, 2, "pod")  # two shares of one GPU are one GPU
            assert dict(got.envs) == {"NVIDIA_VISIBLE_DEVICES": uuid(0)}

    run(work())


def test_gpus_can_be_shared_each_in_its_own_way(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        config = sharing({"devices": [1]}, {"devices": [uuid(2)], "replicas": 2}, renameByDefault=True)
        async with gpu_node(folder, libnvidia_ml, config) as (node, driver):
            driver.gpus(range(3))
            async with node.plugin(source="gpu"):
                await node.allocatable(1, GPU)
                await node.allocatable(6, SHARED)
                assert ids(node) == [uuid(0)]
                assert ids(node, SHARED)[3:] == [f"{uuid(1)}::3", f"{uuid(2)}::0", f"{uuid(2)}::1"]

    run(work())


def test_an_xid_makes_all_shares_of_the_gpu_unhealthy_until_the_verdict_is_cleared(
    folder: Path, libnvidia_ml: Path
) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing()) as (node, driver):
            async with node.plugin(source="gpu") as process:
                await node.allocatable(8, GPU)
                driver.xid(uuid(0), 31)  # a program's own fault
                driver.xid(uuid(1), 79)
                assert await node.allocatable(4, GPU, within_s=1.0) < 1.0
                sick = {one for one, about in node.kubelet.endpoints[GPU].devices.items() if about.health != "Healthy"}
                assert sick == {f"{uuid(1)}::{number}" for number in range(4)}
                await eventually(lambda: process.problems() == [])  # another GPU works
            async with node.plugin(source="gpu"):  # another process
                await node.allocatable(4, GPU)
                await node.kubelet.restart()
                await node.allocatable(4, GPU)
                assert node.kubelet.capacity(GPU) == 8
                (node.root / STATE.lstrip("/") / f"{uuid(1)}.json").unlink()
                await node.allocatable(8, GPU, within_s=1.0)

    run(work())


def test_a_gpu_that_the_driver_wants_reset_is_healthy_again_when_it_was(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing()) as (node, driver):
            verdict = node.root / STATE.lstrip("/") / f"{uuid(1)}.json"
            driver.recovery({})
            async with node.plugin(source="gpu"):
                await node.allocatable(8, GPU)
                driver.recovery({1: GPU_RESET})
                driver.xid(uuid(1), 79)
                await node.allocatable(4, GPU, within_s=1.0)
                await eventually(lambda: "reset" in verdict.read_text())
                driver.xid(uuid(1), 79)  # one more does not make that forgotten
                driver.recovery({1: NODE_REBOOT})
                await asyncio.sleep(1.5)  # another look at it
                assert node.kubelet.allocatable(GPU) == 4
            driver.recovery({1: NOTHING})  # it was reset while no plugin had it open
            async with node.plugin(source="gpu"):
                await node.allocatable(8, GPU)
                assert not verdict.exists()
                driver.recovery({1: GPU_RESET})
                driver.xid(uuid(1), 79)
                await node.allocatable(4, GPU)
                await eventually(lambda: "reset" in verdict.read_text())
                driver.recovery({})
                await node.allocatable(8, GPU)
                assert not verdict.exists()

    run(work())


def test_a_gpu_that_needs_something_at_the_start_waits_for_it(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver):
            driver.recovery({0: NODE_REBOOT, 1: 99})  # nobody heard the error
            async with node.plugin(source="gpu") as process:
                await eventually(lambda: "the driver says that it needs a boot of the host" in str(process.problems()))
                assert "needs the recovery action 99" in str(process.problems())
                assert node.kubelet.allocatable(GPU) == 0
                driver.recovery({0: NODE_REBOOT})
                await node.allocatable(1, GPU)

    run(work())


def test_a_verdict_of_which_the_driver_says_nothing_stays(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver):
            driver.recovery({})
            async with node.plugin(source="gpu"):
                await node.allocatable(2, GPU)
                driver.xid(uuid(0), 63)  # of which it never says that it needs a reset
                await node.allocatable(1, GPU)
                driver.confidential(True, ready=False)
                await node.allocatable(0, GPU)
                driver.confidential(True)  # all is looked at again
                await node.allocatable(1, GPU)

    run(work())


def test_more_shares_than_a_message_holds(folder: Path, libnvidia_ml: Path) -> None:
    many = sharing({"replicas": 40_000})  # of one GPU they would fit

    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, many) as (node, _driver), node.plugin(source="gpu") as process:
            await eventually(lambda: "80000 devices are" in str(process.problems()))
            assert "At most 6" in str(process.problems())
            assert node.kubelet.capacity(GPU) == 0
            node.configure(sharing())
            await node.allocatable(8, GPU)
            await eventually(lambda: process.problems() == [])
            node.configure(many)  # the GPUs are known now
            await eventually(lambda: process.metrics.registry.get_sample_value("device_plugin_config_refused") == 1)
            assert node.kubelet.allocatable(GPU) == 8

    run(work())


def test_an_xid_of_an_unknown_gpu_is_one_of_all(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver), node.plugin(source="gpu") as process:
            await node.allocatable(2, GPU)
            driver.xid("GPU-unknown", 95)
            await node.allocatable(0, GPU, within_s=1.0)
            await eventually(lambda: "XID 95" in process.problems()[0])
            node.kubelet.endpoints[GPU].devices[uuid(0)].health = "Healthy"  # as if it had not heard of it yet
            with pytest.raises(GRPCError, match="not healthy"):
                await node.kubelet.allocate(GPU, 1, "pod")

    run(work())


@pytest.mark.parametrize(
    ("file", "error", "words"),
    [("init", DRIVER_NOT_LOADED, "Error 9"), ("init", MISMATCH, "Error 18"), ("lost", GPU_IS_LOST, "Error 15")],
)
def test_a_driver_that_does_not_answer_is_told_and_tried_again(
    folder: Path, libnvidia_ml: Path, file: str, error: int, words: str
) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver):
            driver.says(file, error)
            async with node.plugin(source="gpu") as process:
                await eventually(lambda: any("NVML says" in one for one in process.problems()))
                assert node.kubelet.registered == []
                driver.says(file, 0)
                await node.allocatable(2, GPU)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_a_driver_that_is_removed_and_installed_anew(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver):
            driver.remove()
            async with node.plugin(source="gpu") as process:
                await eventually(
                    lambda: any("there is no libnvidia-ml.so.1 below" in one for one in process.problems())
                )
                driver.install()
                await node.allocatable(2, GPU)
                driver.says("lost", MISMATCH)
                await node.allocatable(0, GPU)
                assert node.kubelet.capacity(GPU) == 2
                driver.install()
                driver.says("lost", 0)
                await node.allocatable(2, GPU)

    run(work())


def test_a_gpu_that_is_lost_is_unhealthy_and_comes_back(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver), node.plugin(source="gpu"):
            await node.allocatable(2, GPU)
            lists = node.kubelet.endpoints[GPU].lists
            driver.gpus([0])
            await node.allocatable(1, GPU)
            assert node.kubelet.endpoints[GPU].lists == lists + 1  # the other one was never called unhealthy
            assert node.kubelet.capacity(GPU) == 2
            driver.gpus([0, 1, 2], lost=[0])
            await node.allocatable(2, GPU)
            assert node.kubelet.capacity(GPU) == 3
            driver.gpus([0, 1])
            await node.kubelet.until(lambda: node.kubelet.endpoints[GPU].devices[uuid(2)].health == "Unhealthy")

    run(work())


def test_a_gpu_goes_and_comes_back_a_hundred_times_without_a_leak(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing()) as (node, driver), node.plugin(source="gpu"):
            await node.allocatable(8, GPU)
            driver.xid(uuid(0), 31)  # a program's own fault, which ends the wait for NVML's second
            await node.kubelet.allocate(GPU, 1, "pod")

            def now() -> tuple[int, int, int]:
                return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()), threading.active_count()

            before = now()
            for _time in range(100):
                driver.gpus([0])
                driver.xid(uuid(0), 31)
                assert await node.allocatable(4, GPU) < 1.0
                driver.gpus([0, 1])
                driver.xid(uuid(0), 31)
                assert await node.allocatable(8, GPU) < 1.0
            await eventually(lambda: all(after <= then for after, then in zip(now(), before, strict=True)))
            assert len(node.kubelet.registered) == 1
            assert node.kubelet.held["pod"] == {GPU: [f"{uuid(0)}::0"]}

    run(work())


def test_fifty_restarts_of_the_kubelet_with_a_sick_gpu(folder: Path, libnvidia_ml: Path) -> None:
    """A new kubelet is never told that it is healthy."""

    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing()) as (node, driver), node.plugin(source="gpu"):
            await node.allocatable(8, GPU)
            driver.xid(uuid(1), 79)
            await node.allocatable(4, GPU, within_s=1.0)
            for _time in range(50):
                await node.kubelet.restart()
                assert await node.kubelet.until(lambda: node.kubelet.capacity(GPU) == 8) < 1.0
                assert node.kubelet.allocatable(GPU) == 4
                assert node.kubelet.endpoints[GPU].lists == 1
            assert node.kubelet.refusals == []

    run(work())


@contextlib.contextmanager
def program(node: Node) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own: NVML is there once in each."""
    values = {**node.environment(), "DEVICE_PLUGIN_SOURCE": "gpu"}
    with subprocess.Popen([sys.executable, "-m", "device_plugin"], env=values, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.mark.parametrize("release", [(1, 36), (1, 37)])
def test_an_update_with_a_surge_of_gpus(folder: Path, libnvidia_ml: Path, release: tuple[int, int]) -> None:
    """Up to 1.36 the end of the older one's stream takes the newer one's connection."""

    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing(), release) as (node, driver):
            with contextlib.ExitStack() as processes:
                old = processes.enter_context(program(node))
                await node.allocatable(8, GPU, within_s=20.0)
                processes.enter_context(program(node))
                await node.kubelet.until(lambda: len(node.kubelet.registered) == 2, 20.0)
                await node.allocatable(8, GPU)
                await node.kubelet.allocate(GPU, 1, "pod")
                old.terminate()
                await asyncio.to_thread(old.wait, 20)
                await asyncio.sleep(0.1)  # what its end does to the newer one has happened
                assert await node.allocatable(8, GPU) < 2.0
                assert node.kubelet.held["pod"] == {GPU: [f"{uuid(0)}::0"]}
                driver.xid(uuid(1), 79)
                await node.allocatable(4, GPU, within_s=1.0)

    run(work())


def test_with_confidential_computing_gpus_are_healthy_when_they_are_ready(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, driver):
            driver.confidential(True, ready=False)
            async with node.plugin(source="gpu") as process:
                await node.kubelet.until(lambda: node.kubelet.capacity(GPU) == 2)
                assert node.kubelet.allocatable(GPU) == 0
                assert "GpusReadyState is 0" in process.problems()[0]
                driver.confidential(True)
                await node.allocatable(2, GPU)
                driver.confidential(True, ready=False)
                await node.allocatable(0, GPU)

    run(work())


def test_with_confidential_computing_gpus_are_not_shared_unless_asked_for(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml, sharing({"devices": [0]}, renameByDefault=True)) as (node, driver):
            driver.confidential(True)
            async with node.plugin(source="gpu") as process:
                await node.allocatable(1, GPU)  # the one that is not shared
                assert SHARED not in node.kubelet.endpoints
                assert "confidential.allowSharing: true" in process.problems()[0]
                node.configure(
                    {**sharing({"devices": [0]}, renameByDefault=True), "confidential": {"allowSharing": True}}
                )
                await node.allocatable(4, SHARED)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_names_of_the_container_runtimes_specification(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        flags = {"plugin": {"deviceListStrategy": ["cdi-cri"], "deviceIDStrategy": "index"}}
        config = {**WHOLE, "flags": flags}
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu") as process:
            await node.kubelet.until(lambda: node.kubelet.capacity(GPU) == 2)
            assert node.kubelet.allocatable(GPU) == 0  # a container would not start
            assert "no CDI specification of the container runtime has nvidia.com/gpu=0" in process.problems()[0]
            spec = node.root / "run/cdi/nvidia.yaml"
            spec.parent.mkdir()
            spec.write_text("cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{name: '1'}, {name: all}]\n")
            await node.allocatable(1, GPU)
            got = await node.kubelet.allocate(GPU, 1, "pod")
            assert [one.name for one in got.cdi_devices] == ["nvidia.com/gpu=1"]
            assert not got.envs

    run(work())


def test_the_other_ways_of_nvidias_plugin_to_name_gpus(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        plugin: dict[str, Any] = {"deviceListStrategy": ["envvar", "volume-mounts"]}
        config = {**WHOLE, "flags": {"plugin": plugin}}
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu"):
            await node.allocatable(2, GPU)
            got = await node.kubelet.allocate(GPU, 1, "mounts")
            where = "/var/run/nvidia-container-devices"
            (mount,) = got.mounts
            assert mount.host_path == "/dev/null"
            assert mount.container_path in {f"{where}/{uuid(0)}", f"{where}/{uuid(1)}"}
            assert dict(got.envs) == {"NVIDIA_VISIBLE_DEVICES": where}
            spec = node.root / "etc/cdi/nvidia.yaml"
            spec.parent.mkdir(parents=True)
            names = ", ".join(f"{{name: {uuid(one)}}}" for one in range(2))
            spec.write_text(f"cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices: [{names}]\n")
            plugin |= {"deviceListStrategy": "cdi-annotations", "cdiAnnotationPrefix": "example.org/"}
            plugin["passDeviceSpecs"] = True  # of no effect: the specification brings the nodes
            node.configure({**config, "sharing": sharing(renameByDefault=True)["sharing"]})
            await node.allocatable(8, SHARED)
            got = await node.kubelet.allocate(SHARED, 1, "annotated")
            ((key, value),) = got.annotations.items()
            assert key == "example.org/device-plugin_gpu.shared"
            assert value in {f"nvidia.com/gpu={uuid(0)}", f"nvidia.com/gpu={uuid(1)}"}
            assert not got.envs
            assert not got.devices
            assert not got.cdi_devices

    run(work())


def test_beside_another_plugin_there_are_metrics_only(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        port = free_port()
        settings: dict[str, Any] = {"source": "gpu", "register": False, "metrics_port": port}
        config = {**sharing(), "flags": {"plugin": {"deviceListStrategy": "cdi-cri"}}}  # with another's specification
        async with gpu_node(folder, libnvidia_ml, config) as (node, driver):
            with socket.socket(socket.AF_UNIX) as left:  # by a plugin that was killed: not this one's to remove
                left.bind(str(node.plugins / "cdp-0-0.sock"))
            node.kubelet.held["pod"] = {GPU: [f"{uuid(0)}::0", f"{uuid(0)}::3", f"{uuid(1)}::1"]}
            async with node.plugin(**settings) as process:

                async def tells(line: str) -> bool:
                    return line in (await get(port, "/metrics"))[1].splitlines()

                await eventually(lambda: process.engine.names == [GPU])
                assert process.problems() == []
                assert await tells(f'device_plugin_devices{{resource="{GPU}"}} 8.0')
                assert await tells(f'device_plugin_allocated_devices{{resource="{GPU}"}} 3.0')
                assert await tells(f'device_plugin_sharers{{device="{uuid(0)}",resource="{GPU}"}} 2.0')
                assert await tells(f'device_plugin_sharers{{device="{uuid(1)}",resource="{GPU}"}} 1.0')
                driver.xid(uuid(1), 79)
                async with asyncio.timeout(2.0):
                    while not await tells(f'device_plugin_healthy_devices{{resource="{GPU}"}} 4.0'):
                        await asyncio.sleep(0.01)
                node.configure(sharing(renameByDefault=True))  # what is not there any more is not counted
                async with asyncio.timeout(2.0):
                    while not await tells(f'device_plugin_sharers{{device="{uuid(0)}",resource="{SHARED}"}} 0.0'):
                        await asyncio.sleep(0.01)
                assert f'resource="{GPU}"}} ' not in "".join(
                    one
                    for one in (await get(port, "/metrics"))[1].splitlines()
                    if one.startswith(("device_plugin_devices", "device_plugin_sharers"))
                )
                await node.kubelet.kill()  # of what is not known there is no number
                assert "device_plugin_sharers{" not in (await get(port, "/metrics"))[1]
            assert node.kubelet.registered == []
            assert node.sockets() == ["cdp-0-0.sock"]

    run(work())


def test_nodes_of_devices_as_configured(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        config = {**WHOLE, "flags": {"plugin": {"passDeviceSpecs": True}}}
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu"):
            (node.dev / "nvidiactl").touch()
            (node.dev / "nvidia-uvm").touch()
            await node.allocatable(2, GPU)
            got = await node.kubelet.allocate(GPU, 2, "pod")
            assert [one.host_path for one in got.devices] == [
                "/dev/nvidiactl",
                "/dev/nvidia-uvm",
                "/dev/nvidia0",
                "/dev/nvidia1",
            ]
            assert {one.permissions for one in got.devices} == {"rw"}

    run(work())


def test_requests_for_more_than_one_share_are_refused_as_configured(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        config = sharing(failRequestsGreaterThanOne=True)
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu"):
            await node.allocatable(8, GPU)
            await node.kubelet.allocate(GPU, 1, "pod")
            with pytest.raises(GRPCError, match="2 shares were asked for"):
                await node.kubelet.allocate(GPU, 2, "greedy")

    run(work())


def test_a_new_configuration_takes_no_gpu_away(folder: Path, libnvidia_ml: Path) -> None:
    async def work() -> None:
        async with gpu_node(folder, libnvidia_ml) as (node, _driver), node.plugin(source="gpu"):
            await node.allocatable(2, GPU)
            lists = node.kubelet.endpoints[GPU].lists
            node.configure(sharing())
            began = time.monotonic()
            await node.allocatable(8, GPU)
            assert time.monotonic() - began < 1.0
            assert node.kubelet.endpoints[GPU].lists == lists + 1
            assert len(node.kubelet.registered) == 1

    run(work())


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [("distributed", ["b::0", "b::1", "a::2"]), ("packed", ["a::2", "a::3", "b::0"])],
)
def test_which_share_is_preferred(folder: Path, libnvidia_ml: Path, policy: str, chosen: list[str]) -> None:
    """Two shares of the first GPU are taken, none of the second."""

    async def work() -> None:
        flags = {"plugin": {"sharedDevicesAllocationPolicy": policy}}
        config = {**sharing(), "flags": flags}
        async with gpu_node(folder, libnvidia_ml, config) as (node, _driver), node.plugin(source="gpu"):
            await node.allocatable(8, GPU)
            request = api.PreferredAllocationRequest()
            free = [f"{uuid(0)}::{one}" for one in (2, 3)] + [f"{uuid(1)}::{one}" for one in range(4)]
            request.container_requests.add(available_deviceIDs=free, allocation_size=3)
            request.container_requests.add(available_deviceIDs=free, must_include_deviceIDs=free[:1], allocation_size=1)
            stub = DevicePluginStub(node.kubelet.endpoints[GPU].channel)
            got = await stub.GetPreferredAllocation(request)
            words = [one.replace("a::", f"{uuid(0)}::").replace("b::", f"{uuid(1)}::") for one in chosen]
            assert list(got.container_responses[0].deviceIDs) == words
            assert list(got.container_responses[1].deviceIDs) == free[:1]

    run(work())
