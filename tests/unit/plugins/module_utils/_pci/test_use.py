# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Who uses a device: free, used or unknown, on trees of /proc, /sys and /dev."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted, Several
from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceBusy
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.use import (
    FREE,
    UNKNOWN,
    USED,
    Claims,
    Holder,
    Use,
    refuse_unless_free,
)

ADDRESS = "0000:17:00.0"
OTHER = "0000:3b:00.0"
SOUND = "0000:17:00.1"
OURS = "pid:[4026532777]"  # a container's process namespace
# A character device that every machine has, to stand for one of the kernel's.
NULL = os.stat("/dev/null").st_rdev
NULL_NUMBER = "%d:%d\n" % (os.major(NULL), os.minor(NULL))


class Kernel(vfio.Opener):
    """Groups that a device number opens, as a kernel would: one process at a time."""

    def __init__(self, refusal: int = 0) -> None:
        self.refusal = refusal
        self.opened: list[int] = []

    def by_number(self, number: int) -> int:
        if self.refusal:
            raise OSError(self.refusal, os.strerror(self.refusal))
        self.opened.append(number)
        return os.open("/dev/null", os.O_RDONLY)


def functions(host: Any) -> Any:
    return SysfsBus(str(host.root)).find()


def ask(host: Any, opener: vfio.Opener | None = None, slot: bool = True) -> dict[str, Use]:
    with Claims(str(host.root), slot, opener or Kernel(errno.EPERM)) as claims:
        return claims.take(functions(host))


def use(host: Any, opener: vfio.Opener | None = None, address: str = ADDRESS) -> Use:
    return ask(host, opener)[address]


def holders(host: Any) -> list[Holder]:
    return sorted({holder for one in ask(host, slot=False).values() for holder in one.holders})


def in_class(host: Any, group: int, number: str = NULL_NUMBER) -> None:
    """The kernel's own word of a vfio group."""
    host.write("sys/class/vfio/%d/dev" % group, number)


# --- processes --------------------------------------------------------------------------------------------------------


