# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A whole run: the request checked, devices chosen, waited for, planned, changed, and what is said about it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core import lock
from ansible_collections.confidential.gpu.plugins.module_utils._core.answers import ChangeResult
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    InvalidRequest,
    RunInProgress,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import change
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.devices import Found
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import KnobRefused
from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio_user
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import anything
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceBusy, NoDevices
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

GPU, B200, SWITCH = "0000:01:00.0", "0000:02:00.0", "0000:04:00.0"


# --- the request ------------------------------------------------------------------------------------------------------


def test_addresses_are_completed_and_repetitions_dropped() -> None:
    checked = Request(mode="on", devices=["17:00.0", "0000:17:00.0", "3B:00.0"]).checked()
    assert checked.devices == ["0000:17:00.0", "0000:3b:00.0"]
    checked = Request(modes={"17:00.0": "on"}).checked()
    assert (checked.modes, checked.devices) == ({"0000:17:00.0": "on"}, ["0000:17:00.0"])


def test_the_rest_of_the_request_is_kept() -> None:
    checked = Request(mode="on", busy="wait", busy_timeout_s=1, boot_timeout_s=2, reset=False).checked()
    assert checked == Request(
        mode="on", devices=[], modes={}, busy="wait", busy_timeout_s=1, boot_timeout_s=2, reset=False
    )


@pytest.mark.parametrize(
    ("desired", "words"),
    [
        ({}, "Neither or both of mode and modes"),
        ({"mode": "on", "modes": {"17:00.0": "on"}}, "Neither or both of mode and modes"),
        ({"mode": "fast"}, "'fast' is not a mode"),
        ({"modes": {"17:00.0": "fast"}}, "'fast' is not a mode"),
        ({"modes": {"17:00.0": "on", "0000:17:00.0": "off"}}, "names 0000:17:00.0 twice"),
        ({"modes": {"17:00.0": "on"}, "devices": ["3b:00.0"]}, "names 0000:17:00.0, which devices leaves out"),
        ({"mode": "on", "devices": ["gpu0"]}, "'gpu0' is not a PCI address"),
        ({"mode": "on", "busy_timeout_s": -1}, "busy_timeout is -1"),
        ({"mode": "on", "boot_timeout_s": float("nan")}, "boot_timeout is nan"),
    ],
)
def test_requests_that_cannot_be_meant(desired: dict[str, Any], words: str, tmp_path: Any) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        ModeChange(Request(**desired), VfioUserBus(str(tmp_path)))
    assert caught.value.remedy.endswith(".")


# --- holders ----------------------------------------------------------------------------------------------------------


class SocketsAndHost(VfioUserBus):
    """Emulated devices that the kernel knows of too: with an IOMMU group, as holders are looked for."""

    def find(self, takes: Any = anything) -> Any:
        functions = super().find(takes)
        for number, function in enumerate(functions):
            function.iommu_group = lambda number=number: number  # type: ignore[method-assign, misc]
        return functions


def test_a_device_that_is_held_is_not_touched(emulated: Any, host: Any, clock: Any) -> None:
    host.write("dev/vfio/0", "")
    host.process(4711, "qemu-system-x86", "/dev/vfio/0")
    run = ModeChange(
        Request(mode="on", devices=[GPU]), SocketsAndHost(str(emulated.sockets)), root=str(host.root), clock=clock
    )
    with pytest.raises(DeviceBusy, match="process 4711"):
        run.run()
    nothing: ChangeResult = {"devices": [], "plan": [], "diff": {"before": "", "after": ""}}
    assert run.result() == nothing
    assert not run.is_change
    assert not run.touched()
    assert emulated.control.state(GPU)["counters"]["reads"] == 0


