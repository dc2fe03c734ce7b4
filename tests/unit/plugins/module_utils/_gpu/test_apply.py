# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Plans carried out on small devices, and every way in which that goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import Several, VerifyMismatch
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import plan
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.apply import Change
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.devices import Device
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import BootFailed, RpcFailed, RpcTimeout
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.unproven import Unproven
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import DeviceGone, ResetFailed

A, B = "0000:17:00.0", "0000:3b:00.0"


class Noted(Unproven):
    """The note of unproven settings, without its file."""

    def __init__(self) -> None:
        super().__init__("")
        self.noted: dict[str, str] = {}

    def modes(self) -> dict[str, str]:
        return self.noted

    def add(self, modes: Mapping[str, str]) -> None:
        self.noted = {**self.noted, **modes}

    def remove(self, addresses: Iterable[str]) -> None:
        gone = set(addresses)
        self.noted = {address: mode for address, mode in self.noted.items() if address not in gone}


class Bench:
    """Devices, their plan and its execution."""

    def __init__(self, fakes: Any, clock: Any, wanted: dict[str, str], knobs: dict[int, int] | None = None) -> None:
        self.journal: list[tuple[Any, ...]] = []
        self.devices = {
            address: Device(fakes.Function(address), fakes.Tool(address, self.journal, knobs)) for address in wanted
        }
        found = [device.read(1, clock) for device in self.devices.values()]
        self.plan = plan.make(found, wanted)
        self.unproven = Noted()
        self.taken: set[str] = set()
        self.change = Change(self.plan, self.devices, self.unproven, 1, clock, lambda: self.taken)

    def tool(self, address: str) -> Any:
        return self.devices[address].tool

    def run(self) -> None:
        self.change.check()
        self.change.stage()
        self.change.reset()


def test_all_are_staged_before_the_first_is_reset_and_all_verified(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "devtools"})
    bench.run()
    kinds = [entry[1] for entry in bench.journal]
    assert kinds == ["write"] * 4 + ["reset"] * 2
    assert [entry[2:] for entry in bench.journal if entry[:2] == (A, "write")] == [(10, 2), (8, 1)]
    assert [entry[2:] for entry in bench.journal if entry[:2] == (B, "write")] == [(8, 1), (6, 1)]
    assert {address: done.mode for address, done in bench.change.done.items()} == {A: "on", B: "devtools"}
    for done in bench.change.done.values():
        assert done.staged
        assert done.was_reset
        assert set(done.seconds) == {"stage", "reset", "boot"}


def test_a_device_that_is_right_is_not_touched(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "off", B: "on"})
    bench.run()
    assert {entry[0] for entry in bench.journal} == {B}
    assert bench.change.done[A].mode == "off"
    assert not bench.change.done[A].staged
    assert not bench.change.done[A].was_reset


def test_boot_is_waited_for_after_the_reset(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).boots_after_reset = False
    clock.at(0.5, lambda: setattr(bench.tool(A), "booted", True))
    bench.run()
    assert 0.5 <= bench.change.done[A].seconds["boot"] < 0.6


# --- refused beforehand -----------------------------------------------------------------------------------------------


