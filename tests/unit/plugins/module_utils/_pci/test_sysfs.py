# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's view of PCI functions, on a tree of real files and links."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.kind import is_nvswitch, may_be_nvidia
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import BarSpan
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import (
    Bar0Unreadable,
    DeviceGone,
    ResetFailed,
    ResetUnavailable,
)
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus

ADDRESS = "0000:17:00.0"


@contextlib.contextmanager
def opened(host: Any) -> Iterator[Any]:
    (function,) = SysfsBus(str(host.root)).find()
    function.open()
    try:
        yield function
    finally:
        function.close()


@contextlib.contextmanager
def sealed(size: int) -> Iterator[str]:
    """A file that cannot be written, not even by root: EPERM, as under kernel lockdown."""
    descriptor = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        yield "/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


def test_gpus_and_switches_of_nvidia_are_found_by_address(host: Any) -> None:
    host.device("0000:3b:00.0", class_code=0x030000)
    host.device("0000:17:00.0")
    host.device("0000:07:00.0", class_code=0x068000, device_id=0x22A3)
    host.device("0000:17:00.1", class_code=0x040300)
    host.device("0000:03:00.0", vendor=0x8086)
    (host.root / "sys/bus/pci/devices/0000:ff:00.0").mkdir()  # being removed: the folder is empty
    functions = SysfsBus(str(host.root)).find(may_be_nvidia)
    addresses = [function.address for function in functions]
    assert addresses == ["0000:07:00.0", "0000:17:00.0", "0000:3b:00.0", "0000:ff:00.0"], "the last may be anything"
    assert [is_nvswitch(function) for function in functions] == [True, False, False, False]
    assert functions[0].device_id == 0x22A3


def test_a_host_without_pci_has_none(tmp_path: Path) -> None:
    assert SysfsBus(str(tmp_path)).find() == []


def test_the_lock_is_in_run(host: Any) -> None:
    assert SysfsBus(str(host.root)).lock_path() == str(host.root / "run/nvidia/cc-manager/confidential-gpu.lock")


def test_config_space_is_read_and_written_where_it_was_meant(host: Any) -> None:
    folder = host.device()
    with opened(host) as function:
        function.open()  # a second time changes nothing
        assert function.config.size == 4096
        assert function.config.read16(0) == 0x10DE
        function.config.write16(0x44, 0x0103)
    assert (folder / "config").read_bytes()[0x44:0x46] == b"\x03\x01"


def test_config_space_before_it_is_opened(host: Any) -> None:
    host.device()
    (function,) = SysfsBus(str(host.root)).find()
    with pytest.raises(RuntimeError, match="open"):
        _ = function.config


def test_config_space_that_ends_early_reads_all_ones(host: Any) -> None:
    host.device().joinpath("config").write_bytes(bytes(64))
    with opened(host) as function:
        assert function.config.read16(0xF0) == 0xFFFF
        assert function.config.read32(62) == 0xFFFFFFFF
        assert function.config.read32(60) == 0


def test_config_space_of_which_the_kernel_shows_the_beginning_only(host: Any) -> None:
    """What a process without CAP_SYS_ADMIN sees: a file of 4096 bytes that ends after 64."""
    folder = host.device()
    with opened(host) as function:
        os.truncate(folder / "config", 64)
        assert function.config.read32(60) == 0
        with pytest.raises(NotPermitted, match="config space cannot be read at 0xf0") as caught:
            function.config.read16(0xF0)
    assert "SYS_ADMIN" in caught.value.remedy


def test_config_space_that_may_not_be_written_is_lockdown(host: Any) -> None:
    folder = host.device()
    (folder / "config").unlink()
    with sealed(4096) as path:
        os.symlink(path, folder / "config")
        with opened(host) as function, pytest.raises(NotPermitted) as caught:
            function.config.write16(0x04, 0x6)
    assert "0000:17:00.0: config space cannot be written at 0x4: EPERM" in caught.value.cause
    assert "lockdown" in caught.value.remedy
    assert caught.value.seen == {"device": ADDRESS, "errno": errno.EPERM}


