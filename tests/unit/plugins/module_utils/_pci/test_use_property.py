# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whatever the witnesses show, a device that somebody uses is never called free.

Each witness may be there, be missing or lie. A user must be found by every witness that can see it and tells the truth;
and where none can see, the answer is unknown. Examples: --hypothesis-profile=long makes 100,000.
"""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio
from ansible_collections.confidential.gpu.plugins.module_utils._pci.processes import FIRST_PID_NAMESPACE
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.use import FREE, Claims

ADDRESS, VIRTUAL, SIBLING = "0000:17:00.0", "0000:17:00.4", "0000:17:00.1"
GROUP = 27
NUMBER = os.stat("/dev/null").st_rdev
NVIDIA = os.makedev(195, 3)

# How somebody uses the device: the group alone (a virtual machine that starts), the device alone (its group closed
# again), both, a file of sysfs, or the host's own driver.
GROUP_ONLY, DEVICE_ONLY, BOTH, SYSFS, BY_DRIVER = "group", "device", "both", "sysfs", "driver"
# What /proc shows: all of the host's processes, those of a container, all but their files, nothing.
ALL, CONTAINER, HIDDEN, ABSENT = "all", "container", "hidden", "absent"


@dataclass(frozen=True)
class World:
    """One host: who uses what, and what each witness does."""

    driver: str
    user: str | None
    place: str  # whom of: the function, its virtual function, its sibling
    proc: str
    node: str  # the group's file in /dev: there, not there, that of another device
    in_class: bool
    refusal: int  # what opening the group gives beside EBUSY
    has_enable: bool
    old_kernel: bool  # a group opens again while only its device is open
    references: str | None  # the host driver's count
    liar: str | None

    @property
    def group_seen(self) -> bool:
        """The kernel shows the group, so that a file or a number can be found."""
        return self.in_class or self.node == "file"

    @property
    def can_open(self) -> bool:
        return self.refusal == 0 and self.group_seen and (self.node == "file" or self.in_class)

    def seen_by(self) -> set[str]:
        """The witnesses that are there, can see this user and tell the truth."""
        seen = set()
        if self.proc == ALL and self.user != DEVICE_ONLY and (self.user in (SYSFS, BY_DRIVER) or self.group_seen):
            seen.add("proc")
        if self.driver == "vfio-pci":
            if self.user in (DEVICE_ONLY, BOTH) and self.has_enable:
                seen.add("enable")
            if self.can_open and not (self.user == DEVICE_ONLY and self.old_kernel) and self.user != SYSFS:
                seen.add("group")
        if self.user == BY_DRIVER and self.references != "0":
            seen.add("references")
        return seen - {self.liar}


@st.composite
def worlds(draw: st.DrawFn) -> World:
    driver = draw(st.sampled_from(["", "vfio-pci", "nvidia"]))
    users = {
        "": [None, SYSFS],
        "vfio-pci": [None, GROUP_ONLY, DEVICE_ONLY, BOTH, SYSFS],
        "nvidia": [None, BY_DRIVER, SYSFS],
    }
    return World(
        driver,
        draw(st.sampled_from(users[driver])),
        draw(st.sampled_from([ADDRESS, VIRTUAL, SIBLING])),
        draw(st.sampled_from([ALL, CONTAINER, HIDDEN, ABSENT])),
        draw(st.sampled_from(["file", "none", "other"])),
        draw(st.booleans()),
        draw(st.sampled_from([0, errno.EPERM, errno.EACCES, errno.ENXIO, errno.EMFILE])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from(["0", "2", None])),
        draw(st.sampled_from([None, "proc", "enable", "group"])),
    )


class Kernel(vfio.Opener):
    """Opens the group as the world's kernel does."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _open(self) -> int:
        world = self._world
        held = world.user in (GROUP_ONLY, BOTH) or (world.user == DEVICE_ONLY and not world.old_kernel)
        if world.refusal:
            raise OSError(world.refusal, os.strerror(world.refusal))
        if held and world.liar != "group":
            raise OSError(errno.EBUSY, "held")
        return os.open("/dev/null", os.O_RDONLY)

    def by_file(self, path: Path) -> int:
        return self._open()

    def by_number(self, number: int) -> int:
        return self._open()


