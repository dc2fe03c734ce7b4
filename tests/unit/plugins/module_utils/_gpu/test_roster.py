# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which devices a run is for, and what becomes of one that the kernel no longer lists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import DeviceEntry, Problem
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, InvalidRequest
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import admin_tools, devices, report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.roster import BOOT_ID, Roster, none_found
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceGone, NoDevices
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.use import Claims
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

A, B, SWITCH, VIRTUAL = "0000:17:00.0", "0000:3b:00.0", "0000:07:00.0", "0000:17:00.4"


def problem_of(device: DeviceEntry) -> Problem:
    """Why it could not be read."""
    assert device["problem"] is not None
    return device["problem"]


def roster(host: Any) -> Roster:
    return Roster(SysfsBus(str(host.root)), str(host.root))


def chosen(host: Any, *addresses: str) -> list[str]:
    return [function.address for function in roster(host).chosen(addresses)]


def remove(host: Any, address: str) -> None:
    """As the kernel does when a device has gone."""
    os.unlink(host.root / "sys/bus/pci/devices" / address)
    shutil.rmtree(host.root / "sys/devices/pci0000:00" / address)


@pytest.fixture
def seen(host: Any) -> Any:
    """A host with two GPUs and a switch, of which an earlier run knew."""
    host.write(BOOT_ID, "3f0c\n")
    host.device(A)
    host.device(B)
    host.device(SWITCH, class_code=0x068000)
    roster(host).note()
    return host


# --- which ones -------------------------------------------------------------------------------------------------------


def test_all_or_those_named_in_their_order(seen: Any) -> None:
    assert chosen(seen) == [SWITCH, A, B]
    assert chosen(seen, B, A, B) == [B, A]


def test_none_there(host: Any) -> None:
    for addresses in ((), (A,)):
        with pytest.raises(NoDevices, match="on sysfs"):
            chosen(host, *addresses)


def test_none_found_says_where() -> None:
    error = none_found("sysfs")
    assert str(error).startswith("No NVIDIA GPU or NVSwitch was found on sysfs. Check with lspci")


def test_others_than_those_named(seen: Any) -> None:
    seen.device("0000:99:00.0", vendor=0x8086)
    with pytest.raises(InvalidRequest) as caught:
        chosen(seen, A, "0000:99:00.0", "0000:aa:00.0")
    assert str(caught.value) == (
        "There is no NVIDIA GPU or NVSwitch at 0000:99:00.0, 0000:aa:00.0. Present on sysfs: %s, %s, %s."
        % (SWITCH, A, B)
    )


def test_a_virtual_function_is_no_device_of_its_own(seen: Any) -> None:
    folder = seen.device(VIRTUAL)
    os.symlink("../%s" % A, folder / "physfn")
    assert VIRTUAL not in chosen(seen)
    with pytest.raises(InvalidRequest, match="%s: a virtual function .* has no mode of its own" % VIRTUAL):
        chosen(seen, VIRTUAL)


def test_virtual_functions_behind_sockets_are_left_alone(emulator_of: Any) -> None:
    node = emulator_of({"devices": [{"address": A, "model": "h100-sxm", "virtual_functions": 2}]})
    bus = VfioUserBus(str(node.sockets))
    node.control.reset_counters()
    assert [device["address"] for device in report.read(bus)["devices"]] == [A]
    run = ModeChange(Request(mode="off"), bus)
    run.run()
    assert [device["address"] for device in run.result()["devices"]] == [A]
    for ask in (lambda: report.read(bus, [VIRTUAL]), ModeChange(Request(mode="on", devices=[VIRTUAL]), bus).run):
        with pytest.raises(InvalidRequest, match="no NVIDIA GPU or NVSwitch at %s.*name the physical one" % VIRTUAL):
            ask()
    assert node.control.state(VIRTUAL)["counters"]["writes"] <= 4, "only memory decoding"


# --- those that went --------------------------------------------------------------------------------------------------


def test_a_device_that_left_the_bus_is_told(seen: Any) -> None:
    remove(seen, B)
    (lost,) = roster(seen).lost()
    assert (lost.address, lost.kind) == (B, "gpu")
    assert "%s: the device was there since the host's boot, and is not on the bus any more" % B in lost.problem.cause
    with pytest.raises(DeviceGone, match=B):
        chosen(seen, A, B)
    assert chosen(seen, A) == [A]
    roster(seen).note()
    assert len(roster(seen).lost()) == 1, "it stays missing"


def test_a_device_that_came_back_is_there(seen: Any) -> None:
    remove(seen, B)
    seen.device(B)
    assert roster(seen).lost() == []


def test_the_last_device_that_left_is_told_too(seen: Any) -> None:
    for address in (A, B, SWITCH):
        remove(seen, address)
    assert [(lost.address, lost.kind) for lost in roster(seen).lost()] == [(SWITCH, "nvswitch"), (A, "gpu"), (B, "gpu")]
    entries = report.read(SysfsBus(str(seen.root)), root=str(seen.root))["devices"]
    assert [entry["address"] for entry in entries] == [SWITCH, A, B]