def test_another_failure_to_write_config_space_is_not_hidden(host: Any) -> None:
    folder = host.device()
    (folder / "config").unlink()
    os.symlink("/dev/full", folder / "config")
    with opened(host) as function, pytest.raises(DeviceGone, match="cannot be written at 0x4: ENOSPC"):
        function.config.write16(0x04, 0x6)


@pytest.mark.usefixtures("reachable")
def test_not_root(host: Any, unprivileged: Any) -> None:
    folder = host.device()
    (folder / "config").chmod(0)
    (function,) = SysfsBus(str(host.root)).find()
    with unprivileged(), pytest.raises(NotPermitted) as caught:
        function.open()
    assert "EACCES" in caught.value.cause
    assert "root" in caught.value.remedy
    assert caught.value.seen == {"device": ADDRESS, "errno": errno.EACCES}


def test_a_device_that_is_gone(host: Any) -> None:
    folder = host.device()
    (function,) = SysfsBus(str(host.root)).find()
    (folder / "config").unlink()
    with pytest.raises(DeviceGone) as caught:
        function.open()
    assert "ENOENT" in caught.value.cause
    assert "lspci" in caught.value.remedy
    function.close()


def test_memory_bars_are_listed_and_io_is_passed_over(host: Any) -> None:
    host.device(bar0_bytes=8192)
    with opened(host) as function:
        assert function.bars() == [BarSpan(0x2000000000, 8192, True, 0), BarSpan(0x2010000000, 0x10000000, True, 2)]


def test_registers_behind_bar0_are_read_and_written(host: Any) -> None:
    folder = host.device()
    with opened(host) as function:
        bar = function.map_bar(0)
        assert function.map_bar(0) is bar
        assert bar.size == 4096
        bar.write32(0x100, 0x180000A1)
        assert (bar.read32(0x100), bar.read16(0x102), bar.read8(0x103)) == (0x180000A1, 0x1800, 0x18)
    assert (folder / "resource0").read_bytes()[0x100:0x104] == b"\xa1\x00\x00\x18"


def test_a_bar_has_the_kernels_number(host: Any) -> None:
    folder = host.device()
    (folder / "resource2").write_bytes(b"")
    os.truncate(folder / "resource2", 0x10000000)
    with opened(host) as function:
        function.map_bar(2).write32(4, 7)
    with (folder / "resource2").open("rb") as file:
        assert file.read(8) == b"\x00\x00\x00\x00\x07\x00\x00\x00"


@pytest.mark.parametrize(
    "line",
    [
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
        "0x0000000000000000 0x0000000000ffffff 0x000000002014220c",  # the kernel found no room for it
        "0x0000002000000000 0x0000002000ffffff 0x000000002014220c",
        "0x000000000000e000 0x000000000000e07f 0x0000000000040101",  # input and output
        "nothing that could be read",
    ],
)
def test_bar0_without_an_address_is_told_and_no_other_taken_for_it(host: Any, line: str) -> None:
    folder = host.device()
    others = (folder / "resource").read_text().splitlines()[1:]
    (folder / "resource").write_text("\n".join([line, *others]) + "\n")
    with opened(host) as function:
        assert [span.number for span in function.bars()] == [2]
        with pytest.raises(Bar0Unreadable) as caught:
            function.map_bar(0)
    assert "0000:17:00.0: BAR0 has no address" in caught.value.cause
    assert "above 4 GiB" in caught.value.remedy
    assert caught.value.seen == {"device": "0000:17:00.0", "bar": 0}