def test_a_device_that_is_held_is_waited_for(emulated: Any, host: Any, clock: Any) -> None:
    host.write("dev/vfio/0", "")
    host.process(4711, "qemu-system-x86", "/dev/vfio/0")
    clock.at(3, lambda: os.unlink(host.root / "proc/4711/fd/0"))
    request = Request(mode="on", devices=[GPU], busy="wait", busy_timeout_s=10)
    run = ModeChange(request, SocketsAndHost(str(emulated.sockets)), root=str(host.root), clock=clock)
    run.run()
    assert 3 <= clock.now() < 4
    assert emulated.control.state(GPU)["mode"] == "on"


def test_waiting_ends(emulated: Any, host: Any, clock: Any) -> None:
    host.write("dev/vfio/0", "")
    host.process(4711, "qemu-system-x86", "/dev/vfio/0")
    request = Request(mode="on", devices=[GPU], busy="wait", busy_timeout_s=10)
    run = ModeChange(request, SocketsAndHost(str(emulated.sockets)), root=str(host.root), clock=clock)
    with pytest.raises(DeviceBusy):
        run.run()
    assert 10 <= clock.now() < 11


def test_a_virtual_machine_that_starts_while_knobs_are_staged(emulated: Any, host: Any) -> None:
    """It is seen before the reset, and from then on the device is left alone."""

    host.write("dev/vfio/0", "")

    def group_of_a_device_that_is_taken_once_it_is_staged() -> int:
        if emulated.control.state(GPU)["knobs"]["CCM"] and not (host.root / "proc/4711").exists():
            host.process(4711, "qemu-system-x86", "/dev/vfio/0")
        return 0

    class Racing(VfioUserBus):
        def find(self, takes: Any = anything) -> Any:
            functions = super().find(takes)
            for function in functions:
                function.iommu_group = group_of_a_device_that_is_taken_once_it_is_staged  # type: ignore[method-assign]
            return functions

    run = ModeChange(Request(mode="on", devices=[GPU]), Racing(str(emulated.sockets)), root=str(host.root))
    with pytest.raises(DeviceBusy, match="process 4711") as caught:
        run.run()
    assert "The staged knobs of %s (in use) could not be put back" % GPU in str(caught.value)
    counters = emulated.control.state(GPU)["counters"]
    assert (counters["resets"], counters["knob_writes"]) == (0, 2)
    assert run.touched()


# --- refused before the first write -----------------------------------------------------------------------------------


@pytest.mark.parametrize("only_plan", [False, True])
def test_a_knob_that_may_not_be_changed_stops_all_devices(emulated: Any, only_plan: bool) -> None:
    emulated.control.set(B200, knobs={"CCM_ALLOW_INB": 0})
    run = ModeChange(Request(mode="on", devices=[GPU, B200]), VfioUserBus(str(emulated.sockets)))
    with pytest.raises(KnobRefused, match="%s: the knob CCM" % B200):
        run.run(only_plan)
    assert [step["step"] for step in run.result()["plan"]].count("reset") == 2, "the plan is told all the same"
    assert {state["counters"]["knob_writes"] for state in emulated.control.state().values()} == {0}


# --- the fabric -------------------------------------------------------------------------------------------------------


def test_devices_that_were_not_chosen_are_looked_at_before_ppcie_changes(emulated: Any) -> None:
    run = ModeChange(Request(mode="ppcie", devices=[GPU]), VfioUserBus(str(emulated.sockets)))
    with pytest.raises(InvalidRequest, match="whole NVLink fabric") as caught:
        run.run()
    assert caught.value.seen["inside"] == [GPU]
    assert SWITCH in caught.value.seen["outside"]
    assert {state["counters"]["knob_writes"] for state in emulated.control.state().values()} == {0}


def test_staging_alone_does_not_divide_a_fabric_either(emulated: Any) -> None:
    run = ModeChange(Request(mode="ppcie", devices=[GPU], reset=False), VfioUserBus(str(emulated.sockets)))
    with pytest.raises(InvalidRequest, match="whole NVLink fabric"):
        run.run()


