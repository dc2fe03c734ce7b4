# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""TEE devices: health that tells the truth, what a container gets, and what is collected when it has ended."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from device_plugin.tee.reports import Reports, name_of
from fake_kubelet.kubelet import FakeKubelet
from fake_kubelet.node import CONFIG, SEV, TDX, Node, eventually, node_with_kubelet, run
from grpclib.exceptions import GRPCError

REPORTS = {"enabled": True, "path": "/sys/kernel/config/tsm/report"}


def test_a_container_gets_the_device_and_the_folder_of_sockets(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            got = await node.kubelet.allocate(TDX, 1, "pod")
            (device,) = got.devices
            assert (device.container_path, device.host_path, device.permissions) == ("/dev/tdx_guest",) * 2 + ("rw",)
            (mount,) = got.mounts
            assert (mount.container_path, mount.host_path, mount.read_only) == ("/run/ccnp/uds",) * 2 + (False,)
            assert not got.cdi_devices
            made = (node.root / "run/ccnp/uds").stat()
            assert stat.S_IMODE(made.st_mode) == 0o755
            assert made.st_uid == os.geteuid()

    run(work())


def test_a_device_that_is_not_there_is_not_offered_and_comes_later(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.remove_device()
            async with node.plugin() as process:
                await eventually(lambda: "is its module loaded?" in process.problems()[0])
                assert node.kubelet.registered == []
                node.add_device()
                await node.allocatable(3, within_s=1.0)
                await eventually(lambda: process.problems() == [])

    run(work())


def test_a_device_goes_and_comes_back_a_hundred_times_without_a_leak(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)
            await eventually(lambda: process.problems() == [])

            def now() -> tuple[int, int]:
                return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

            before = now()
            for _time in range(100):
                node.remove_device()
                assert await node.allocatable(0) < 1.0
                assert node.kubelet.capacity(TDX) == 3
                node.add_device()
                assert await node.allocatable(3) < 1.0
            await eventually(lambda: all(after <= then for after, then in zip(now(), before, strict=True)))
            assert len(node.kubelet.registered) == 1

    run(work())


@pytest.mark.parametrize(
    ("stands_for", "problem"),
    [("null", "which is null"), (None, "the kernel has no device of it"), ("", "a device without a name")],
)
def test_a_node_of_another_device_is_not_healthy(folder: Path, stands_for: str | None, problem: str) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            (about,) = (node.sys / "dev/char").glob("*/uevent")
            if stands_for is None:
                about.unlink()
            else:
                about.write_text(f"MAJOR=1\n{'DEVNAME=' + stands_for if stands_for else ''}\n")
            async with node.plugin() as process:
                await eventually(lambda: problem in process.problems()[0])
                assert node.kubelet.registered == []

    run(work())


def test_something_else_in_the_place_of_the_device(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin():
            await node.allocatable(3)
            node.remove_device()
            (node.dev / "tdx_guest").write_text("")
            await node.allocatable(0)
            assert "/dev/tdx_guest is no character device" in caplog.text

    run(work())


def test_the_old_path_counts_where_the_new_one_is_not(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.remove_device()
            node.add_device("tdx-guest")
            async with node.plugin():
                await node.allocatable(3)
                got = await node.kubelet.allocate(TDX, 1, "pod")
                assert got.devices[0].host_path == "/dev/tdx-guest"

    run(work())


def test_without_the_hosts_nodes_the_kernel_is_asked_by_the_clock(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.remove_device()
            device = node.sys / "class/misc/tdx-guest"
            async with node.plugin(sees_nodes=False) as process:
                await eventually(lambda: "the kernel has no tdx_guest" in process.problems()[0])
                device.mkdir(parents=True)
                (device / "dev").write_text("10:125")
                await node.allocatable(3, within_s=2.0)
                got = await node.kubelet.allocate(TDX, 1, "pod")
                assert got.devices[0].host_path == "/dev/tdx-guest"
                (device / "dev").unlink()
                await node.allocatable(0, within_s=2.0)

    run(work())


def test_two_resources_each_with_its_own_device(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            node.configure({"resources": [*CONFIG["resources"], {"device": "sev-guest", "slots": 2}]})
            async with node.plugin():
                await node.allocatable(3)
                assert [name for _at, name, _path in node.kubelet.registered] == [TDX]
                node.add_device("sev-guest")  # the same number: the kernel calls it by this name now
                await node.allocatable(2, SEV)
                await node.allocatable(0, TDX)

    run(work())


def test_nothing_is_allocated_of_a_device_that_went_a_moment_ago(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)
            (about,) = (node.sys / "dev/char").glob("*/uevent")
            about.unlink()  # of which no event tells
            with pytest.raises(GRPCError, match="the kernel has no device of it"):
                await node.kubelet.allocate(TDX, 1, "pod")
            found = process.metrics.registry.get_sample_value(
                "device_plugin_allocation_errors_total", {"resource": TDX, "reason": "unhealthy"}
            )
            assert found == 1

    run(work())


def test_cdi_names_the_device_and_its_file_is_there_before_it_is_announced(folder: Path) -> None:
    class Looking(FakeKubelet):
        seen = ""

        async def register(self, request: Any) -> None:
            self.seen = spec.read_text()
            await super().register(request)

    async def work() -> None:
        node.add_device()
        node.configure({**CONFIG, "cdi": {"enabled": True}})
        left = spec.with_name(f".{spec.name}.abc.tmp")
        left.parent.mkdir(parents=True)
        left.write_text("half")
        node.kubelet = Looking(node.plugins, node.pod_resources)
        await node.kubelet.start()
        async with node.plugin():
            await node.allocatable(3)
            got = await node.kubelet.allocate(TDX, 1, "pod")
            assert [one.name for one in got.cdi_devices] == ["k8s.device-plugin.tdx.intel.com/tdx-guest=guest"]
            assert not got.devices
        await node.kubelet.kill()
        said = json.loads(node.kubelet.seen)
        assert said["kind"] == "k8s.device-plugin.tdx.intel.com/tdx-guest"
        assert said["devices"][0]["containerEdits"]["deviceNodes"][0]["path"] == "/dev/tdx_guest"
        assert [one.name for one in spec.parent.iterdir()] == [spec.name]  # and it stays: containers start again
        assert stat.S_IMODE(spec.stat().st_mode) == 0o644

    node = Node(folder)
    spec = node.root / "var/run/cdi/k8s.device-plugin.tdx.intel.com-tdx-guest.json"
    run(work())


def test_the_folder_of_sockets_is_mended_before_each_container(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            place = node.root / "run/ccnp/uds"
            place.mkdir(parents=True)
            place.chmod(0o777)
            node.configure({**CONFIG, "socketFolder": {"mode": "0770", "readOnly": True}})
            async with node.plugin():
                await node.allocatable(3)
                assert stat.S_IMODE(place.stat().st_mode) == 0o770
                place.rmdir()
                got = await node.kubelet.allocate(TDX, 1, "pod")
                assert stat.S_IMODE(place.stat().st_mode) == 0o770
                assert got.mounts[0].read_only

    run(work())


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_a_folder_that_is_not_to_be_trusted_is_refused(folder: Path, trap: str) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node, node.plugin() as process:
            await node.allocatable(3)
            place = node.root / "run/ccnp/uds"
            place.rmdir()
            if trap == "link":
                place.symlink_to(folder)
            elif trap == "file":
                place.write_text("")
            else:
                place.parent.chmod(0o777)
            said = "everybody can write to the folder above" if trap == "open" else "/run/ccnp/uds is no folder"
            with pytest.raises(GRPCError, match=said):
                await node.kubelet.allocate(TDX, 1, "pod")
            about = {"resource": TDX, "reason": "socket-folder"}
            assert process.metrics.registry.get_sample_value("device_plugin_allocation_errors_total", about) == 1

    run(work())


def test_each_container_has_a_report_folder_until_it_has_ended(folder: Path) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            reports = node.root / REPORTS["path"].lstrip("/")  # type: ignore[attr-defined]
            reports.mkdir(parents=True)
            (reports / "somebody-elses").mkdir()
            node.configure({**CONFIG, "reports": REPORTS})
            async with node.plugin():
                await node.allocatable(3)
                first = await node.kubelet.allocate(TDX, 1, "one")
                second = await node.kubelet.allocate(TDX, 1, "two")
                assert first.mounts[1].host_path != second.mounts[1].host_path
                assert first.mounts[1].container_path == first.envs["TSM_REPORT_FOLDER"] == "/run/tsm-report"
                for got in (first, second):
                    assert (node.root / got.mounts[1].host_path.lstrip("/")).is_dir()
            assert len(list(reports.iterdir())) == 3  # the plugin's end takes nothing away

    run(work())


def test_report_folders_are_collected_when_nobody_has_had_them_for_a_while(tmp_path: Path) -> None:
    now = [0.0]
    reports = Reports(tmp_path, lambda: now[0], grace_s=60.0)
    for name in ("somebody-elses", name_of(TDX, "left-over")):
        (tmp_path / name).mkdir()
    reports.start()
    mine = tmp_path / reports.make(TDX, "tdx-guest-1")
    held = {TDX: frozenset({"tdx-guest-1"})}
    now[0] = 59.0
    reports.collect({})  # the kubelet does not know yet
    assert mine.is_dir()
    now[0] = 70.0
    reports.collect(held)
    assert mine.is_dir()
    assert {one.name for one in tmp_path.iterdir()} == {"somebody-elses", mine.name}
    now[0] = 100.0
    reports.collect({})  # it has just begun, and knows of no pod yet
    assert mine.is_dir()
    now[0] = 131.0
    reports.collect({})
    assert [one.name for one in tmp_path.iterdir()] == ["somebody-elses"]
    assert reports.is_empty


def test_a_report_folder_of_the_instance_before_is_collected_too(tmp_path: Path) -> None:
    now = [0.0]
    reports = Reports(tmp_path, lambda: now[0], grace_s=60.0)
    reports.start()
    place = tmp_path / Reports(tmp_path).make(TDX, "tdx-guest-1")
    reports.collect({})
    now[0] = 59.0
    reports.collect({})
    assert place.is_dir()
    now[0] = 60.0
    reports.collect({})
    assert not place.exists()


def test_a_configfs_that_went_is_told_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "report").mkdir()
    reports = Reports(tmp_path / "report")
    reports.start()
    (tmp_path / "report").rmdir()
    reports.collect({})
    assert "Report folders cannot be listed" in caplog.text


def test_a_slot_that_is_given_again_has_a_new_folder(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    reports.start()
    first = (tmp_path / reports.make(TDX, "tdx-guest-1")).stat().st_mtime_ns
    assert (tmp_path / reports.make(TDX, "tdx-guest-1")).stat().st_mtime_ns > first
    (tmp_path / name_of(TDX, "tdx-guest-1") / "busy").mkdir()
    with pytest.raises(OSError, match="not empty"):
        reports.make(TDX, "tdx-guest-1")


def test_a_report_folder_that_cannot_be_removed_is_tried_again(tmp_path: Path) -> None:
    reports = Reports(tmp_path, grace_s=0.0)
    reports.start()
    place = tmp_path / reports.make(TDX, "tdx-guest-1")
    (place / "busy").mkdir()
    reports.collect({})
    assert not reports.is_empty
    (place / "busy").rmdir()
    reports.collect({})
    assert reports.is_empty


@pytest.mark.parametrize(
    ("text", "slots", "said"),
    [
        (None, 110, ""),
        ("kind: KubeletConfiguration\nmaxPods: 250\n", 250, ""),
        ("kind: KubeletConfiguration\n", 110, ""),
        ("", 110, ""),
        ("maxPods: many\n", 110, "has no number of pods that can be"),
        ("maxPods: 0\n", 110, "has no number of pods that can be"),
        ("[1]\n", 110, "has no number of pods that can be"),
        ("{", 110, "has no number of pods that can be"),
        ("\xff", 110, "cannot be read"),
    ],
)
def test_without_a_number_there_are_as_many_slots_as_the_node_can_have_pods(
    folder: Path, caplog: pytest.LogCaptureFixture, text: str | None, slots: int, said: str
) -> None:
    async def work() -> None:
        async with node_with_kubelet(folder) as node:
            if text is not None:
                file = node.root / "var/lib/kubelet/config.yaml"
                file.parent.mkdir(parents=True)
                file.write_bytes(text.encode("latin-1"))
            node.configure({"resources": [{"device": "tdx-guest"}]})
            async with node.plugin():
                await node.allocatable(slots)
        assert said in caplog.text

    run(work())