def test_another_boot_begins_anew(seen: Any) -> None:
    remove(seen, B)
    seen.write(BOOT_ID, "4711\n")
    assert roster(seen).lost() == []


def test_a_device_that_was_taken_out_on_purpose_is_forgotten_with_the_file(seen: Any) -> None:
    remove(seen, B)
    (lost,) = roster(seen).lost()
    path = lost.problem.seen["path"]
    assert "remove the file %s" % path in lost.problem.remedy
    os.unlink(path)
    assert roster(seen).lost() == []


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"boot": "3f0c", "devices": []}', "\0"])
def test_a_file_that_says_nothing_is_written_anew(seen: Any, content: str) -> None:
    path = Path(SysfsBus(str(seen.root)).lock_path()).with_suffix(".seen")
    path.write_text(content)
    assert roster(seen).lost() == []
    roster(seen).note()
    remove(seen, A)
    assert [lost.address for lost in roster(seen).lost()] == [A]


def test_a_run_for_all_does_not_begin_without_one(seen: Any) -> None:
    remove(seen, B)
    configs = {address: seen.root / "sys/bus/pci/devices" / address / "config" for address in (A, SWITCH)}
    before = {address: path.read_bytes() for address, path in configs.items()}
    run = ModeChange(Request(mode="ppcie"), SysfsBus(str(seen.root)), root=str(seen.root))
    with pytest.raises(DeviceGone, match=B):
        run.run()
    assert {address: path.read_bytes() for address, path in configs.items()} == before
    assert not run.touched()


def test_a_reading_of_all_names_it(seen: Any) -> None:
    remove(seen, B)
    entries = {
        entry["address"]: entry for entry in report.read(SysfsBus(str(seen.root)), root=str(seen.root))["devices"]
    }
    assert (entries[B]["mode"], problem_of(entries[B])["kind"], entries[B]["kind"]) == (None, "DeviceGone", "gpu")
    assert (entries[B]["use"], entries[B]["settings_unproven"]) == ("unknown", False)
    (only,) = report.read(SysfsBus(str(seen.root)), [A], root=str(seen.root))["devices"]
    assert only["address"] == A


def test_sockets_have_names_as_long_as_they_are_there(tmp_path: Path, device_server: Any) -> None:
    device_server(A)
    server = device_server(B)
    found = Roster(VfioUserBus(str(tmp_path)))
    found.note()
    server.path.unlink()
    assert Roster(VfioUserBus(str(tmp_path))).lost() == []
    assert not list(tmp_path.glob(".*.seen"))


# --- those that do not say what they are ------------------------------------------------------------------------------


def half_there(host: Any, file: str | None) -> None:
    """A folder of which one file, or all, cannot be read."""
    folder = host.root / "sys/bus/pci/devices" / B
    if file is not None:
        (folder / file).unlink()
        return
    shutil.rmtree(folder.resolve())
    folder.resolve().mkdir()


@pytest.mark.parametrize("file", ["vendor", "class", None])
def test_a_folder_that_stays_half_there_is_not_passed_over(host: Any, clock: Any, file: str | None) -> None:
    host.device(B)
    half_there(host, file)
    found = Roster(SysfsBus(str(host.root)), str(host.root), clock)
    assert clock.now() >= 1
    assert [function.address for function in found.present] == [B]
    with devices.opened(found.present, admin_tools.load(), Claims(str(host.root))) as (one,):
        assert isinstance(one.problem, DeviceGone)
        assert B in one.problem.cause
    found.note()
    remove(host, B)
    assert roster(host).lost() == [], "what does not say what it is is not written down"


@pytest.mark.parametrize("goes", [True, False])
def test_a_device_on_its_way_is_waited_for(seen: Any, clock: Any, goes: bool) -> None:
    """Of any maker: network interfaces come and go."""
    folder = seen.device("0000:99:00.0", vendor=0x8086)
    vendor = (folder / "vendor").read_text()
    (folder / "vendor").unlink()
    clock.at(0.05, lambda: remove(seen, "0000:99:00.0") if goes else (folder / "vendor").write_text(vendor))
    found = Roster(SysfsBus(str(seen.root)), str(seen.root), clock)
    assert [function.address for function in found.present] == [SWITCH, A, B]
    assert 0.05 <= clock.now() < 0.1


@pytest.mark.parametrize(("vendor", "class_code"), [(0xFFFF, 0xFFFFFF), (0x10DE, 0xFFFFFF)])
def test_a_device_that_dies_while_it_is_opened_is_named(
    tmp_path: Path, device_server: Any, vendor: int, class_code: int
) -> None:
    server = device_server(A)
    server.config[0:2] = vendor.to_bytes(2, "little")
    server.config[0x09:0x0C] = class_code.to_bytes(3, "little")
    (entry,) = report.read(VfioUserBus(str(tmp_path)))["devices"]
    assert (entry["address"], entry["mode"], problem_of(entry)["kind"]) == (A, None, "DeviceGone")
    with pytest.raises(ExplainedError, match=A):
        ModeChange(Request(mode="on"), VfioUserBus(str(tmp_path))).run()
