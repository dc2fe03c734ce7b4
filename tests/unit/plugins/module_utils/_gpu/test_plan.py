# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Plans: what they lead to from any state, and what cannot be planned."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest, Several
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import plan
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.devices import Found
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import (
    FirmwareTooOld,
    InRecovery,
    Unsupported,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import (
    BLACKWELL_1XX,
    HOPPER,
    LAGUNA,
    Family,
    staging,
    supported,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.mode import INVALID, Knob, pending

ADDRESS = "0000:17:00.0"


class Product(NamedTuple):
    """A family, if there is one, and what the firmware of this product does not know."""

    family: Family | None
    unknown: tuple[Knob, ...] = ()

    @property
    def modes(self) -> tuple[str, ...]:
        return supported(self.family, self.unknown) if self.family else ()

    @property
    def knobs(self) -> list[Knob]:
        return [knob for knob in self.family.knobs if knob not in self.unknown] if self.family else []

    def found(self, mode: str | None, knobs: dict[Knob, int], address: str = "0000:17:00.0", **more: Any) -> Found:
        kind = self.family.kind if self.family else "gpu"
        given = {"family": self.family, "supported": self.modes, "unknown_knobs": self.unknown, "name": "H100", **more}
        return Found(address, kind, 0x2331, mode=mode, knobs=knobs, **given)


H100 = Product(HOPPER)
OLD_H100 = Product(HOPPER, (Knob.PPCIE,))
B200 = Product(BLACKWELL_1XX)
LS10 = Product(LAGUNA)
SPARSE_LS10 = Product(LAGUNA, (Knob.OPTION_2, Knob.OPTION_34, Knob.CCD, Knob.CCM, Knob.BAR0_DECOUPLER))
A100 = Product(None)


def found(mode: str | None = "off", address: str = ADDRESS, product: Product = H100, **more: Any) -> Found:
    """A device whose knobs agree with its mode."""
    knobs = dict.fromkeys(product.knobs, 0)
    if product.family and mode in product.modes:
        knobs.update({knob: value for knob, value in staging(product.family, mode) if knob in knobs})
    return product.found(mode, knobs, address, **more)


def one_plan(device: Found, wanted: str, reset: bool = True) -> plan.DevicePlan:
    (only,) = plan.make([device], {device.address: wanted}, reset).devices
    return only


# --- properties -------------------------------------------------------------------------------------------------------


@st.composite
def any_device(draw: st.DrawFn) -> Found:
    """A device in any state that knobs and registers can be in, sensible or not."""
    product = draw(st.sampled_from([H100, OLD_H100, B200, LS10, SPARSE_LS10]))
    knobs = {
        knob: draw(st.sampled_from([0, 1, 2]) if knob not in (Knob.CCM, Knob.CCD, Knob.PPCIE) else st.integers(0, 1))
        for knob in product.knobs
    }
    return product.found(draw(st.sampled_from([*product.modes, INVALID])), knobs)


@st.composite
def any_change(draw: st.DrawFn) -> tuple[Found, str]:
    device = draw(any_device())
    return device, draw(st.sampled_from(device.supported))


@given(any_change())
def test_after_the_writes_the_pending_mode_is_the_wanted_one(change: tuple[Found, str]) -> None:
    device, wanted = change
    assert device.family is not None
    knobs = dict(device.knobs)
    for write in one_plan(device, wanted).writes:
        assert knobs[write.knob] == write.before
        knobs[write.knob] = write.after
    assert pending(knobs) == wanted
    for knob, value in staging(device.family, wanted):
        assert knobs.get(knob, value) == value


@given(any_change())
def test_only_what_differs_is_written_and_once(change: tuple[Found, str]) -> None:
    writes = one_plan(*change).writes
    assert all(write.before != write.after for write in writes)
    assert len({write.knob for write in writes}) == len(writes)


@given(any_change())
def test_power_may_be_lost_after_any_write(change: tuple[Found, str]) -> None:
    """Neither staging nor rolling back leads from a valid pending mode into an invalid one."""
    device, wanted = change
    writes = one_plan(device, wanted).writes
    for done in range(len(writes) + 1):
        knobs = dict(device.knobs)
        names = [pending(knobs)]
        for write in writes[:done]:
            knobs[write.knob] = write.after
            names.append(pending(knobs))
        for write in reversed(writes[:done]):
            knobs[write.knob] = write.before
            names.append(pending(knobs))
        assert knobs == device.knobs
        if names[0] != INVALID:
            assert INVALID not in names
        assert names[done] != INVALID or done < len(writes)


@given(any_change())
def test_a_device_that_went_through_its_plan_needs_nothing_more(change: tuple[Found, str]) -> None:
    device, wanted = change
    knobs = {**device.knobs, **{write.knob: write.after for write in one_plan(device, wanted).writes}}
    after = device._replace(mode=wanted, knobs=knobs)
    again = one_plan(after, wanted)
    assert not again.is_change
    assert again.steps() == []


@given(any_change())
def test_a_device_in_another_mode_is_reset_and_verified_last(change: tuple[Found, str]) -> None:
    device, wanted = change
    steps = one_plan(device, wanted).steps()
    names = [step["step"] for step in steps]
    assert names == sorted(names, key=["stage", "reset", "verify"].index)
    assert ("reset" in names) == ("verify" in names)
    if device.mode != wanted:
        assert "reset" in names


# --- one device -------------------------------------------------------------------------------------------------------


def test_from_off_to_on() -> None:
    assert plan.make([found()], {ADDRESS: "on"}).steps() == [
        {"device": ADDRESS, "step": "stage", "knob": "BAR0_DECOUPLER", "before": 0, "after": 2},
        {"device": ADDRESS, "step": "stage", "knob": "CCM", "before": 0, "after": 1},
        {"device": ADDRESS, "step": "reset"},
        {"device": ADDRESS, "step": "verify", "mode": "on"},
    ]


def test_staged_but_not_active_is_finished_by_a_reset() -> None:
    device = found("on")
    staged = H100.found("off", dict(device.knobs))
    only = one_plan(staged, "on")
    assert (only.writes, only.reset) == ((), True)


def test_staged_but_not_wanted_is_reverted_without_a_reset() -> None:
    device = found("on")
    staged = H100.found("off", dict(device.knobs))
    only = one_plan(staged, "off")
    assert [write.knob for write in only.writes] == [Knob.BAR0_DECOUPLER, Knob.CCM]
    assert not only.reset
    assert only.is_change


@pytest.mark.parametrize(("mode", "reset"), [("on", True), ("ppcie", True), ("devtools", False), ("off", False)])
def test_what_no_register_shows_needs_a_reset_to_be_sure(mode: str, reset: bool) -> None:
    device = found(mode)
    knobs = {**device.knobs, Knob.BAR0_DECOUPLER: 1}
    doubtful = H100.found(mode, knobs)
    assert one_plan(doubtful, mode).reset is reset


def test_without_a_reset_the_mode_is_pending() -> None:
    only = one_plan(found(), "on", reset=False)
    assert (only.reset, only.reset_pending) == (False, True)
    assert {step["step"] for step in only.steps()} == {"stage"}
    assert not one_plan(found("on"), "on", reset=False).reset_pending


def test_a_device_that_was_not_read_has_no_plan() -> None:
    with pytest.raises(ValueError, match="has not been read"):
        one_plan(found(None), "on")


@pytest.mark.parametrize(
    ("product", "mode", "knobs"),
    [
        (Product(HOPPER, (Knob.CCD,)), "devtools", "the knob CCD (6)"),
        (Product(HOPPER, (Knob.BAR0_DECOUPLER,)), "on", "the knob BAR0_DECOUPLER (10)"),
        (Product(HOPPER, (Knob.OPTION_34,)), "ppcie", "the knob OPTION_34 (34)"),
        (Product(BLACKWELL_1XX, (Knob.OPTION_2, Knob.CCM)), "on", "the knob OPTION_2 (2) and the knob CCM (8)"),
        (Product(LAGUNA, (Knob.PPCIE,)), "ppcie", "the knob PPCIE (45)"),
    ],
)
def test_a_knob_that_the_mode_needs_and_the_firmware_lacks(product: Product, mode: str, knobs: str) -> None:
    device = found("off", product=product)
    with pytest.raises(FirmwareTooOld) as caught:
        plan.assign([device], mode, {})
    words = "too old for %s: it answers %s with FSP error 0x1e3" % (mode, knobs)
    assert words in caught.value.cause
    assert caught.value.seen["device"] == ADDRESS
    with pytest.raises(ValueError, match="is needed and has not been read"):
        one_plan(device, mode)


# --- several devices --------------------------------------------------------------------------------------------------


def test_all_is_staged_before_the_first_reset() -> None:
    both = [found(address="0000:17:00.0"), found(address="0000:3b:00.0")]
    steps = plan.make(both, {one.address: "on" for one in both}).steps()
    assert [step["step"] for step in steps] == ["stage"] * 4 + ["reset"] * 2 + ["verify"] * 2


def test_devices_that_are_not_wanted_are_left_out() -> None:
    both = [found(address="0000:17:00.0"), found(address="0000:3b:00.0")]
    assert [one.address for one in plan.make(both, {"0000:3b:00.0": "on"}).devices] == ["0000:3b:00.0"]


def test_diff_shows_modes_and_knobs() -> None:
    assert plan.make([found("on")], {ADDRESS: "devtools"}).diff() == {
        "before": "0000:17:00.0: on\n0000:17:00.0 knob BAR0_DECOUPLER: 2\n0000:17:00.0 knob CCD: 0\n",
        "after": "0000:17:00.0: devtools\n0000:17:00.0 knob BAR0_DECOUPLER: 0\n0000:17:00.0 knob CCD: 1\n",
    }


def test_diff_of_a_staging_says_that_a_reset_is_pending() -> None:
    after = plan.make([found()], {ADDRESS: "on"}, reset=False).diff()["after"]
    assert after.startswith("0000:17:00.0: off (reset pending)\n")


def test_diff_of_nothing_is_empty_of_differences() -> None:
    same = plan.make([found("on")], {ADDRESS: "on"})
    assert same.diff()["before"] == same.diff()["after"]
    assert not same.is_change


@pytest.mark.parametrize(
    ("before", "wanted", "moves"),
    [
        ("off", "ppcie", True),
        ("ppcie", "off", True),
        ("ppcie", "ppcie", False),
        ("off", "on", False),
        ("ppcie", "on", True),
    ],
)
def test_entering_and_leaving_ppcie_moves_it(before: str, wanted: str, moves: bool) -> None:
    assert plan.make([found(before)], {ADDRESS: wanted}).moves_ppcie is moves


# --- who gets which mode ----------------------------------------------------------------------------------------------


def test_one_mode_for_all_and_switches_beside_gpus() -> None:
    devices = [found(address="a"), found(address="s", product=LS10)]
    assert plan.assign(devices, "on", {}) == {"a": "on", "s": "off"}
    assert plan.assign(devices, "off", {}) == {"a": "off", "s": "off"}
    assert plan.assign(devices, "ppcie", {}) == {"a": "ppcie", "s": "ppcie"}


def test_switches_alone_are_taken_by_their_word() -> None:
    devices = [found(address="s", product=LS10)]
    assert plan.assign(devices, "ppcie", {}) == {"s": "ppcie"}
    with pytest.raises(Unsupported, match=r"cannot do the mode on; it supports off, ppcie"):
        plan.assign(devices, "on", {})


def test_modes_by_address_concern_those_alone() -> None:
    devices = [found(address="a"), found(address="b"), found(address="c", product=A100, mode="unsupported")]
    assert plan.assign(devices, None, {"a": "on", "b": "devtools"}) == {"a": "on", "b": "devtools"}


def test_a_mode_that_is_none(tmp_path: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"a: 'fast' is not a mode. Use one of off, on, devtools, ppcie"):
        plan.assign([found(address="a")], None, {"a": "fast"})


def test_everything_that_stands_in_the_way_is_said_at_once() -> None:
    recovery = InRecovery("r: in recovery.", "Power-cycle.", device="r")
    devices = [
        found(address="x", product=A100, mode="unsupported", name="A100"),
        found(address="b", product=B200, name="B200"),
        found(address="o", product=OLD_H100),
        found(address="r", problem=recovery, mode=None),
        found(address="fine"),
    ]
    with pytest.raises(Several) as caught:
        plan.assign(devices, "ppcie", {})
    kinds = [type(error).__name__ for error in caught.value.errors]
    assert kinds == ["Unsupported", "Unsupported", "FirmwareTooOld", "InRecovery"]
    assert caught.value.errors[0].cause == "x (A100): the device cannot do the mode ppcie; it supports no mode."
    assert caught.value.errors[1].seen["supported"] == ["off", "on", "devtools"]
    assert "PPCIE (45) with FSP error 0x1e3" in caught.value.errors[2].cause
    assert caught.value.errors[3] is recovery


# --- the fabric -------------------------------------------------------------------------------------------------------


def fabric(*modes: str) -> list[Found]:
    """GPUs in these modes, and a switch that goes with the first."""
    gpus = [found(mode, address="gpu%d" % number) for number, mode in enumerate(modes)]
    return [*gpus, found("ppcie" if modes[0] == "ppcie" else "off", address="switch", product=LS10)]


def test_a_whole_fabric_may_change() -> None:
    devices = fabric("off", "off")
    wanted = {one.address: "ppcie" for one in devices}
    plan.check_fabric(plan.make(devices, wanted), devices)


def test_a_part_of_a_fabric_may_not() -> None:
    devices = fabric("off", "off")
    with pytest.raises(InvalidRequest) as caught:
        plan.check_fabric(plan.make(devices, {"gpu0": "ppcie"}), devices)
    assert caught.value.cause == (
        "ppcie is a mode of the whole NVLink fabric, but gpu0 would be in it and gpu1, switch would not."
    )
    assert caught.value.seen == {"inside": ["gpu0"], "outside": ["gpu1", "switch"]}


def test_nor_may_a_part_leave() -> None:
    devices = fabric("ppcie", "ppcie")
    with pytest.raises(InvalidRequest, match="gpu1, switch would be in it and gpu0 would not"):
        plan.check_fabric(plan.make(devices, {"gpu0": "on"}), devices)


def test_without_switches_every_gpu_stands_alone() -> None:
    devices = [found(address="a"), found(address="b")]
    plan.check_fabric(plan.make(devices, {"a": "ppcie"}), devices)


def test_devices_that_cannot_do_ppcie_are_no_part_of_it() -> None:
    devices = [*fabric("off"), found(address="b200", product=B200)]
    plan.check_fabric(plan.make(devices, {"gpu0": "ppcie", "switch": "ppcie"}), devices)