@pytest.mark.parametrize(
    ("lockdown", "in_cause", "in_remedy"),
    [
        ("none [integrity] confidentiality\n", "kernel lockdown is none [integrity]", "Secure Boot"),
        ("[none] integrity confidentiality\n", "EPERM", "security profile"),
        (None, "EPERM", "security profile"),
    ],
)
def test_bar0_that_cannot_be_mapped(host: Any, lockdown: str | None, in_cause: str, in_remedy: str) -> None:
    folder = host.device()
    if lockdown is not None:
        host.write("sys/kernel/security/lockdown", lockdown)
    (folder / "resource0").unlink()
    with sealed(4096) as path:
        os.symlink(path, folder / "resource0")
        with opened(host) as function, pytest.raises(Bar0Unreadable) as caught:
            function.map_bar(0)
    assert "0000:17:00.0: BAR0 cannot be mapped: EPERM" in caught.value.cause
    assert in_cause in caught.value.cause
    assert in_remedy in caught.value.remedy
    assert caught.value.seen["errno"] == errno.EPERM


def test_a_reset_is_asked_of_the_kernel(host: Any) -> None:
    folder = host.device()
    with opened(host) as function:
        assert function.reset_method() == "flr bus"
        function.reset()
    assert (folder / "reset").read_text() == "1"


def test_older_kernels_do_not_list_methods(host: Any) -> None:
    host.device(reset_method=None)
    with opened(host) as function:
        assert function.reset_method() == "unnamed"


def test_no_way_to_reset(host: Any) -> None:
    host.device(reset=False)
    with opened(host) as function:
        assert function.reset_method() is None
        with pytest.raises(ResetUnavailable) as caught:
            function.reset()
    assert "0000:17:00.0: there is no way to reset the device" in caught.value.cause
    assert "Power-cycle" in caught.value.remedy


def test_reset_methods_that_an_administrator_has_disabled(host: Any) -> None:
    folder = host.device()
    (folder / "reset_method").write_text("\n")
    with opened(host) as function:
        assert function.reset_method() is None


def test_a_reset_that_is_refused_when_written(host: Any) -> None:
    folder = host.device(driver="vfio-pci")
    (folder / "reset").unlink()
    os.symlink("/dev/full", folder / "reset")
    with opened(host) as function, pytest.raises(ResetFailed) as caught:
        function.reset()
    assert "refused with ENOSPC (No space left on device); bound driver: vfio-pci" in caught.value.cause
    assert caught.value.seen == {"device": ADDRESS, "errno": errno.ENOSPC, "driver": "vfio-pci"}
    assert caught.value.retryable


def test_a_reset_that_is_refused_when_opened(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = host.device()
    (folder / "reset").unlink()
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("reset")
        with opened(host) as function, pytest.raises(ResetFailed, match="ENXIO .*bound driver: none"):
            function.reset()


@pytest.mark.usefixtures("reachable")
def test_a_reset_of_a_busy_device(host: Any, busy_file: str, unprivileged: Any) -> None:
    folder = host.device(driver="vfio-pci")
    (folder / "config").chmod(0o666)
    (folder / "reset").unlink()
    os.symlink(busy_file, folder / "reset")
    with unprivileged(), opened(host) as function, pytest.raises(ResetFailed) as caught:
        function.reset()
    assert "refused with EBUSY (Device or resource busy); bound driver: vfio-pci" in caught.value.cause
    assert "run again" in caught.value.remedy
    assert caught.value.seen["errno"] == errno.EBUSY


def test_power_control_driver_and_group(host: Any) -> None:
    folder = host.device(driver="nvidia", group=27, power="auto")
    with opened(host) as function:
        assert (function.power_control(), function.driver(), function.iommu_group()) == ("auto", "nvidia", 27)
        function.set_power_control("on")
        assert function.power_control() == "on"
    assert (folder / "power/control").read_text() == "on"


def test_none_of_them(host: Any) -> None:
    host.device(power=None)
    with opened(host) as function:
        assert (function.power_control(), function.driver(), function.iommu_group()) == (None, None, None)