def test_refusals_of_all_devices_come_before_the_first_write(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"}, knobs={7: 0})
    bench.devices[B].function.method = None  # type: ignore[attr-defined]
    with pytest.raises(Several) as caught:
        bench.run()
    assert [type(error).__name__ for error in caught.value.errors] == ["KnobRefused", "KnobRefused", "ResetUnavailable"]
    assert caught.value.errors[0].cause == (
        "0000:17:00.0: the knob CCM (8) may not be changed in band: its permission, knob 7, is 0."
    )
    assert "BMC" in caught.value.errors[0].remedy
    assert bench.journal == []


def test_a_permission_that_is_not_needed_does_not_matter(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"}, knobs={44: 0, 5: 0})
    bench.run()
    assert bench.change.done[A].mode == "on"


def test_a_permission_that_cannot_be_read(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).read_errors[9] = RpcTimeout("No answer.", "Run again.")
    with pytest.raises(RpcTimeout):
        bench.run()
    assert bench.journal == []


# --- staging fails ----------------------------------------------------------------------------------------------------


def test_a_failure_on_one_device_is_rolled_back_on_all(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    before = {address: dict(bench.tool(address).stored) for address in (A, B)}
    bench.tool(B).write_errors[8] = RpcFailed("%s: refused (FSP error 0x2)." % B, "Update.", rpc_code=2)
    with pytest.raises(RpcFailed) as caught:
        bench.run()
    assert {address: bench.tool(address).stored for address in (A, B)} == before
    assert caught.value.cause == "%s: refused (FSP error 0x2)." % B
    assert "Rolled back on %s: CCM, BAR0_DECOUPLER; %s: BAR0_DECOUPLER." % (A, B) in caught.value.state
    assert str(caught.value) == "%s %s %s" % (caught.value.cause, caught.value.state, caught.value.remedy)
    assert ("reset",) not in {entry[1:] for entry in bench.journal}
    assert not any(done.staged for done in bench.change.done.values())
    assert bench.change.done[A].rolled_back == ["CCM", "BAR0_DECOUPLER"]


def test_a_write_whose_answer_was_lost_is_rolled_back_too(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).write_errors[8] = RpcTimeout("No answer.", "Run again.")
    bench.tool(A).write_loses.add(8)
    with pytest.raises(RpcTimeout, match=r"Rolled back on 0000:17:00.0: CCM, BAR0_DECOUPLER\."):
        bench.run()
    assert (bench.tool(A).stored[8], bench.tool(A).stored[10]) == (0, 0)


def test_nothing_staged_nothing_rolled_back(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).write_errors[10] = RpcFailed("Refused.", "Update.")
    with pytest.raises(RpcFailed, match="Nothing had been staged"):
        bench.run()


def test_a_rollback_that_fails_is_said(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    gone = DeviceGone("%s: gone." % B, "Look.")
    bench.tool(B).write_errors[8] = gone
    bench.tool(B).read_errors[8] = gone
    with pytest.raises(DeviceGone) as caught:
        bench.run()
    assert "Rolled back on %s: CCM, BAR0_DECOUPLER." % A in caught.value.state
    assert "The staged knobs of %s (%s: gone.) could not be put back" % (B, B) in caught.value.state
    assert bench.change.done[B].staged, "something may still be staged there"


def test_only_a_rollback_that_fails(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    gone = DeviceGone("Gone.", "Look.")
    bench.tool(A).write_errors[8] = bench.tool(A).read_errors[8] = gone
    with pytest.raises(DeviceGone) as caught:
        bench.run()
    assert "Rolled back" not in caught.value.state
    assert "could not be put back" in caught.value.state


def test_two_devices_that_fail_are_both_named(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    for address in (A, B):
        bench.tool(address).write_errors[8] = RpcFailed("%s: refused." % address, "Update.")
    with pytest.raises(Several) as caught:
        bench.run()
    assert caught.value.cause.count("refused.") == 2
    assert caught.value.state.count("Rolled back on") == 1


def test_rolling_back_by_request(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "devtools"})
    bench.change.stage()
    assert bench.change.done[A].staged
    assert bench.change.roll_back() == "Rolled back on 0000:17:00.0: CCD, CCM."
    assert not bench.change.done[A].staged


# --- the reset and after it -------------------------------------------------------------------------------------------


def test_one_reset_that_fails_does_not_stop_the_others(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    bench.tool(A).reset_error = ResetFailed("%s: EBUSY." % A, "Stop it.", errno=16)
    with pytest.raises(ResetFailed):
        bench.run()
    assert (bench.change.done[A].was_reset, bench.change.done[A].mode) == (False, "off"), "as read back"
    assert (bench.change.done[B].was_reset, bench.change.done[B].mode) == (True, "on")
    assert bench.tool(A).stored[8] == 1, "what was staged stays: the next reset makes it active"


def test_firmware_that_does_not_boot_after_the_reset(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).boots_after_reset = False
    with pytest.raises(BootFailed):
        bench.run()
    assert (bench.change.done[A].was_reset, bench.change.done[A].mode) == (True, "")


def test_a_mode_that_is_not_the_wanted_one(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "devtools"})
    bench.tool(A).latches = False
    with pytest.raises(VerifyMismatch) as caught:
        bench.run()
    assert (
        caught.value.cause == "0000:17:00.0: the mode is off after the reset, not devtools (register 0x1182cc = 0x0)."
    )
    assert caught.value.seen == {
        "device": A,
        "register": 0x1182CC,
        "value": 0,
        "wanted": "devtools",
        "found": "off",
    }
    assert bench.change.done[A].mode == "off"


# --- what was read before the first write is not known after it -------------------------------------------------------


def test_a_device_that_was_staged_and_is_in_use_has_no_known_mode(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    bench.change.stage()
    assert {done.mode for done in bench.change.done.values()} == {""}
    bench.taken = {A}
    bench.change.roll_back()
    assert {address: done.mode for address, done in bench.change.done.items()} == {A: "", B: "off"}


def test_devices_that_need_nothing_are_read_back_too(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "off"})
    bench.change.stage()
    assert bench.change.done[B].mode == ""
    bench.change.reset()
    assert bench.change.done[B].mode == "off"


def test_a_device_that_a_reset_of_another_took_along_is_told(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "off"})
    bench.change.stage()
    bench.tool(B).active[8] = 1
    with pytest.raises(VerifyMismatch, match="%s: the mode is on without a reset of its own, not off" % B):
        bench.change.reset()
    assert {address: done.mode for address, done in bench.change.done.items()} == {A: "on", B: "on"}


def test_a_device_that_died_meanwhile_has_no_known_mode(fakes: Any, clock: Any) -> None:
    class Mortal(fakes.Tool):  # type: ignore[misc]
        def cc_mode(self) -> str:
            if self.silent is not None:
                raise self.silent
            return str(super().cc_mode())

    bench = Bench(fakes, clock, {A: "on", B: "off"})
    tool = Mortal(B, bench.journal)
    bench.devices[B]._tool = tool
    tool.silent = DeviceGone("%s: gone." % B, "Look.")
    with pytest.raises(DeviceGone, match=B):
        bench.run()
    assert {address: done.mode for address, done in bench.change.done.items()} == {A: "on", B: ""}


def test_a_staging_that_fails_is_followed_by_a_look_at_all(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "off"})
    bench.tool(A).write_errors[8] = RpcFailed("%s: refused." % A, "Update.")
    with pytest.raises(RpcFailed):
        bench.run()
    assert {address: done.mode for address, done in bench.change.done.items()} == {A: "off", B: "off"}


# --- settings that no register shows ----------------------------------------------------------------------------------


def test_what_no_register_shows_is_noted_until_the_reset(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "devtools"})
    bench.change.stage()
    assert bench.unproven.noted == {A: "off"}, "the BAR0 filter of one device"
    bench.change.reset()
    assert bench.unproven.noted == {}


def test_the_note_stays_when_the_reset_is_refused(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on"})
    bench.tool(A).reset_error = ResetFailed("%s: EBUSY." % A, "Stop it.", errno=16)
    with pytest.raises(ResetFailed):
        bench.run()
    assert bench.unproven.noted == {A: "off"}


def test_a_device_in_use_is_not_rolled_back(fakes: Any, clock: Any) -> None:
    bench = Bench(fakes, clock, {A: "on", B: "on"})
    bench.change.stage()
    bench.taken = {A}
    said = bench.change.roll_back()
    assert "Rolled back on %s" % B in said
    assert "%s (in use)" % A in said
    assert bench.tool(A).stored[8] == 1
    assert bench.tool(B).stored[8] == 0
    assert bench.unproven.noted == {A: "off"}
    assert bench.change.done[B].mode == "off", "read back"
