# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A change that waits at its gate: nothing is written before the word, and what changed meanwhile is seen."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import GateClosed, PlanOutdated
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.gate import Gate
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import anything
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceBusy
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

GPU = "0000:01:00.0"
GROUP = "dev/vfio/7"
SOON_S = 10


class Keeper:
    """Whoever listens at the gate: takes one plan, does something, and says a word or nothing."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.plan: dict[str, Any] = {}
        self.meanwhile: Callable[[], Any] = lambda: None
        self.word = b"go\n"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _keep(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return
        with connection, connection.makefile("rb") as lines:
            self.plan = json.loads(lines.readline())
            self.meanwhile()
            connection.sendall(self.word)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    made = Keeper(tmp_path / "gate")
    yield made
    made.close()


def change(emulated: Any, keeper: Keeper, mode: str = "on", **options: Any) -> ModeChange:
    request = Request(mode=mode, devices=[GPU])
    return ModeChange(request, VfioUserBus(str(emulated.sockets)), gate=Gate(keeper.path, SOON_S), **options)


def knob_writes(emulated: Any) -> int:
    return int(emulated.control.state(GPU)["counters"]["knob_writes"])


def test_the_plan_is_told_and_nothing_written_before_the_word(emulated: Any, keeper: Keeper) -> None:
    seen: list[int] = []
    keeper.meanwhile = lambda: seen.append(knob_writes(emulated))
    run = change(emulated, keeper)
    run.run()
    assert seen == [0]
    assert [device["address"] for device in keeper.plan["devices"]] == [GPU]
    assert keeper.plan["plan"] == run.result()["plan"]
    assert emulated.control.state(GPU)["mode"] == "on"


def test_without_the_word_nothing_is_written(emulated: Any, keeper: Keeper) -> None:
    keeper.word = b""
    run = change(emulated, keeper)
    with pytest.raises(GateClosed, match="it was closed") as caught:
        run.run()
    assert caught.value.retryable
    assert knob_writes(emulated) == 0
    assert not run.touched()


def test_a_gate_that_is_not_there(emulated: Any, tmp_path: Path) -> None:
    request = Request(mode="on", devices=[GPU])
    run = ModeChange(request, VfioUserBus(str(emulated.sockets)), gate=Gate(str(tmp_path / "none"), SOON_S))
    with pytest.raises(GateClosed, match="ENOENT"):
        run.run()
    assert knob_writes(emulated) == 0


def test_with_nothing_to_write_nobody_is_asked(emulated: Any, keeper: Keeper) -> None:
    change(emulated, keeper, mode="off").run()
    change(emulated, keeper, mode="on").run(only_plan=True)
    assert keeper.plan == {}


def test_a_mode_that_changed_while_it_waited(emulated: Any, keeper: Keeper) -> None:
    keeper.meanwhile = lambda: emulated.control.set(GPU, mode="devtools")
    with pytest.raises(PlanOutdated, match="was off when the plan was made, and now it is devtools"):
        change(emulated, keeper).run()
    assert knob_writes(emulated) == 0


class SocketsAndHost(VfioUserBus):
    """Emulated devices that the kernel knows of too, at vfio-pci, so that users are looked for."""

    listed: Path

    def find(self, takes: Any = anything) -> Any:
        functions = super().find(takes)
        for function in functions:
            function.iommu_group = lambda: 7  # type: ignore[method-assign]
            function.driver = lambda: "vfio-pci"  # type: ignore[method-assign]
            function.sysfs_path = lambda: self.listed  # type: ignore[method-assign]
        return functions


def change_at_vfio(emulated: Any, keeper: Keeper, host: Any) -> ModeChange:
    bus = SocketsAndHost(str(emulated.sockets))
    bus.listed = host.device(GPU, driver="vfio-pci", group=7)
    return ModeChange(Request(mode="on", devices=[GPU]), bus, root=str(host.root), gate=Gate(keeper.path, SOON_S))


def test_a_guest_that_came_while_it_waited(emulated: Any, keeper: Keeper, host: Any) -> None:
    keeper.meanwhile = lambda: host.process(4711, "qemu-system-x86", "/dev/vfio/7")
    with pytest.raises(DeviceBusy, match="process 4711"):
        change_at_vfio(emulated, keeper, host).run()
    assert knob_writes(emulated) == 0


def test_groups_are_not_held_while_it_waits(emulated: Any, keeper: Keeper, host: Any) -> None:
    """Who is told to let go of the devices may unbind them, and then the kernel waits for an open group."""
    group = os.path.realpath(host.root / GROUP)

    def is_held() -> bool:
        return any(os.path.realpath("/proc/self/fd/%s" % number) == group for number in os.listdir("/proc/self/fd"))

    seen: list[bool] = []
    keeper.meanwhile = lambda: seen.append(is_held())
    change_at_vfio(emulated, keeper, host).run()
    assert seen == [False]
    assert not is_held()


def test_groups_are_claimed_again_before_the_first_write(emulated: Any, keeper: Keeper, host: Any) -> None:
    def made_anew() -> None:
        (host.root / GROUP).unlink()
        (host.root / GROUP).mkdir()
        host.pid_namespace("pid:[4026532999]")  # so that only opening it could tell

    keeper.meanwhile = made_anew
    with pytest.raises(NotPermitted, match="vfio group 7 cannot be opened"):
        change_at_vfio(emulated, keeper, host).run()
    assert knob_writes(emulated) == 0


def test_nothing_is_open_while_it_waits(emulated: Any, keeper: Keeper) -> None:
    """Whoever makes the devices free may unbind them, and a file that was opened before is then that of nothing."""
    read: list[int] = []

    def another_client() -> None:
        (function,) = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == GPU]
        function.open()
        read.append(function.vendor_id)
        function.close()

    keeper.meanwhile = another_client
    change(emulated, keeper).run()
    assert read == [0x10DE]
    assert emulated.control.state(GPU)["mode"] == "on"


def test_a_guest_that_nobody_sees_came_while_it_waited(emulated: Any, keeper: Keeper, host: Any) -> None:
    """Only the kernel's count tells: the group's file was closed, the device is still open."""
    run = change_at_vfio(emulated, keeper, host)
    enable = host.root / "sys/bus/pci/devices" / GPU / "enable"
    keeper.meanwhile = lambda: enable.write_text("1\n")
    with pytest.raises(DeviceBusy, match="its vfio device is open"):
        run.run()
    assert knob_writes(emulated) == 0