class Tree:
    """The world's /sys, /proc and /dev."""

    def __init__(self, root: Path, world: World) -> None:
        self.root = root
        self.world = world
        for address in (ADDRESS, VIRTUAL, SIBLING):
            self._device(address)
        physical = root / "sys/bus/pci/devices" / ADDRESS
        os.symlink("../" + VIRTUAL, physical / "virtfn0")
        os.symlink("../" + ADDRESS, root / "sys/bus/pci/devices" / VIRTUAL / "physfn")
        if world.driver == "nvidia" and world.references is not None:
            self._write("sys/bus/pci/drivers/nvidia/module/refcnt", world.references)
        self._proc()

    def _write(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def _device(self, address: str) -> None:
        world, mine = self.world, address == self.world.place
        at = "sys/bus/pci/devices/" + address
        for name, text in (("vendor", "0x10de"), ("class", "0x030200"), ("config", ""), ("resource0", "")):
            self._write("%s/%s" % (at, name), text)
        used = mine and world.user in (DEVICE_ONLY, BOTH) and world.liar != "enable"
        if world.has_enable or not mine:
            self._write(at + "/enable", "1" if used else "0")
        driver = world.driver if mine else "pci-stub"  # the others are idle, so that one user is one user
        if driver:
            (self.root / "sys/bus/pci/drivers" / driver).mkdir(parents=True, exist_ok=True)
            os.symlink("../../drivers/" + driver, self.root / at / "driver")
        if not mine:
            return
        os.symlink("/iommu_groups/%d" % GROUP, self.root / at / "iommu_group")
        if world.driver == "vfio-pci":
            if world.in_class:
                self._write("sys/class/vfio/%d/dev" % GROUP, "%d:%d" % (os.major(NUMBER), os.minor(NUMBER)))
            if world.node == "file":
                (self.root / "dev/vfio").mkdir(parents=True)
                os.symlink("/dev/null", self.root / "dev/vfio" / str(GROUP))
            elif world.node == "other" and world.in_class:
                (self.root / "dev/vfio").mkdir(parents=True)
                os.symlink("/dev/zero", self.root / "dev/vfio" / str(GROUP))

    def _proc(self) -> None:
        world = self.world
        if world.proc == ABSENT:
            return
        (self.root / "proc/self/ns").mkdir(parents=True)
        os.symlink(
            "pid:[4026532999]" if world.proc == CONTAINER else FIRST_PID_NAMESPACE, self.root / "proc/self/ns/pid"
        )
        if world.proc != HIDDEN:
            (self.root / "proc/1/fd").mkdir(parents=True)
        self._write("proc/driver/nvidia/gpus/%s/information" % world.place, "Device Minor: 3\n")
        self._write("dev/nvidia3")
        if world.user and world.proc == ALL and world.liar != "proc":
            (self.root / "proc/4711/fd").mkdir(parents=True)
            target = {
                GROUP_ONLY: "/dev/null",
                BOTH: "/dev/null",
                DEVICE_ONLY: "anon_inode:[vfio-device]",
                SYSFS: str(self.root / "sys/bus/pci/devices" / world.place / "resource0"),
                BY_DRIVER: str(self.root / "dev/nvidia3"),
            }[world.user]
            os.symlink(target, self.root / "proc/4711/fd/3")


def answer(world: World) -> str:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        Tree(Path(folder), world)
        (function,) = [one for one in SysfsBus(folder).find() if one.address == ADDRESS]
        with Claims(folder, opener=Kernel(world)) as claims:
            return claims.take([function])[ADDRESS].state


@settings(max_examples=max(400, settings().max_examples))
@given(worlds())
def test_a_used_device_is_never_free(world: World) -> None:
    """Beside what nothing can see: files of sysfs in processes that are not shown; and a single witness that lies."""
    state = answer(world)
    if world.user is None:
        return
    if world.seen_by():
        assert state != FREE
        return
    nobody_can_see = world.user == SYSFS or world.liar is not None or world.references == "0"
    assert state != FREE or nobody_can_see


@settings(max_examples=max(200, settings().max_examples))
@given(worlds())
def test_a_device_whose_witnesses_all_say_so_is_free(world: World) -> None:
    if world.user is not None or world.liar is not None:
        return
    idle: dict[str, Any] = {
        "": True,
        "vfio-pci": world.has_enable and (world.can_open or (world.proc == ALL and world.group_seen)),
        "nvidia": world.references == "0",
    }
    assert (answer(world) == FREE) == bool(idle[world.driver])