def test_nobody(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.write("dev/vfio/28", "")
    host.process(12, "bash", "/dev/null", "/dev/vfio/28", "socket:[1]", "anon_inode:[eventfd]", "/gone (deleted)")
    assert use(host) == Use(ADDRESS)
    assert use(host).state == FREE
    assert use(host).error() is None


def test_nothing_to_ask_for(tmp_path: Path) -> None:
    with Claims(str(tmp_path)) as claims:
        assert claims.take([]) == {}


def test_a_virtual_machine_has_the_vfio_group_open(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.process(4711, "qemu-system-x86", "/dev/null", "/dev/vfio/27")
    assert holders(host) == [Holder(ADDRESS, 4711, "qemu-system-x86", "/dev/vfio/27")]
    assert use(host).state == USED


def test_a_group_is_known_by_its_number_whatever_its_node_is_called(host: Any) -> None:
    """A container's runtime makes nodes of its own, under any name."""
    host.device(driver="vfio-pci", group=27)
    in_class(host, 27)
    host.process(4711, "qemu-system-x86", "/dev/null")
    assert holders(host) == [Holder(ADDRESS, 4711, "qemu-system-x86", "/dev/vfio/27")]


def test_a_group_is_held_for_every_device_in_it(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.device(SOUND, driver="vfio-pci", group=27)
    host.process(4711, "qemu-system-x86", "/dev/vfio/27")
    assert [holder.address for holder in holders(host)] == [ADDRESS, SOUND]


def test_a_virtual_machine_has_the_character_device_open(host: Any) -> None:
    folder = host.device(driver="vfio-pci", group=27)
    (folder / "vfio-dev/vfio3").mkdir(parents=True)
    (folder / "vfio-dev/vfio3/dev").write_text(NULL_NUMBER)
    host.process(4711, "qemu-system-x86", "/dev/null")
    assert [holder.file for holder in holders(host)] == ["/dev/vfio/devices/vfio3"]


@pytest.mark.parametrize("file", ["config", "resource0"])
def test_a_tool_has_a_file_of_the_device_open(host: Any, file: str) -> None:
    folder = host.device()
    path = "/" + str((folder / file).relative_to(host.root))
    host.process(99, "python3", path)
    assert holders(host) == [Holder(ADDRESS, 99, "python3", path)]


def test_a_file_that_is_only_called_like_it_is_another(host: Any) -> None:
    host.device()
    host.write("srv/%s/config" % ADDRESS, "")
    host.process(99, "vim", "/srv/%s/config" % ADDRESS)
    assert holders(host) == []


def maps(host: Any, pid: int, *lines: str) -> None:
    host.process(pid, "probe")
    host.write("proc/%d/maps" % pid, "".join(line + "\n" for line in lines))


def test_a_tool_has_mapped_a_bar_and_closed_the_file(host: Any) -> None:
    folder = host.device()
    found = (folder / "resource0").stat()
    device = "%02x:%02x" % (os.major(found.st_dev), os.minor(found.st_dev))
    maps(
        host,
        99,
        "5581c000-5581d000 r-xp 00000000 fe:01 1835                               /usr/bin/probe",
        "7f0bf000-7f0c0000 rw-p 00000000 00:00 0 ",
        "7f1bf000-7f2bf000 rw-s 00000000 %s %d       /gpu/any-name" % (device, found.st_ino),
    )
    assert holders(host) == [Holder(ADDRESS, 99, "probe", "/" + str((folder / "resource0").relative_to(host.root)))]


def test_a_bar_mapped_through_the_sysfs_of_another_network_namespace(host: Any) -> None:
    """It has another device number and the same inode."""
    folder = host.device()
    inode = (folder / "resource0").stat().st_ino
    maps(host, 99, "7f1bf000-7f2bf000 rw-s 00000000 00:99 %d   /sys/devices/x/%s/resource0" % (inode, ADDRESS))
    maps(host, 98, "7f1bf000-7f2bf000 rw-s 00000000 00:99 %d   /home/me/resource0" % inode)
    assert [holder.pid for holder in holders(host)] == [99]


def test_names_that_are_no_text(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.process(4711, "x", "/dev/vfio/27")
    host.write("proc/4711/comm", b"q\xffmu\n")
    host.write("proc/4711/maps", b"7f1bf000-7f2bf000 r--p 00000000 fe:01 77   /tmp/\xff\xfe\n")
    (holder,) = holders(host)
    assert holder.command == "q\\xffmu"
    assert "q\\xffmu" in str(use(host).error())


def test_this_process_does_not_count(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.process(os.getpid(), "python3", "/dev/vfio/27")
    assert holders(host) == []


def test_a_process_that_ends_meanwhile(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    (host.root / "proc/31").mkdir()  # no fd folder any more
    host.process(32, "half", "/dev/vfio/27")
    (host.root / "proc/32/comm").unlink()
    (host.root / "proc/32/fd/9").touch()  # not a link
    assert holders(host) == [Holder(ADDRESS, 32, "?", "/dev/vfio/27")]


def test_everybody_is_named_once(host: Any) -> None:
    host.device(ADDRESS, driver="vfio-pci", group=27)
    host.device(OTHER, driver="vfio-pci", group=28)
    host.process(2, "vm-b", "/dev/vfio/28", "/dev/vfio/28")
    host.process(3, "vm-a", "/dev/vfio/27")
    with pytest.raises(DeviceBusy) as caught:
        refuse_unless_free(ask(host))
    error = caught.value
    assert error.cause == (
        "In use: 0000:17:00.0: process 3 (vm-a) has /dev/vfio/27 open; "
        "0000:3b:00.0: process 2 (vm-b) has /dev/vfio/28 open."
    )
    assert "busy: wait" in error.remedy
    assert error.retryable
    assert error.seen["holders"][1] == {"address": OTHER, "pid": 2, "command": "vm-b", "file": "/dev/vfio/28"}


# --- vfio groups ------------------------------------------------------------------------------------------------------


def open_files() -> list[str]:
    names = [os.path.realpath("/proc/self/fd/%s" % number) for number in os.listdir("/proc/self/fd")]
    return sorted(os.path.basename(name) for name in names if "dev/vfio" in name)


def test_groups_of_free_devices_are_kept_open_until_the_claims_end(host: Any) -> None:
    host.device(ADDRESS, driver="vfio-pci", group=27)
    host.device(OTHER, driver="pci-stub", group=28)
    host.write("dev/vfio/28", "")
    with Claims(str(host.root)) as claims:
        claims.take(functions(host))
        assert open_files() == ["27"], "28 has another driver"
        claims.take(functions(host))
        assert open_files() == ["27"], "once"
        claims.release()
        assert open_files() == []
        claims.take(functions(host))
    assert open_files() == []


@pytest.mark.usefixtures("reachable")
def test_a_group_that_somebody_invisible_has_open(host: Any, busy_file: str, unprivileged: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    os.symlink(busy_file, host.root / "dev/vfio/27")
    with unprivileged():
        found = use(host)
    assert str(found.error()).startswith("In use: 0000:17:00.0: vfio group 27 is open.")


def test_a_group_without_a_file_is_opened_by_its_number(host: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    host.pid_namespace(OURS)
    in_class(host, 27, "240:27\n")
    kernel = Kernel()
    assert use(host, kernel).state == FREE
    assert kernel.opened == [os.makedev(240, 27)]


def test_a_file_of_another_device_is_not_taken_for_the_groups(host: Any) -> None:
    """/dev of a container keeps the node of a group that was made again with another number."""
    host.device(driver="vfio-pci", group=27, group_file=False)
    os.symlink("/dev/null", host.root / "dev/vfio/27")
    in_class(host, 27, "240:27\n")
    kernel = Kernel()
    assert use(host, kernel).state == FREE
    assert kernel.opened == [os.makedev(240, 27)]


def test_a_group_without_a_file_that_somebody_has_open(host: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    in_class(host, 27)
    assert [one.file for one in use(host, Kernel(errno.EBUSY)).holders] == ["vfio group 27 is open"]


@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EACCES, errno.ENXIO])
def test_a_group_that_cannot_be_opened_from_a_container_is_not_known_to_be_free(host: Any, refusal: int) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    host.pid_namespace(OURS)
    in_class(host, 27)
    found = use(host, Kernel(refusal))
    assert found.state == UNKNOWN
    error = found.error()
    assert isinstance(error, NotPermitted)
    assert "0000:17:00.0: the vfio group 27 cannot be opened: %s" % errno.errorcode[refusal] in error.cause
    assert "only processes of this container can be seen" in error.cause
    assert "hostPID" in error.remedy
    assert error.seen["errno"] == refusal


def test_a_group_that_may_not_be_opened(host: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    (host.root / "dev/vfio/27").mkdir()
    host.pid_namespace(OURS)
    found = use(host)
    assert found.state == UNKNOWN
    assert "the vfio group 27 cannot be opened: EISDIR" in str(found.error())


def test_a_kernel_without_groups(host: Any) -> None:
    folder = host.device(driver="vfio-pci", group=27, group_file=False)
    assert use(host).state == UNKNOWN, "nothing to look for"
    (folder / "vfio-dev/vfio3").mkdir(parents=True)
    (folder / "vfio-dev/vfio3/dev").write_text(NULL_NUMBER)
    assert use(host).state == FREE
    host.process(4711, "qemu-system-x86", "/dev/null")
    assert use(host).state == USED


def test_where_every_process_is_seen_that_and_the_kernels_count_are_enough(host: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    in_class(host, 27)
    assert use(host, Kernel(errno.EPERM)).state == FREE
    host.device(OTHER, driver="vfio-pci", group=28, group_file=False, enable=None)
    in_class(host, 28)
    assert use(host, Kernel(errno.EPERM), OTHER).state == UNKNOWN, "the kernel does not say whether it is enabled"


def test_a_host_whose_processes_are_hidden(host: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    (host.root / "proc/1/fd").rmdir()
    found = use(host)
    assert found.state == UNKNOWN
    assert "the processes of the host cannot be seen" in str(found.error())


def test_a_process_whose_files_may_not_be_listed(host: Any, unprivileged: Any) -> None:
    host.device(driver="vfio-pci", group=27, group_file=False)
    host.process(4711, "secret")
    (host.root / "proc/4711/fd").chmod(0)
    for folder in (host.root, *host.root.parents):
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o55 != 0o55:
            folder.chmod(folder.stat().st_mode | 0o55)
    with unprivileged():
        found = use(host)
    assert found.state == UNKNOWN
    assert "the files of process 4711 cannot be seen" in str(found.error())


@pytest.mark.parametrize("group_file", [True, False])
def test_a_device_that_the_kernel_counts_as_open(host: Any, group_file: bool) -> None:
    """Through a character device, or a group whose file was closed while the device stayed open."""
    host.device(driver="vfio-pci", group=27, group_file=group_file, enable=1)
    assert [one.file for one in use(host).holders] == ["its vfio device is open"]


def test_a_device_that_is_enabled_without_a_driver(host: Any) -> None:
    host.device(group=27, enable=1)
    found = use(host)
    assert found.state == UNKNOWN
    assert "it is enabled, though no driver is bound to it" in str(found.error())


# --- other drivers ----------------------------------------------------------------------------------------------------


def refcnt(host: Any, driver: str, count: str) -> None:
    host.write("sys/bus/pci/drivers/%s/module/refcnt" % driver, count + "\n")


def test_a_driver_whose_module_nobody_uses(host: Any) -> None:
    host.device(driver="nvidia")
    refcnt(host, "nvidia", "0")
    assert use(host).state == FREE


@pytest.mark.parametrize(("count", "words"), [("3", "has 3 users, and which devices"), ("-", "does not say")])
def test_a_driver_that_is_not_known_to_be_idle(host: Any, count: str, words: str) -> None:
    host.device(driver="nvidia")
    refcnt(host, "nvidia", count)
    found = use(host)
    assert found.state == UNKNOWN
    assert "0000:17:00.0: its driver nvidia %s" % words in str(found.error())
    assert "vfio" in str(found.error())


@pytest.mark.parametrize(
    ("count", "holding", "state"),
    [
        ("1", {"nvidia_uvm": "0"}, FREE),
        ("1", {"nvidia_uvm": "2"}, UNKNOWN),  # a process computes on some GPU
        ("2", {"nvidia_uvm": "0"}, UNKNOWN),  # and something else uses one
        ("1", {"nvidia_uvm": "-"}, UNKNOWN),
        ("1", {"nvidia_modeset": "0"}, UNKNOWN),  # may have a display of this one without a file
        ("2", {"nvidia_uvm": "0", "nvidia_modeset": "0"}, UNKNOWN),
    ],
)
def test_a_module_that_builds_on_the_drivers_is_no_user_while_it_is_idle(
    host: Any, count: str, holding: dict[str, str], state: str
) -> None:
    host.device(driver="nvidia")
    refcnt(host, "nvidia", count)
    for name, users in holding.items():
        host.write("sys/bus/pci/drivers/nvidia/module/holders/%s/refcnt" % name, users + "\n")
    assert use(host).state == state


def test_a_driver_that_is_built_in(host: Any) -> None:
    host.device(driver="e1000e")
    assert use(host).state == UNKNOWN


def test_a_driver_that_never_uses_its_device(host: Any) -> None:
    host.device(driver="pci-stub")
    assert use(host).state == FREE


@pytest.mark.parametrize(
    "information", ["Model: \t\t H100\nDevice Minor: \t 3\n", "Model: H100\n", "Device Minor: x\n"]
)
def test_nvidias_driver_has_a_minor_number(host: Any, information: str) -> None:
    host.device(driver="nvidia")
    refcnt(host, "nvidia", "2")
    host.write("proc/driver/nvidia/gpus/%s/information" % ADDRESS, information)
    for number in (3, 30):
        host.write("dev/nvidia%d" % number, "")
    host.process(5, "python3", "/dev/nvidia3")
    host.process(6, "other", "/dev/nvidia30")
    expected = [Holder(ADDRESS, 5, "python3", "/dev/nvidia3")] if " 3" in information else []
    assert holders(host) == expected


def test_a_network_interface_that_is_up(host: Any) -> None:
    folder = host.device(driver="mlx5_core", class_code=0x020000)
    refcnt(host, "mlx5_core", "0")
    for name, flags, words in (("eth0", "0x1003\n", "eth0"), ("eth0", "0x1002\n", None), ("eth0", "?\n", "eth0")):
        host.write(str((folder / "net" / name / "flags").relative_to(host.root)), flags)
        found = use(host)
        assert found.state == (USED if words else FREE)
        assert [one.file for one in found.holders] == (["network interface eth0 is up"] if words else [])


def disk(host: Any, folder: Path, name: str = "nvme0n1", number: str = "259:0\n") -> Path:
    path = folder / "nvme/nvme0" / name
    host.write(str((path / "dev").relative_to(host.root)), number)
    host.write("sys/class/block/.keep", "")
    os.symlink(host.root / "sys/class/block", path / "subsystem")
    return path


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda host, path: None, ""),
        (lambda host, path: host.write("proc/self/mountinfo", "29 1 259:0 / / rw - ext4 /dev/root rw\n"), "mounted"),
        (lambda host, path: host.write("proc/swaps", "Filename Type\n/dev/nvme0n1 partition 9 0 -2\n"), "swapped to"),
        (lambda host, path: (path / "holders/dm-0").mkdir(parents=True), "part of another device"),
    ],
)
def test_disks(host: Any, prepare: Callable[[Any, Path], Any], words: str) -> None:
    folder = host.device(driver="nvme", class_code=0x010802)
    refcnt(host, "nvme", "0")
    prepare(host, disk(host, folder))
    assert [one.file for one in use(host).holders] == (["disk nvme0n1 is %s" % words] if words else [])


def test_usb_devices_at_a_controller(host: Any) -> None:
    folder = host.device(driver="xhci_hcd", class_code=0x0C0330)
    refcnt(host, "xhci_hcd", "0")
    (folder / "usb1/1-0:1.0").mkdir(parents=True)
    assert use(host).state == FREE
    (folder / "usb1/1-4").mkdir(parents=True)
    assert [one.file for one in use(host).holders] == ["USB devices are attached to it"]


def test_a_usb_controller_is_asked_and_not_its_module(host: Any) -> None:
    folder = host.device(driver="xhci_hcd", class_code=0x0C0330)  # built in
    assert use(host).state == FREE
    refcnt(host, "xhci_hcd", "7")
    assert use(host).state == FREE
    (folder / "usb1/1-4").mkdir(parents=True)
    assert use(host).state == USED


# --- what a reset takes along -----------------------------------------------------------------------------------------


def test_a_function_of_the_same_slot_counts(host: Any) -> None:
    host.device(ADDRESS, driver="vfio-pci", group=27)
    host.device(SOUND, driver="vfio-pci", group=28, class_code=0x040300)
    host.device("0000:17:01.0", driver="vfio-pci", group=29)
    host.process(4711, "qemu", "/dev/vfio/28")
    host.process(4712, "qemu", "/dev/vfio/29")
    assert [(one.address, one.pid) for one in use(host).holders] == [(SOUND, 4711)]
    assert ask(host, slot=False)[ADDRESS].state == FREE


def test_a_bridge_of_the_same_slot_does_not(host: Any) -> None:
    host.device(ADDRESS, driver="vfio-pci", group=27)
    host.device(SOUND, driver="pcieport", class_code=0x060400)
    assert use(host).state == FREE


def test_a_virtual_function_counts(host: Any) -> None:
    folder = host.device(ADDRESS, driver="vfio-pci", group=27)
    virtual = host.device("0000:17:00.4", driver="vfio-pci", group=30)
    os.symlink("../0000:17:00.4", folder / "virtfn0")
    os.symlink("../" + ADDRESS, virtual / "physfn")
    host.process(4711, "qemu", "/dev/vfio/30")
    assert [(one.address, one.pid) for one in ask(host, slot=False)[ADDRESS].holders] == [("0000:17:00.4", 4711)]
    assert use(host, address="0000:17:00.4").state == USED


# --- both at once -----------------------------------------------------------------------------------------------------


def test_used_and_unknown_devices_are_both_told(host: Any) -> None:
    host.device(ADDRESS, driver="vfio-pci", group=27)
    host.device(OTHER, driver="nvidia")
    refcnt(host, "nvidia", "1")
    host.process(4711, "qemu", "/dev/vfio/27")
    with pytest.raises(Several) as caught:
        refuse_unless_free(ask(host))
    assert [type(error) for error in caught.value.errors] == [DeviceBusy, NotPermitted]


# --- the real opener --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_node_of_our_own_is_the_device_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = {folder: sorted(os.listdir(folder)) for folder in vfio.NODE_FOLDERS[:1]}
    descriptor = vfio.Opener().by_number(NULL)
    try:
        assert stat.S_ISCHR(os.fstat(descriptor).st_mode)
        assert os.fstat(descriptor).st_rdev == NULL
    finally:
        os.close(descriptor)
    assert {folder: sorted(os.listdir(folder)) for folder in before} == before
