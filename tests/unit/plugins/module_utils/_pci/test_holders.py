# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Who uses a device, on trees of /proc, /sys and /dev."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._pci import holders
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceBusy
from ansible_collections.confidential.gpu.plugins.module_utils._pci.holders import Holder
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus

ADDRESS = "0000:17:00.0"


def functions(host: Any) -> Any:
    return SysfsBus(str(host.root)).find()


def find(host: Any) -> list[Holder]:
    return holders.find(functions(host), str(host.root))


def test_nobody(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.process(12, "bash", "/dev/null", "/dev/vfio/vfio", "/dev/vfio/28", "socket:[1]")
    assert find(host) == []


def test_nothing_to_look_for(tmp_path: Any) -> None:
    assert holders.find([], str(tmp_path)) == []


def test_a_host_whose_proc_is_not_there(host: Any) -> None:
    host.device(group=27)
    (host.root / "proc").rmdir()
    assert find(host) == []


def test_a_virtual_machine_has_the_vfio_group_open(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.process(4711, "qemu-system-x86", "/dev/null", "/dev/vfio/27")
    assert find(host) == [Holder(ADDRESS, 4711, "qemu-system-x86", "/dev/vfio/27")]


def test_a_group_is_held_for_every_device_in_it(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.device("0000:17:00.1", driver="vfio-pci", group=27)
    host.process(4711, "qemu-system-x86", "/dev/vfio/27")
    assert [holder.address for holder in find(host)] == [ADDRESS, "0000:17:00.1"]


def test_a_virtual_machine_has_the_character_device_open(host: Any) -> None:
    folder = host.device(driver="vfio-pci")
    (folder / "vfio-dev/vfio3").mkdir(parents=True)
    host.process(4711, "qemu-system-x86", "/dev/vfio/devices/vfio3")
    assert [holder.file for holder in find(host)] == ["/dev/vfio/devices/vfio3"]


@pytest.mark.parametrize("file", ["config", "resource0", "resource1"])
def test_a_tool_has_a_file_of_the_device_open(host: Any, file: str) -> None:
    folder = host.device()
    path = "/" + str((folder / file).relative_to(host.root))
    host.process(99, "python3", path)
    assert find(host) == [Holder(ADDRESS, 99, "python3", path)]


def test_a_tool_has_mapped_a_bar_and_closed_the_file(host: Any) -> None:
    folder = host.device()
    path = "/" + str((folder / "resource0").relative_to(host.root))
    host.process(99, "probe", "/dev/null")
    host.write(
        "proc/99/maps",
        "5581c000-5581d000 r-xp 00000000 fe:01 1835                               /usr/bin/probe\n"
        "7f0bf000-7f0c0000 rw-p 00000000 00:00 0 \n"
        "7f1bf000-7f2bf000 rw-s 00000000 00:16 9183                               %s\n" % path,
    )
    assert find(host) == [Holder(ADDRESS, 99, "probe", path)]


def test_nvidias_driver_has_a_minor_number(host: Any) -> None:
    host.device(driver="nvidia")
    host.write("proc/driver/nvidia/gpus/%s/information" % ADDRESS, "Model: \t\t H100\nDevice Minor: \t 3\n")
    host.process(5, "python3", "/dev/nvidia3")
    host.process(6, "other", "/dev/nvidia30")
    assert find(host) == [Holder(ADDRESS, 5, "python3", "/dev/nvidia3")]


def test_information_without_a_minor_number(host: Any) -> None:
    host.device(driver="nvidia")
    host.write("proc/driver/nvidia/gpus/%s/information" % ADDRESS, "Model: H100\n")
    host.process(5, "python3", "/dev/nvidia3")
    assert find(host) == []


def test_a_driver_that_is_in_use(host: Any) -> None:
    host.device(driver="nvidia")
    host.write("sys/bus/pci/drivers/nvidia/module/refcnt", "3\n")
    (holder,) = find(host)
    assert holder == Holder(ADDRESS, 0, "", "driver nvidia (3 users)")
    assert holder.words() == "driver nvidia (3 users) is in use"


@pytest.mark.parametrize("refcnt", ["0\n", "-\n", None])
def test_a_driver_that_is_not_in_use(host: Any, refcnt: str | None) -> None:
    host.device(driver="nvidia")
    if refcnt is not None:
        host.write("sys/bus/pci/drivers/nvidia/module/refcnt", refcnt)
    assert find(host) == []


def test_vfio_is_no_user_by_itself(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    host.write("sys/bus/pci/drivers/vfio-pci/module/refcnt", "1\n")
    assert find(host) == []


def test_this_process_does_not_count(host: Any) -> None:
    host.device(group=27)
    host.process(os.getpid(), "python3", "/dev/vfio/27")
    assert find(host) == []


def test_a_process_that_ends_meanwhile(host: Any) -> None:
    host.device(group=27)
    (host.root / "proc/31").mkdir()  # no fd folder any more
    host.process(32, "half", "/dev/vfio/27")
    (host.root / "proc/32/comm").unlink()
    (host.root / "proc/32/fd/9").touch()  # not a link
    assert find(host) == [Holder(ADDRESS, 32, "?", "/dev/vfio/27")]


def test_everybody_is_named_once(host: Any) -> None:
    host.device("0000:17:00.0", group=27)
    host.device("0000:3b:00.0", group=28)
    host.process(2, "vm-b", "/dev/vfio/28", "/dev/vfio/28")
    host.process(1, "vm-a", "/dev/vfio/27")
    held = find(host)
    assert [(holder.address, holder.pid) for holder in held] == [("0000:17:00.0", 1), ("0000:3b:00.0", 2)]
    error = holders.busy(held)
    assert error.cause == (
        "In use: 0000:17:00.0: process 1 (vm-a) has /dev/vfio/27 open; "
        "0000:3b:00.0: process 2 (vm-b) has /dev/vfio/28 open."
    )
    assert "busy: wait" in error.remedy
    assert error.seen["holders"][1] == {"address": "0000:3b:00.0", "pid": 2, "command": "vm-b", "file": "/dev/vfio/28"}


def test_a_claim_keeps_the_groups_open_until_it_ends(host: Any) -> None:
    host.device("0000:17:00.0", driver="vfio-pci", group=27)
    host.device("0000:3b:00.0", driver="nvidia", group=28)
    host.device("0000:4c:00.0", driver="vfio-pci", group=29)
    for group in (27, 28):
        host.write("dev/vfio/%d" % group, "")

    def open_files() -> list[str]:
        names = [os.path.realpath("/proc/self/fd/%s" % number) for number in os.listdir("/proc/self/fd")]
        return [os.path.basename(name) for name in names if "dev/vfio" in name]

    with holders.claim(functions(host), str(host.root)):
        assert open_files() == ["27"], "28 has another driver, 29 is not there"
    assert open_files() == []


@pytest.mark.usefixtures("reachable")
def test_a_group_that_somebody_invisible_has_open(host: Any, busy_file: str, unprivileged: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    os.symlink(busy_file, host.root / "dev/vfio/27")
    with unprivileged(), pytest.raises(DeviceBusy) as caught, holders.claim(functions(host), str(host.root)):
        raise AssertionError("claimed")
    assert caught.value.cause == "In use: 0000:17:00.0: vfio group 27 is in use."
    assert caught.value.retryable


def test_a_group_that_may_not_be_opened(host: Any) -> None:
    host.device(driver="vfio-pci", group=27)
    (host.root / "dev/vfio/27").mkdir()
    with pytest.raises(NotPermitted) as caught, holders.claim(functions(host), str(host.root)):
        raise AssertionError("claimed")
    assert "0000:17:00.0: the vfio group 27 cannot be opened: EISDIR" in caught.value.cause
    assert "root" in caught.value.remedy
