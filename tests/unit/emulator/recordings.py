# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""For the tests of recordings: a node served by a thread of this process, and a device on disk as sysfs shows it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from emulator import Node, Server
from emulator import registers as reg
from emulator.device import Device
from emulator.faults import Fault
from emulator.layout import bar_sizes
from emulator.models import Family
from emulator.recording import Recording
from emulator.recording.bar0_words import CONDITION, IDENTITY, MODE
from emulator.recording.take import take

ADDRESS = "0000:17:00.0"
TIMING = {"flr_s": 0.001, "boot_s": 0.001, "rpc_s": 0.0}
# One of each family, by their models.
FAMILIES = ("h100-sxm", "h100-pcie", "h200", "b200", "rtx-pro-6000", "nvswitch-ls10")


class Idle:
    """A host for a device that no server has."""

    def fire(self, *_: object) -> list[Fault]:
        return []

    def perform(self, *_: object) -> None:
        pass

    def note(self, *_: object, **__: object) -> None:
        pass

    def knobs_changed(self) -> None:
        pass


class Direct:
    """A device as a source, without a socket between."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def config(self, offset: int) -> int:
        return int.from_bytes(self._device.read_config(offset, 4), "little")

    def register(self, offset: int) -> int:
        return self._device.read_word(offset)

    def bar_bytes(self, number: int) -> int:
        return {0: bar_sizes(self._device.spec)[0], 2: bar_sizes(self._device.spec)[1]}.get(number, 0)

    def close(self) -> None:
        pass


def device_of(description: Mapping[str, object], folder: Path = Path()) -> Device:
    """A device that no server has."""
    return Device(node_of(description, folder).devices[0], Idle())


def recording_of(description: Mapping[str, object]) -> Recording:
    """Its recording."""
    return take(Direct(device_of(description)))


def node_of(device: Mapping[str, object], folder: Path = Path()) -> Node:
    """A node of one device."""
    return Node.parse({"timing": TIMING, "devices": [{"address": ADDRESS, **device}]}, folder=folder)


@contextlib.contextmanager
def served(device: Mapping[str, object], folder: Path, log: Path | None = None) -> Iterator[Server]:
    """The device at `folder`/ADDRESS.sock; look into it before and after, not while a client is there."""
    server = Server(node_of(device, folder), folder, log=log)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def allowed(family: Family) -> list[int]:
    """The registers that may be read, the table of engines as long as it is on the emulated ones."""
    table = [*IDENTITY[family], *CONDITION[family], MODE[family]]
    return table + [reg.PTOP_DEVICE_INFO2[row] for row in range(18)]


class Tree:
    """A root folder with one device that nobody uses: what the kernel shows of an emulated one."""

    def __init__(self, root: Path, device: Device) -> None:
        self.root = root
        self.device = root / "sys/bus/pci/devices" / ADDRESS
        (self.device / "power").mkdir(parents=True)
        bar0, bar1 = (32 << 20 if not device.spec.is_gpu else 16 << 20), 256 << 20
        lines = [(0x9000_0000, bar0), (0, 0), (0x10_0000_0000, bar1), (0, 0), (0, 0), (0, 0)]
        text = "".join(
            f"{start:#018x} {start + size - 1 if size else 0:#018x} {0x14220C if size else 0:#018x}\n"
            for start, size in lines
        )
        self.write("resource", text)
        self.write("power_state", "D0\n")
        self.write("power/control", "on\n")
        self.write("enable", "0\n")
        (self.device / "config").write_bytes(device.read_config(0, 4096))
        with (self.device / "resource0").open("wb") as file:
            file.truncate(bar0)
            for offset in allowed(device.family):
                file.seek(offset)
                file.write(device.read_bar0(offset, 4))
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
        self.process(1, "/dev/null")

    def write(self, name: str, text: str) -> None:
        """An attribute of the device."""
        (self.device / name).write_text(text, encoding="ascii")

    def word(self, name: str, offset: int, word: int) -> None:
        """Another word in `config` or `resource0`."""
        with (self.device / name).open("r+b") as file:
            file.seek(offset)
            file.write(word.to_bytes(4, "little"))

    def process(self, pid: int, *opened: str, mapped: str = "/usr/bin/init") -> None:
        """A process with files open and one mapped."""
        folder = self.root / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        for number, path in enumerate(opened):
            (folder / "fd" / str(number)).symlink_to(path)
        line = f"7f0000000000-7f0001000000 r--s 00000000 00:16 4242   {mapped}\n"
        (folder / "maps").write_text(line, encoding="ascii")

    def bind(self, driver: str, group: str | None = None) -> None:
        """A driver, and the vfio group's file, if there is one."""
        (self.device / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
        (self.device / "iommu_group").symlink_to("../../../../kernel/iommu_groups/27")
        if group is not None:
            (self.root / "dev/vfio").mkdir(parents=True)
            (self.root / "dev/vfio/27").write_text(group, encoding="ascii")

    def link(self, name: str) -> None:
        """A link to another function."""
        (self.device / name).symlink_to("../0000:17:00.4")

    def everything(self) -> dict[str, tuple[bytes, int]]:
        """Content and time of change of each file."""
        files = [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]
        return {os.fspath(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
