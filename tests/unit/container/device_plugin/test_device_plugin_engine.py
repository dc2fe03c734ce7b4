# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The engine with a source of the test's: what any source may give, and what the engine itself sees to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from device_plugin.api import deviceplugin_pb2 as api
from device_plugin.api.deviceplugin_grpc import DevicePluginStub
from device_plugin.engine import Engine
from device_plugin.inotify import Watcher
from device_plugin.kubelet import Kubelet
from device_plugin.metrics import PluginMetrics
from device_plugin.source import Answer, Device
from fake_kubelet.kubelet import FakeKubelet
from fake_kubelet.node import run
from grpclib.exceptions import GRPCError

NAME = "x.example/thing"


@dataclass
class Things:
    """A resource."""

    offered: Sequence[Device]
    name: str = NAME
    is_present: bool = True
    prefers: bool = False
    broken: str = ""
    given: list[str] = field(default_factory=list)

    def devices(self) -> Sequence[Device]:
        return self.offered

    def allocate(self, ids: Sequence[str]) -> Answer:
        if self.broken:
            raise OSError(self.broken)
        self.given += ids
        return Answer({"IDS": ",".join(ids)})

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        return [*must, *reversed(available)][:size]


@asynccontextmanager
async def offered(folder: Path, things: Things) -> AsyncIterator[tuple[Engine, FakeKubelet, PluginMetrics]]:
    """An engine and a kubelet that has registered it."""
    kubelet, watcher, metrics = FakeKubelet(folder), Watcher(), PluginMetrics()
    await kubelet.start()
    engine = Engine(Kubelet(folder), watcher, metrics)
    engine.start()
    await engine.offer([things])
    await kubelet.until(lambda: kubelet.capacity(NAME) == len(things.offered))
    try:
        yield engine, kubelet, metrics
    finally:
        await engine.stop()
        watcher.close()
        await kubelet.kill()


def test_health_and_topology_arrive_and_every_change_too(folder: Path) -> None:
    async def work() -> None:
        things = Things([Device("a", numa=(1,)), Device("b", healthy=False)])
        async with offered(folder, things) as (engine, kubelet, _metrics):
            client = kubelet.endpoints[NAME]
            assert [node.ID for node in client.devices["a"].topology.nodes] == [1]
            assert kubelet.allocatable(NAME) == 1
            things.offered = [Device("a"), Device("b"), Device("c")]
            await engine.offer([things])
            await kubelet.until(lambda: kubelet.allocatable(NAME) == 3)
            count = client.lists
            await engine.offer([things])  # nothing is different
            things.offered = []
            await engine.offer([things])
            await kubelet.until(lambda: kubelet.capacity(NAME) == 0)
            assert client.lists == count + 1

    run(work())


@pytest.mark.parametrize(
    ("ids", "broken", "reason"),
    [(["zzz"], "", "unknown"), (["b"], "", "unhealthy"), (["a"], "no space left", "system")],
)
def test_what_is_not_given_is_counted_by_reason(folder: Path, ids: list[str], broken: str, reason: str) -> None:
    async def work() -> None:
        things = Things([Device("a"), Device("b", healthy=False)], broken=broken)
        async with offered(folder, things) as (_engine, kubelet, metrics):
            request = api.AllocateRequest(container_requests=[api.ContainerAllocateRequest(devices_ids=ids)])
            with pytest.raises(GRPCError, match=broken or ids[0]):
                await DevicePluginStub(kubelet.endpoints[NAME].channel).Allocate(request)
            assert things.given == []
            about = {"resource": NAME, "reason": reason}
            assert metrics.registry.get_sample_value("device_plugin_allocation_errors_total", about) == 1

    run(work())


def test_preferences_are_asked_for_where_a_resource_has_them(folder: Path) -> None:
    async def work() -> None:
        things = Things([Device(one) for one in "abc"], prefers=True)
        async with offered(folder, things) as (_engine, kubelet, _metrics):
            client = kubelet.endpoints[NAME]
            assert client.options.get_preferred_allocation_available
            assert not client.options.pre_start_required
            request = api.PreferredAllocationRequest()
            request.container_requests.add(
                available_deviceIDs=["a", "b", "c"], must_include_deviceIDs=["a"], allocation_size=2
            )
            plugin = DevicePluginStub(client.channel)
            answer = await plugin.GetPreferredAllocation(request)
            assert list(answer.container_responses[0].deviceIDs) == ["a", "c"]
            assert await plugin.PreStartContainer(api.PreStartContainerRequest()) == api.PreStartContainerResponse()

    run(work())


def test_ten_thousand_devices_are_told_and_given(folder: Path) -> None:
    async def work() -> None:
        things = Things([Device(f"GPU-{number // 1000}::{number}") for number in range(10_000)])
        async with offered(folder, things) as (_engine, kubelet, _metrics):
            assert kubelet.allocatable(NAME) == 10_000
            got = await kubelet.allocate(NAME, 2, "pod")
            assert got.envs["IDS"] == "GPU-0::0,GPU-0::1"

    run(work())


def test_devices_that_become_too_many_break_no_stream(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        things = Things([Device("a")])
        async with offered(folder, things) as (engine, kubelet, _metrics):
            things.offered = [Device(f"GPU-{number:058}") for number in range(60_000)]
            await engine.offer([things])
            assert "60000 devices are 4620000 bytes in one message" in caplog.text
            assert "At most 54471 of these fit" in engine.problems[0]
            assert kubelet.allocatable(NAME) == 1
            things.offered = [Device("a"), Device("b")]
            await engine.offer([things])
            await kubelet.until(lambda: kubelet.allocatable(NAME) == 2)
            assert engine.problems == []
            assert kubelet.refusals == []
            assert len(kubelet.registered) == 1

    run(work())


def test_a_resource_that_fails_in_a_way_nobody_thought_of_is_no_secret(folder: Path) -> None:
    class Odd(Things):
        @property
        def prefers(self) -> bool:
            raise RuntimeError("odd")

        @prefers.setter
        def prefers(self, _value: bool) -> None: ...

    async def work() -> None:
        watcher = Watcher()
        kubelet = FakeKubelet(folder)
        await kubelet.start()
        engine = Engine(Kubelet(folder), watcher, PluginMetrics())
        await engine.offer([Odd([Device("a")])])
        with pytest.raises(RuntimeError, match="odd"):
            await asyncio.wait_for(engine.failed, 5)
        await engine.stop()
        watcher.close()
        await kubelet.kill()
        assert list(folder.glob("cdp-*")) == []

    run(work())
