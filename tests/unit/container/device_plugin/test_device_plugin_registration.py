# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Registered with the kubelet, and again whenever that was undone."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
from pathlib import Path

import pytest
from device_plugin.engine import FolderGone
from device_plugin.process import Process
from device_plugin.sockets import name_for
from fake_kubelet.kubelet import FakeKubelet
from fake_kubelet.node import TDX, Node, eventually, node_with_kubelet, run

RELEASES = [(1, 36), (1, 37)]


def test_a_healthy_device_is_allocatable_soon_after_the_start(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            assert await node.allocatable(3) < 2.0
            assert [name for _at, name, _socket in node.kubelet.registered] == [TDX]
            assert len(node.sockets()) == 1

    run(work())


def test_a_stop_leaves_no_socket_and_nothing_allocatable(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            async with node.plugin():
                await node.allocatable(3)
            assert node.sockets() == []
            await node.allocatable(0)

    run(work())


def test_fifty_restarts_of_the_kubelet(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            for _time in range(50):
                await node.kubelet.restart()
                assert await node.allocatable(3) < 1.0
                assert len(node.sockets()) == 1
            assert node.kubelet.refusals == []

    run(work())


def test_a_kubelet_that_comes_late_has_us_within_a_second(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)
            await node.kubelet.kill()
            (node.plugins / "kubelet.sock").unlink()
            assert process.problems()
            await asyncio.sleep(1.0)  # longer than the first attempts would take
            await node.kubelet.start()
            assert await node.allocatable(3) < 1.0

    run(work())


def test_a_kubelet_that_was_killed_and_left_its_socket(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            await node.kubelet.kill()
            await asyncio.sleep(0.5)  # it is tried to register meanwhile, in vain
            await node.kubelet.start()
            assert await node.allocatable(3) < 1.0

    run(work())


def test_our_socket_was_deleted(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)
            await eventually(lambda: process.problems() == [])
            (before,) = node.sockets()
            (node.plugins / before).unlink()
            await node.kubelet.until(lambda: len(node.kubelet.registered) > 1, 1.0)
            await node.allocatable(3, within_s=1.0)
            assert node.sockets() != [before]

    run(work())


def test_an_emptied_folder_disturbs_no_kubelet_that_listens_still(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            for one in node.plugins.iterdir():
                one.unlink()
            node.remove_device()
            await node.allocatable(0)  # the stream is open: it is told
            node.add_device()
            await node.allocatable(3)
            await node.kubelet.restart()
            assert await node.allocatable(3) < 1.0

    run(work())


@pytest.mark.parametrize("release", RELEASES)
def test_an_update_with_a_surge_to_and_fro(folder: Path, release: tuple[int, int]) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder, release) as node, contextlib.AsyncExitStack() as old:
            await old.enter_async_context(node.plugin())
            await node.allocatable(3)
            for _time in range(4):
                count = len(node.kubelet.registered)
                new = contextlib.AsyncExitStack()
                await new.enter_async_context(node.plugin())
                await node.kubelet.until(lambda count=count: len(node.kubelet.registered) > count)  # type: ignore[misc]
                await node.allocatable(3)
                await old.aclose()
                await asyncio.sleep(0.1)  # what the end of the old one does to the new one has happened
                assert await node.allocatable(3) < 2.0
                assert len(node.sockets()) == 1
                old.push_async_callback(new.aclose)

    run(work())


def test_a_kubelet_that_rejects_is_asked_again_and_never_hammered(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.kubelet.reject = "not now"
            async with node.plugin() as process:
                await node.kubelet.until(lambda: len(node.kubelet.refusals) >= 4)
                assert any("not now" in one for one in process.problems())
                await asyncio.sleep(0.5)
                assert len(node.kubelet.refusals) < 10
                node.kubelet.reject = ""
                await node.allocatable(3, within_s=6.0)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_a_kubelet_that_drops_each_stream_is_not_hammered(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            node.kubelet.drops = True
            await node.kubelet.restart()
            await asyncio.sleep(1.0)
            assert 3 <= node.kubelet.asked <= 10
            node.kubelet.drops = False
            await node.allocatable(3, within_s=6.0)

    run(work())


def test_a_kubelet_that_dies_inside_register(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.kubelet.die = True
            async with node.plugin():
                await node.kubelet.until(lambda: node.kubelet.asked > 0 and not node.kubelet.die)
                await asyncio.sleep(0.1)
                await node.kubelet.restart()
                assert await node.allocatable(3) < 1.0

    run(work())


def test_a_kubelet_that_is_silent_inside_register_and_is_replaced(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.kubelet.silent = True
            async with node.plugin():
                await node.kubelet.until(lambda: node.kubelet.asked > 0)
                other = FakeKubelet(node.plugins)  # the first one hangs, and its connections stay open
                await other.start()
                assert await other.until(lambda: other.allocatable(TDX) == 3) < 1.0
            await other.kill()

    run(work())


def test_a_slow_kubelet_is_waited_for(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.kubelet.slow_s = 0.7
            async with node.plugin():
                await node.allocatable(3)
                assert node.kubelet.asked == 1

    run(work())


def test_sockets_of_a_killed_process_are_swept_and_those_of_a_living_one_are_not(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            (living,) = node.sockets()
            for name in ("cdp-dead-0123.sock", "nvidia-gpu.sock"):
                with socket.socket(socket.AF_UNIX) as one:
                    one.bind(str(node.plugins / name))
            count = len(node.kubelet.registered)
            async with node.plugin():
                await node.kubelet.until(lambda: len(node.kubelet.registered) > count)
                assert living in node.sockets()
                assert "cdp-dead-0123.sock" not in node.sockets()
                assert (node.plugins / "nvidia-gpu.sock").exists()

    run(work())


def test_the_folder_itself_was_removed(folder: Path) -> None:
    async def work() -> None:
        node = Node(folder)
        node.add_device()
        await node.kubelet.start()
        process = Process(node.settings())
        task = asyncio.create_task(process.run())
        await node.allocatable(3)
        await node.kubelet.kill()
        shutil.rmtree(node.plugins)
        with pytest.raises(FolderGone, match="only another container sees a new one"):
            await task

    run(work())


def test_the_name_of_a_socket_is_new_each_time_and_short(folder: Path) -> None:

    names = {name_for("a" * 200 + ".example.com/" + "n" * 63) for _time in range(20)}
    assert len(names) == 20
    assert all(len(f"/var/lib/kubelet/device-plugins/{name}") <= 107 for name in names)
