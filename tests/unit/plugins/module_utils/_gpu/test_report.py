# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is said about a host's devices when nothing is to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core import lock
from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import DeviceEntry, Problem
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest, RunInProgress
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio_user
from ansible_collections.confidential.gpu.plugins.module_utils._pci.sysfs import SysfsBus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

GPU, B200, SWITCH, A100, UNKNOWN = ("0000:0%d:00.0" % number for number in (1, 2, 4, 5, 7))


def problem_of(device: DeviceEntry) -> Problem:
    """Why it could not be read."""
    assert device["problem"] is not None
    return device["problem"]


def by_address(emulated: Any, **options: Any) -> dict[str, Any]:
    found = report.read(VfioUserBus(str(emulated.sockets)), **options)
    return {device["address"]: device for device in found["devices"]}


def test_every_kind_of_device(emulated: Any) -> None:
    emulated.control.set(GPU, mode="devtools")
    emulated.control.set(B200, knobs={"CCM": 1})
    emulated.control.set(SWITCH, mode="ppcie")
    emulated.control.reset_counters()
    devices = by_address(emulated)
    gpu = devices[GPU]
    assert (gpu["mode"], gpu["pending_mode"], gpu["reset_pending"]) == ("devtools", "devtools", False)
    assert (gpu["device_id"], gpu["module"], gpu["firmware"], gpu["problem"]) == ("0x2330", "SXM_1", "booted", None)
    assert gpu["knobs"]["CCD"] == 1
    assert (devices[B200]["mode"], devices[B200]["pending_mode"], devices[B200]["reset_pending"]) == ("off", "on", True)
    assert (devices[SWITCH]["kind"], devices[SWITCH]["mode"]) == ("nvswitch", "ppcie")
    assert (devices[A100]["mode"], devices[A100]["firmware"]) == ("unsupported", "none")
    assert (devices[UNKNOWN]["mode"], devices[UNKNOWN]["problem"]["kind"]) == (None, "UnknownDevice")
    for state in emulated.control.state().values():
        assert (state["counters"]["knob_writes"], state["counters"]["resets"]) == (0, 0)


def test_some_devices(emulated: Any) -> None:
    assert list(by_address(emulated, addresses=[SWITCH, GPU])) == [SWITCH, GPU]
    with pytest.raises(InvalidRequest, match="0000:99:00.0"):
        by_address(emulated, addresses=["0000:99:00.0"])


def test_a_host_without_devices(host: Any) -> None:
    found = report.read(SysfsBus(str(host.root)), root=str(host.root))
    assert found["devices"] == []
    assert found["host"]["iommu"]["value"] == "no"
    assert "2025.11.21" in found["tool_version"]


def test_a_device_that_somebody_holds_is_not_touched(host: Any) -> None:
    folder = host.device(driver="vfio-pci", group=27)
    host.process(4711, "qemu-system-x86", "/dev/vfio/27")
    (folder / "config").unlink()  # opening it would fail
    (device,) = report.read(SysfsBus(str(host.root)), root=str(host.root))["devices"]
    assert (device["in_use"], device["mode"], problem_of(device)["kind"]) == (True, None, "DeviceBusy")
    assert (device["driver"], device["iommu_group"], device["device_id"]) == ("vfio-pci", 27, "0x2331")
    assert device["holders"] == [
        {"address": "0000:17:00.0", "pid": 4711, "command": "qemu-system-x86", "file": "/dev/vfio/27"}
    ]


def test_a_device_whose_registers_do_not_answer(host: Any) -> None:
    host.device()
    (device,) = report.read(SysfsBus(str(host.root)), root=str(host.root))["devices"]
    assert device["mode"] is None
    assert device["firmware"] == "unknown"
    assert problem_of(device)["seen"]["device"] == "0000:17:00.0"


def test_a_socket_that_another_client_has(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (other,) = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == GPU]
    other.open()
    monkeypatch.setattr(vfio_user, "GREETING_TIMEOUT_S", 0.1)
    try:
        device = by_address(emulated, addresses=[GPU])[GPU]
    finally:
        other.close()
    assert (device["in_use"], device["mode"], problem_of(device)["kind"]) == (True, None, "DeviceBusy")


def test_devices_of_other_makers_are_not_listed(tmp_path: Path, device_server: Any) -> None:
    device_server(class_code=0x020000)
    assert report.read(VfioUserBus(str(tmp_path)))["devices"] == []


def test_a_change_at_work_is_waited_for(emulated: Any, clock: Any) -> None:
    bus = VfioUserBus(str(emulated.sockets))
    with lock.held(bus.lock_path(), 0), pytest.raises(RunInProgress):
        report.read(bus, lock_timeout_s=2, clock=clock)
    assert clock.now() >= 2


@pytest.mark.parametrize(
    ("seen", "use", "kind"), [("counted", "used", "DeviceBusy"), ("hidden", "unknown", "NotPermitted")]
)
def test_a_device_that_nobody_is_seen_to_hold_is_not_touched_either(host: Any, seen: str, use: str, kind: str) -> None:
    """By the kernel's count, or because a container sees its own processes only and the group cannot be opened."""
    folder = host.device(driver="vfio-pci", group=27, group_file=False, enable=1 if seen == "counted" else 0)
    host.pid_namespace("pid:[4026532999]")
    (folder / "config").unlink()  # opening it would fail with another error
    (device,) = report.read(SysfsBus(str(host.root)), root=str(host.root))["devices"]
    assert (device["mode"], device["use"], device["in_use"]) == (None, use, use == "used")
    assert problem_of(device)["kind"] == kind
