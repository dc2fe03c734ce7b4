# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says decides: which configuration holds, and whether anything is given away at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from device_plugin import settings
from device_plugin.gpu.announced import withheld
from device_plugin.named import LABEL, chosen
from device_plugin.own_node import OwnNode
from device_plugin.process import Process
from device_plugin.refusal import BadConfig
from fake_api import faults
from fake_api.daemon_sets import NODES
from fake_api.server import ApiServer
from fake_api.store import Store
from fake_kubelet.node import Node, eventually, run
from fake_nvml.driver import Driver
from grpclib.exceptions import GRPCError
from kube.client import Kube
from kube.connection import Connection
from kube.settings import BadSetting

GPU = "nvidia.com/gpu"
NODE = "node-1"
CHANGING, STATE, DEVICES = "nvidia.com/cc.mode.changing", "nvidia.com/cc.mode.state", "nvidia.com/cc.mode.devices"
EVENTS = "/api/v1/namespaces/default/events"
WHOLE: dict[str, Any] = {"version": "v1"}
READ = json.dumps({"0000:17:00.0": {"mode": "off"}, "0000:18:00.0": {"mode": None, "gone": True}})
UNREAD = json.dumps({"0000:17:00.0": {"mode": None}, "0000:18:00.0": {"mode": "off"}})


def shared(replicas: int) -> dict[str, Any]:
    return {**WHOLE, "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": replicas}]}}}


class Place:
    """A node with two GPUs, which is also one of an API server."""

    def __init__(self, node: Node, store: Store, server: ApiServer) -> None:
        self.node, self.store, self.server = node, store, server
        self.configs = node.config.parent.with_name("configs")
        self.configs.mkdir()

    def plugin(self, stale_s: float = 60.0, silence_s: float = 30.0, **changes: Any) -> Any:
        kube = Kube(Connection(self.server.url), silence_s=silence_s)
        own = OwnNode(kube, NODE, stale_s)
        return self.node.plugin(own, source="gpu", node=NODE, **changes)

    def say(self, labels: dict[str, Any] | None = None, annotations: dict[str, Any] | None = None) -> None:
        """Somebody changes the node."""
        self.store.patch(NODES, NODE, {"metadata": {"labels": labels or {}, "annotations": annotations or {}}})

    def name(self, **configs: Any) -> None:
        """Configurations with names, as a ConfigMap's folder has them."""
        for name, config in configs.items():
            new = self.configs / f"..{name}"
            new.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
            new.replace(self.configs / name)

    def events(self) -> list[tuple[str, str, str]]:
        found = self.store.list(EVENTS, {})[0]
        return [(one["type"], one["reason"], one["message"]) for one in found]


Placed = Callable[[], contextlib.AbstractAsyncContextManager[Place]]


@pytest.fixture
def placed(folder: Path, libnvidia_ml: Path, store: Store, server: ApiServer) -> Placed:
    @contextlib.asynccontextmanager
    async def make() -> AsyncIterator[Place]:
        node = Node(folder)
        node.configure(WHOLE)
        driver = Driver(node.root, node.sys, libnvidia_ml)
        await node.kubelet.start()
        try:
            yield Place(node, store, server)
        finally:
            await node.kubelet.kill()
            driver.close()

    return make


def value(process: Process, name: str, **labels: str) -> float | None:
    return process.metrics.registry.get_sample_value(f"device_plugin_{name}", labels)


# --- a mode that is being changed -------------------------------------------------------------------------------------


def test_nothing_is_given_while_the_mode_is_being_changed(placed: Placed) -> None:
    async def work() -> None:
        async with placed() as place, place.plugin() as process:
            kubelet = place.node.kubelet
            place.say({STATE: "off"}, {DEVICES: READ})
            await place.node.allocatable(2, GPU)
            place.say({STATE: ""}, {CHANGING: "off -> on", DEVICES: UNREAD})
            assert await place.node.allocatable(0, GPU) < 1.0
            assert kubelet.capacity(GPU) == 2  # unhealthy, and not gone
            one = next(iter(kubelet.endpoints[GPU].devices.values()))
            one.health = "Healthy"  # as if the kubelet had not heard of it yet
            with pytest.raises(GRPCError, match="their mode is being changed"):
                await kubelet.allocate(GPU, 1, "late")
            one.health = "Unhealthy"
            assert value(process, "allocation_errors_total", resource=GPU, reason="withheld") == 1
            assert value(process, "withheld") == 1
            assert process.problems() == []  # it does what it is for
            place.say(annotations={CHANGING: None})
            await eventually(lambda: "is not known" in process.held)
            assert kubelet.allocatable(GPU) == 0  # nobody has read the modes back
            place.say({STATE: "on"}, {DEVICES: READ})
            await place.node.allocatable(2, GPU)
            assert value(process, "withheld") == 0
            assert {one.verb for one in place.store.requests} == {"get", "watch"}

    run(work())