def test_a_switch_that_cannot_be_read_keeps_the_fabric_out_of_ppcie(emulated: Any) -> None:
    emulated.control.fault(device=SWITCH, event="connect", action="fall_off")
    others = [one for one in emulated.control.state() if one not in (SWITCH, B200)]
    with pytest.raises(ExplainedError, match=SWITCH):
        ModeChange(Request(mode="ppcie", devices=[GPU]), VfioUserBus(str(emulated.sockets))).run()
    assert {emulated.control.state(one)["counters"]["knob_writes"] for one in others} == {0}


def test_they_must_be_free_for_that(emulated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vfio_user, "GREETING_TIMEOUT_S", 0.1)
    (switch,) = [one for one in VfioUserBus(str(emulated.sockets)).find() if one.address == SWITCH]
    switch.open()
    try:
        with pytest.raises(DeviceBusy, match=SWITCH):
            ModeChange(Request(mode="ppcie", devices=[GPU]), VfioUserBus(str(emulated.sockets))).run()
    finally:
        switch.close()


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_a_run_at_work_is_not_disturbed(emulated: Any) -> None:
    bus = VfioUserBus(str(emulated.sockets))
    with lock.held(bus.lock_path(), 0), pytest.raises(RunInProgress, match="process %d" % os.getpid()):
        ModeChange(Request(mode="on"), bus).run()


# --- what is said -----------------------------------------------------------------------------------------------------


def test_the_result_of_a_change(emulated: Any) -> None:
    run = ModeChange(Request(mode="on", devices=[GPU]), VfioUserBus(str(emulated.sockets)))
    run.run()
    assert run.is_change
    assert run.touched()
    (device,) = run.result()["devices"]
    assert (device["mode_before"], device["mode_after"], device["staged"], device["reset"]) == ("off", "on", True, True)
    assert set(device["seconds"]) == {"stage", "reset", "boot"}
    assert [step["step"] for step in run.result()["plan"]] == ["stage", "stage", "reset", "verify"]


def test_the_result_of_a_check(emulated: Any) -> None:
    run = ModeChange(Request(mode="on", devices=[GPU]), VfioUserBus(str(emulated.sockets)))
    run.run(only_plan=True)
    (device,) = run.result(only_plan=True)["devices"]
    assert (device["mode_before"], device["mode_after"], device["staged"], device["reset"]) == ("off", "on", True, True)
    assert device["seconds"] == {}
    assert not run.touched()


def test_the_result_of_nothing(emulated: Any) -> None:
    run = ModeChange(Request(mode="off", devices=[GPU]), VfioUserBus(str(emulated.sockets)))
    run.run()
    (device,) = run.result()["devices"]
    assert (device["mode_before"], device["mode_after"], device["staged"], device["reset"]) == (
        "off",
        "off",
        False,
        False,
    )
    assert not run.is_change


def test_a_staging_without_reset(emulated: Any) -> None:
    run = ModeChange(Request(mode="on", devices=[GPU], reset=False), VfioUserBus(str(emulated.sockets)))
    run.run()
    (device,) = run.result()["devices"]
    assert (device["mode_after"], device["staged"], device["reset"], device["reset_pending"]) == (
        "off",
        True,
        False,
        True,
    )


def test_devices_of_others_are_none(tmp_path: Any, device_server: Any) -> None:
    server = device_server(class_code=0x020000)
    run = ModeChange(Request(mode="on"), VfioUserBus(str(tmp_path)))
    with pytest.raises(NoDevices):
        run.run()
    assert server.client_left.wait(10)


def test_a_device_that_is_described() -> None:
    found = Found("a", "gpu", 0x2331, "H100", "GH100", supported=("off", "on"))
    assert change.described(found) == {
        "address": "a",
        "kind": "gpu",
        "name": "H100",
        "chip": "GH100",
        "supported_modes": ["off", "on"],
    }
