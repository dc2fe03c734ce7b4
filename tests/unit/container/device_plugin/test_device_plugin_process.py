# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The whole process: its port, its configuration that changes, its signals, and who has what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from device_plugin import port as port_module
from device_plugin.inotify import Watcher
from device_plugin.kubelet import PodResources
from device_plugin.port import Server
from device_plugin.process import Process
from fake_kubelet.node import CONFIG, TDX, Node, eventually, node_with_kubelet, run
from kube.pages import LIFE_S, Pages
from kube.settings import BadSetting
from prometheus_client import CollectorRegistry


async def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    head, _empty, body = answer.partition("\r\n\r\n")
    return int(head.split()[1]), body


def free_port() -> int:
    """One that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_the_port_tells_everything(folder: Path) -> None:
    async def work() -> None:
        port = free_port()
        async with node_with_kubelet(folder) as node, node.plugin(metrics_port=port) as process:
            await node.allocatable(3)
            await eventually(lambda: process.problems() == [])
            await node.kubelet.allocate(TDX, 2, "pod")
            status, text = await get(port, "/metrics")
            assert status == 200
            for line in (
                f'device_plugin_devices{{resource="{TDX}"}} 3.0',
                f'device_plugin_healthy_devices{{resource="{TDX}"}} 3.0',
                f'device_plugin_allocated_devices{{resource="{TDX}"}} 2.0',
                f'device_plugin_allocations_total{{resource="{TDX}"}} 1.0',
                f'device_plugin_registrations_total{{resource="{TDX}"}} 1.0',
                f'device_plugin_registered{{resource="{TDX}"}} 1.0',
                f'device_plugin_stream_breaks_total{{resource="{TDX}"}} 0.0',
                'device_plugin_build_info{version="unknown"} 1.0',
                "device_plugin_config_refused 0.0",
            ):
                assert line in text
            assert "process_resident_memory_bytes" in text
            assert await get(port, "/healthz") == (200, "ok\n")
            assert await get(port, "/readyz?verbose") == (200, "ok\n")
            assert (await get(port, "/"))[0] == 404
            await node.kubelet.kill()
            await eventually(lambda: bool(process.problems()))
            status, text = await get(port, "/readyz")
            assert status == 503
            assert TDX in text
            assert f'device_plugin_allocated_devices{{resource="{TDX}"}}' not in (await get(port, "/metrics"))[1]

    run(work())


def test_a_port_that_is_taken_is_refused(folder: Path) -> None:
    async def work() -> None:
        with socket.create_server(("", 0)) as taken:
            process = Process(Node(folder).settings(metrics_port=taken.getsockname()[1]))
            with pytest.raises(BadSetting, match="Give another, or 0"):
                await process.run()

    run(work())


@asynccontextmanager
async def bare_port() -> AsyncIterator[Server]:
    """A port with nothing behind it."""

    async def nothing() -> None:
        return

    server = Server(0, Pages(CollectorRegistry(), lambda: True, list), nothing)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def test_connections_that_say_nothing_do_not_pile_up() -> None:
    async def work() -> None:
        async with bare_port() as server:
            mute = [await asyncio.open_connection("127.0.0.1", server.port) for _one in range(40)]
            assert (await get(server.port, "/healthz"))[0] == 200
            async with asyncio.timeout(LIFE_S / 2):
                assert await mute[0][0].read() == b""  # the oldest was closed
            for _reader, writer in mute:
                writer.close()

    run(work())


@pytest.mark.parametrize("request_text", ["POST / HTTP/1.1\r\n\r\n", "nonsense\r\n\r\n"])
def test_what_is_no_question_is_answered(request_text: str) -> None:
    async def work() -> None:
        async with bare_port() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(request_text.encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 405")
            writer.close()

    run(work())


def test_a_request_without_an_end_is_cut() -> None:
    async def work() -> None:
        async with bare_port() as server:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"G" * (port_module.REQUEST_MAX * 2))
            assert await reader.read() == b""
            writer.close()

    run(work())


def test_another_configuration_is_taken_and_a_bad_one_is_not(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)

            def value(name: str) -> float | None:
                return process.metrics.registry.get_sample_value(f"device_plugin_{name}")

            node.configure({"resources": [{"device": "tdx-guest", "slots": 5}]})
            await node.allocatable(5)
            assert len(node.kubelet.registered) == 1
            node.configure({"resources": [{"device": "tdx-guest", "slots": 0}]})
            await eventually(lambda: value("config_refused") == 1)
            assert value("config_errors_total") == 1
            assert node.kubelet.allocatable(TDX) == 5
            assert process.problems() == []
            node.configure({"resources": [{"device": "tdx-guest", "slots": 200_000}]})
            await eventually(lambda: value("config_errors_total") == 2)
            node.config.unlink()
            await eventually(lambda: value("config_errors_total") == 3)
            node.configure({"resources": [{"device": "tdx-guest", "slots": 5}]})
            await eventually(lambda: value("config_refused") == 0)
            assert node.kubelet.allocatable(TDX) == 5
            node.remove_device()
            await node.allocatable(0)
            assert caplog.text.count("there is no /dev/tdx_guest") == 1  # only the source in force looks
            node.add_device()
            node.configure({"resources": [{"device": "tdx-guest", "name": "x.example/y", "slots": 2}]})
            await node.allocatable(2, "x.example/y")
            await node.allocatable(0)
            assert len(node.sockets()) == 1

    run(work())


def test_a_list_without_this_pod_is_not_believed(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            resources = PodResources(node.pod_resources, ("default", "me"))
            node.kubelet.held["other"] = {TDX: ["a"]}
            assert await resources.held() is None
            node.kubelet.held["me"] = {}
            assert await resources.held() == {TDX: frozenset({"a"})}
            assert await PodResources(folder / "none").held() is None

    run(work())


def test_at_rest_nobody_is_asked(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            await node.kubelet.allocate(TDX, 1, "pod")
            await asyncio.sleep(0.2)
            assert node.kubelet.lists == 0

    run(work())


def test_report_folders_make_it_ask(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            (node.root / "tsm").mkdir()
            node.configure({**CONFIG, "reports": {"enabled": True, "path": "/tsm"}})
            async with node.plugin():
                await node.allocatable(3)
                await node.kubelet.allocate(TDX, 1, "pod")
                await eventually(lambda: node.kubelet.lists > 0)

    run(work())


def test_without_inotify_folders_are_looked_at_by_the_clock(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Blind(Watcher):
        def __init__(self) -> None:
            super().__init__(look_s=0.01)
            self._loop.remove_reader(self._file)
            os.close(self._file)
            self._file = -1

    async def work() -> None:
        watcher, told = Blind(), []
        watcher.watch(folder, lambda: told.append(1))
        await eventually(lambda: len(told) > 2)
        watcher.close()
        assert "Raise fs.inotify.max_user_instances" in caplog.text

    run(work())


def test_a_folder_that_comes_later_is_watched_then(folder: Path) -> None:
    async def work() -> None:
        watcher, told = Watcher(), []
        place = folder / "a" / "b"
        watcher.watch(place, lambda: told.append(1))
        for _time in range(3):
            place.mkdir(parents=True)
            await eventually(lambda: bool(told))
            told.clear()
            (place / "file").touch()
            await eventually(lambda: bool(told))
            (place / "file").unlink()
            place.rmdir()
            place.parent.rmdir()
            await asyncio.sleep(0.05)
            told.clear()
        watcher.close()

    run(work())


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_program_from_its_start_to_a_signal(folder: Path, how: signal.Signals) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            process = started(node)
            try:
                await node.allocatable(3, within_s=20.0)
                await eventually(lambda: "registered with the kubelet" in (folder / "log").read_text())
            finally:
                process.send_signal(how)
                await asyncio.to_thread(process.wait, 20)
            assert process.returncode == (-9 if how == signal.SIGKILL else 0)
            await node.allocatable(0)
            assert len(node.sockets()) == (1 if how == signal.SIGKILL else 0)
            assert all(json.loads(line)["message"] for line in (folder / "log").read_text().splitlines())
            async with node.plugin():  # mends what the kill left
                await node.allocatable(3)
                assert len(node.sockets()) == 1

    run(work())


def started(node: Node) -> subprocess.Popen[bytes]:
    """The program itself."""
    values = {**node.environment(), "DEVICE_PLUGIN_LOG_FORMAT": "json"}
    with (node.root.parent / "log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "device_plugin"], env=values, stderr=log)


def test_whenever_the_program_is_killed_the_next_one_mends_what_it_left(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            (node.root / "tsm").mkdir()
            node.configure({**CONFIG, "cdi": {"enabled": True}, "reports": {"enabled": True, "path": "/tsm"}})
            for step in range(12):  # from before its first line to after an allocation
                process = started(node)
                try:
                    with contextlib.suppress(TimeoutError):
                        await node.allocatable(3, within_s=step * 0.03)
                        await node.kubelet.allocate(TDX, 1, f"pod-{step}")
                finally:
                    process.kill()
                    await asyncio.to_thread(process.wait, 20)
                await node.allocatable(0)
                node.kubelet.held.clear()
            async with node.plugin():
                await node.allocatable(3)
                await node.kubelet.allocate(TDX, 1, "pod")
                assert len(node.sockets()) == 1
                assert len(list((node.root / "var/run/cdi").iterdir())) == 1
                assert (node.root / "run/ccnp/uds").stat().st_mode & 0o777 == 0o755
                assert len(list((node.root / "tsm").iterdir())) == 1

    run(work())