def test_a_node_of_which_nothing_was_heard_yet_gives_nothing(placed: Placed) -> None:
    async def work() -> None:
        async with placed() as place:
            place.server.stop()
            async with place.plugin() as process:
                await eventually(lambda: place.node.kubelet.capacity(GPU) == 2)
                assert place.node.kubelet.allocatable(GPU) == 0
                assert "the node node-1 is not known" in process.problems()[0]
                assert (value(process, "node_errors_total", status="0") or 0) >= 1
                place.say(annotations={CHANGING: "off -> on"})
                place.server.start()
                await eventually(lambda: "being changed" in process.held)
                place.say(annotations={CHANGING: None})
                await place.node.allocatable(2, GPU)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_a_node_of_which_nothing_is_heard_any_more_gives_nothing(placed: Placed) -> None:
    async def work() -> None:
        async with placed() as place, place.plugin(stale_s=1.5, silence_s=1.0) as process:
            await place.node.allocatable(2, GPU)
            await asyncio.sleep(2.0)  # the server says something each half second
            assert place.node.kubelet.allocatable(GPU) == 2
            place.store.faults.send(faults.SILENT, "watch")
            place.store.faults.refuse("get", "/nodes", 503)
            place.server.cut()
            await place.node.allocatable(0, GPU)
            assert "nothing was heard of the node node-1 for 1.5 s" in process.problems()[0]
            place.store.faults.clear()
            await place.node.allocatable(2, GPU)
            await eventually(lambda: process.problems() == [])

    run(work())


def test_a_node_that_is_not_there_and_one_that_may_not_be_read(placed: Placed) -> None:
    async def work() -> None:
        async with placed() as place:
            found = place.store.get(NODES, NODE)
            place.store.delete(NODES, NODE)
            async with place.plugin() as process:
                await eventually(lambda: "there is no such node" in " ".join(process.problems()))
                place.store.faults.refuse("watch", "/nodes", 403)
                place.server.cut()
                await eventually(lambda: "403" in " ".join(process.problems()))
                place.store.faults.clear()
                place.store.create(NODES, found)
                await place.node.allocatable(2, GPU)

    run(work())


def test_a_node_that_is_heard_of_again_is_told_although_it_is_as_before(server: ApiServer, store: Store) -> None:
    async def work() -> None:
        told: list[bool] = []
        own = OwnNode(Kube(Connection(server.url)), NODE)
        own.start(lambda: told.append(own.was_seen))
        await eventually(lambda: told == [True])
        store.patch(NODES, NODE, {"status": {"beat": 1}})  # the kubelet's
        server.cut()
        await eventually(lambda: told == [True, True])
        own.stop()

    run(work())


@pytest.mark.parametrize(
    ("labels", "annotations", "reason"),
    [
        ({}, {}, ""),
        ({}, {DEVICES: UNREAD}, ""),  # nobody manages modes here
        ({STATE: "off"}, {}, ""),
        ({STATE: "mixed"}, {}, ""),
        ({STATE: "off"}, {CHANGING: ""}, "being changed"),
        ({}, {CHANGING: "on"}, "being changed"),
        ({STATE: ""}, {}, "not known"),
        ({STATE: "failed"}, {}, "not known"),
        ({STATE: "failed"}, {DEVICES: UNREAD}, "not known"),
        ({STATE: "failed"}, {DEVICES: "{}"}, "not known"),
        ({STATE: "failed"}, {DEVICES: "[1]"}, "not known"),
        ({STATE: "failed"}, {DEVICES: "{"}, "not known"),
        ({STATE: "failed"}, {DEVICES: READ}, ""),  # a request that cannot be; the modes are known
    ],
)
def test_what_speaks_against_giving_gpus(labels: dict[str, str], annotations: dict[str, str], reason: str) -> None:
    found = withheld(labels, annotations)
    assert reason in found
    assert bool(found) == bool(reason)


# --- which configuration ----------------------------------------------------------------------------------------------


def test_a_label_chooses_the_configuration_and_a_bad_one_keeps_the_last(
    placed: Placed, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with placed() as place:
            place.name(default=WHOLE, four=shared(4), bad=shared(1))
            async with place.plugin(configs=place.configs) as process:
                await place.node.allocatable(2, GPU)
                place.say({LABEL: "four"})
                await place.node.allocatable(8, GPU)
                for number, (label, words) in enumerate(
                    [("bad", "replicas: is 1"), ("none", "has no configuration 'none'")], 1
                ):
                    place.say({LABEL: label})
                    await eventually(lambda number=number: value(process, "config_errors_total") == number)  # type: ignore[misc]
                    await eventually(lambda words=words: words in place.events()[-1][2])  # type: ignore[misc]
                    assert place.events()[-1][:2] == ("Warning", "DevicePluginConfigRefused")
                    assert words in caplog.text
                    assert value(process, "config_refused") == 1
                    assert place.node.kubelet.allocatable(GPU) == 8
                    assert process.problems() == []
                place.name(none=shared(3))  # it comes later
                await place.node.allocatable(6, GPU)
                assert value(process, "config_refused") == 0
                place.say({LABEL: None})
                await place.node.allocatable(2, GPU)
                await eventually(lambda: place.events()[-1][2].startswith("default: another configuration"))
            assert {one.verb for one in place.store.requests} <= {"get", "watch", "create"}
            assert {one.path for one in place.store.requests if one.verb == "create"} == {EVENTS}

    run(work())


@pytest.mark.parametrize(("label", "words"), [("bad", "there is no such key"), ("none", "no configuration 'none'")])
def test_a_bad_choice_at_the_start_is_mended_without_a_restart(placed: Placed, label: str, words: str) -> None:
    async def work() -> None:
        async with placed() as place:
            place.name(bad="version: v1\nversio: v1\n", two=shared(2))
            place.say({LABEL: label})
            async with place.plugin(configs=place.configs) as process:
                await eventually(lambda: words in " ".join(process.problems()))
                await eventually(lambda: place.events()[-1:] != [])
                assert place.events()[-1][2].endswith("Nothing is offered.")
                assert place.node.kubelet.capacity(GPU) == 0
                place.say({LABEL: "two"})
                await place.node.allocatable(4, GPU)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_an_event_that_the_api_refuses_is_counted(placed: Placed) -> None:
    async def work() -> None:
        async with placed() as place:
            place.name(default=WHOLE)
            place.store.faults.refuse("create", "/events", 403)
            async with place.plugin(configs=place.configs) as process:
                await place.node.allocatable(2, GPU)
                place.say({LABEL: "none"})
                await eventually(lambda: value(process, "events_lost_total") == 1)
                assert place.node.kubelet.allocatable(GPU) == 2

    run(work())


@pytest.mark.parametrize(
    ("there", "label", "default", "name"),
    [
        (["a", "b", "default"], "a", "b", "a"),
        (["a", "b", "default"], "", "b", "b"),
        (["a", "b", "default"], "", "", "default"),
        (["a"], "", "", "a"),
        (["a", "b"], "", "", "no configuration 'default', and nobody asks for another"),
        ([], "", "", "There is none at all"),
        (["a", "b"], "c", "a", "no configuration 'c', which the node's label nvidia.com/device-plugin.config asks"),
        (["a", "b"], "", "c", "no configuration 'c', which DEVICE_PLUGIN_DEFAULT_CONFIG asks for"),
        (["a"], "..data", "", "no configuration '..data'"),
        (["a"], "../a", "", "no configuration '../a'"),
    ],
)
def test_which_of_several_configurations_holds(
    tmp_path: Path, there: list[str], label: str, default: str, name: str
) -> None:
    (tmp_path / "..data").mkdir()
    for one in there:
        (tmp_path / one).touch()
    try:
        assert chosen(tmp_path, {LABEL: label} if label else {}, default) == tmp_path / name
    except BadConfig as error:
        assert name in str(error)  # noqa: PT017


def test_a_folder_of_configurations_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        chosen(tmp_path / "absent", {}, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--node=n"], "the source tee asks nothing of the API server"),
        (["--source=gpu", "--configs=/c"], "no node is known whose label"),
        (["--source=gpu", "--node=n", "--default-config=a"], "there is no folder of configurations"),
        (["--source=gpu", "--node=n", "--configs=c"], "Give an absolute path"),
    ],
)
def test_settings_that_do_not_go_together(arguments: list[str], words: str) -> None:
    with pytest.raises(BadSetting, match=words):
        settings.parse(arguments, {}, ["tee", "gpu"])


def test_a_node_without_an_api_server_is_refused(folder: Path) -> None:
    from device_plugin.process import main  # noqa: PLC0415

    node = Node(folder)
    environment = {**node.environment(), "DEVICE_PLUGIN_SOURCE": "gpu", "DEVICE_PLUGIN_NODE": "n"}
    assert main([], environment) == 2
