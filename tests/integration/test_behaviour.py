# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a change does and does not do, on emulated devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import Several
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import fact
from ansible_collections.confidential.gpu.plugins.module_utils._pci import bus

H100 = "0000:17:00.0"
H200, B200, RTX, A100, UNKNOWN = ("0000:%s:00.0" % name for name in ("2a", "3b", "65", "98", "ca"))
OLD, NO_FLR, DECODE_OFF, ASLEEP, NEW_H, NEW_B, OPTIONS = ("0000:0%d:00.0" % number for number in range(1, 8))
SWITCHES = ["0000:07:00.0", "0000:08:00.0", "0000:09:00.0", "0000:0a:00.0"]
MODES = ("off", "on", "devtools", "ppcie")
CAPABLE = [H100, H200, B200, RTX]


# --- every mode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", MODES)
@pytest.mark.parametrize("before", [*MODES, "invalid"])
def test_from_every_mode_to_every_mode(h100: Any, before: str, wanted: str) -> None:
    h100.control.set(H100, mode=before)
    result = h100.change(wanted)
    (device,) = result["devices"]
    assert (device["mode_before"], device["mode_after"]) == (before, wanted)
    assert result["changed"] == (before != wanted)
    state = h100.state(H100)
    assert state["mode"] == wanted
    assert state["active_bar0_filter"] == (wanted in ("on", "ppcie"))
    assert state["counters"]["resets"] == (before != wanted)
    assert state["counters"]["knob_writes"] == len([step for step in result["plan"] if step["step"] == "stage"])
    assert not h100.change(wanted)["changed"]


@pytest.mark.parametrize("wanted", ["off", "on", "devtools"])
@pytest.mark.parametrize("address", [B200, RTX])
def test_blackwell(mixed: Any, address: str, wanted: str) -> None:
    for before in ("off", "on", "devtools", "invalid"):
        mixed.control.set(address, mode=before)
        assert mixed.change(wanted, devices=[address])["devices"][0]["mode_after"] == wanted
        assert mixed.state(address)["mode"] == wanted


@pytest.mark.parametrize(("before", "wanted"), [("off", "ppcie"), ("ppcie", "off"), ("ppcie", "on"), ("on", "ppcie")])
def test_a_whole_fabric(hgx: Any, before: str, wanted: str) -> None:
    for address in hgx.modes():
        switch = address in SWITCHES
        hgx.control.set(address, mode="off" if switch and before == "on" else before)
    result = hgx.change(wanted, boot_timeout_s=5)
    assert result["changed"]
    of_switches = "off" if wanted == "on" else wanted
    assert hgx.modes() == {address: of_switches if address in SWITCHES else wanted for address in hgx.modes()}
    steps = [step["step"] for step in result["plan"]]
    assert steps == sorted(steps, key=["stage", "reset", "verify"].index)
    for address, state in hgx.control.state().items():
        assert state["knobs"]["PPCIE"] == (wanted == "ppcie"), address
        assert state["counters"]["resets"] == 1, address


def test_off_after_ppcie_is_really_off(h100: Any) -> None:
    h100.control.set(H100, mode="ppcie")
    h100.change("off")
    state = h100.state(H100)
    assert state["mode"] == "off"
    assert {name: state["knobs"][name] for name in ("PPCIE", "CCM", "CCD", "BAR0_DECOUPLER")} == dict.fromkeys(
        ("PPCIE", "CCM", "CCD", "BAR0_DECOUPLER"), 0
    )
    h100.control.power_cycle(H100)
    assert h100.change("off", boot_timeout_s=5)["devices"][0]["mode_before"] == "off"


def test_options_that_forbid_protection_are_cleared(peculiar: Any) -> None:
    assert peculiar.change("on", devices=[OPTIONS])["devices"][0]["mode_after"] == "on"
    knobs = peculiar.state(OPTIONS)["knobs"]
    assert [knobs[name] for name in ("2", "4", "34")] == [0, 0, 0]


# --- nothing to do ----------------------------------------------------------------------------------------------------


def test_a_second_run_writes_nothing_and_resets_nothing(hgx: Any) -> None:
    hgx.change("on", boot_timeout_s=5)
    hgx.control.reset_counters()
    result = hgx.change("on")
    assert not result["changed"]
    assert result["plan"] == []
    assert result["diff"]["before"] == result["diff"]["after"]
    assert hgx.touched() == {}


# --- which devices ----------------------------------------------------------------------------------------------------


def test_modes_by_device(mixed: Any) -> None:
    result = mixed.change(modes={"17:00.0": "on", "0000:3B:00.0": "devtools"})
    assert {device["address"]: device["mode_after"] for device in result["devices"]} == {H100: "on", B200: "devtools"}
    assert mixed.modes() == {H100: "on", H200: "off", B200: "devtools", RTX: "off", A100: "off", UNKNOWN: "off"}
    assert set(mixed.touched()) == {H100, B200}


def test_short_addresses(mixed: Any) -> None:
    assert mixed.change("on", devices=["17:00.0"])["devices"][0]["address"] == H100
    assert set(mixed.touched()) == {H100}


def test_a_device_is_left_alone_when_another_is_meant(mixed: Any) -> None:
    before = mixed.state(B200)["counters"]
    mixed.change("on", devices=[H100])
    assert mixed.state(B200)["counters"] == before


def test_all_that_cannot_do_it_are_named_at_once(mixed: Any) -> None:
    error = mixed.refused("on")
    assert isinstance(error, Several)
    assert [(type(one).__name__, one.seen["device"]) for one in error.errors] == [
        ("Unsupported", A100),
        ("UnknownDevice", UNKNOWN),
    ]
    assert "A100" in str(error)
    assert "option devices" in error.remedy
    assert mixed.touched() == {}
    assert [device["address"] for device in mixed.last.result()["devices"]] == [*CAPABLE, A100, UNKNOWN]


def test_ppcie_where_it_does_not_exist(mixed: Any) -> None:
    error = mixed.refused("ppcie", devices=[H100, B200, RTX])
    assert isinstance(error, Several)
    assert [one.seen["device"] for one in error.errors] == [B200, RTX]
    assert error.errors[0].seen["supported"] == ["off", "on", "devtools"]
    assert mixed.touched() == {}


# --- the fabric -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "wanted"), [("off", "ppcie"), ("ppcie", "off"), ("ppcie", "on")])
def test_a_part_of_a_fabric_neither_enters_nor_leaves_ppcie(hgx: Any, before: str, wanted: str) -> None:
    hgx.control.set("*", mode=before)
    error = hgx.refused(wanted, devices=[H100])
    assert type(error).__name__ == "InvalidRequest"
    assert "whole NVLink fabric" in error.cause
    assert H100 in error.seen["inside" if wanted == "ppcie" else "outside"]
    assert len(error.seen["inside"]) + len(error.seen["outside"]) == 12
    assert hgx.touched() == {}


def test_a_part_of_a_fabric_may_have_another_cc_mode(hgx: Any) -> None:
    assert hgx.change(modes={H100: "on", "0000:3b:00.0": "devtools"})["changed"]
    assert set(hgx.touched()) == {H100, "0000:3b:00.0"}


def test_the_last_device_may_follow_the_others_into_ppcie(hgx: Any) -> None:
    hgx.control.set("*", mode="ppcie")
    hgx.control.set(H100, mode="off")
    assert hgx.change("ppcie", devices=[H100])["changed"]
    assert set(hgx.touched()) == {H100}


def test_switches_alone(hgx: Any) -> None:
    assert not hgx.change("off", devices=SWITCHES)["changed"]
    unsupported = hgx.refused("on", devices=SWITCHES)
    assert isinstance(unsupported, Several)
    assert {type(one).__name__ for one in unsupported.errors} == {"Unsupported"}
    assert "whole NVLink fabric" in hgx.refused("ppcie", devices=SWITCHES).cause
    assert hgx.touched() == {}


def test_switches_follow_gpus_that_are_in_ppcie_already(hgx: Any) -> None:
    hgx.control.set("*", mode="ppcie")
    for address in SWITCHES:
        hgx.control.set(address, mode="off")
    hgx.change("ppcie", devices=SWITCHES)
    assert set(hgx.modes().values()) == {"ppcie"}
    assert set(hgx.touched()) == set(SWITCHES)


# --- staged and active ------------------------------------------------------------------------------------------------


def test_without_a_reset_the_mode_waits_for_one(h100: Any) -> None:
    result = h100.change("on", reset=False)
    (device,) = result["devices"]
    assert result["changed"]
    assert (device["mode_after"], device["staged"], device["reset"], device["reset_pending"]) == (
        "off",
        True,
        False,
        True,
    )
    assert h100.touched() == {H100: (2, 0)}
    again = h100.change("on", reset=False)
    assert not again["changed"]
    assert again["devices"][0]["reset_pending"]
    done = h100.change("on")
    assert [step["step"] for step in done["plan"]] == ["reset", "verify"]
    assert h100.touched() == {H100: (2, 1)}
    assert h100.state(H100)["mode"] == "on"


def test_a_mode_that_is_only_staged_is_seen(h100: Any) -> None:
    h100.change("devtools", reset=False)
    device = h100.info()[H100]
    assert (device["mode"], device["pending_mode"], device["reset_pending"]) == ("off", "devtools", True)


def test_a_mode_that_is_only_staged_is_taken_back(h100: Any) -> None:
    before = h100.state(H100)["knobs"]
    h100.change("devtools", reset=False)
    h100.control.reset_counters()
    result = h100.change("off")
    assert result["changed"]
    assert {step["step"] for step in result["plan"]} == {"stage"}
    assert h100.state(H100)["knobs"] == before
    assert h100.touched() == {H100: (2, 0)}, "what is active is right already"


def test_an_active_mode_that_the_next_reset_would_end_is_made_to_last(h100: Any) -> None:
    h100.control.set(H100, mode="devtools")
    h100.control.set(H100, knobs={"CCM": 0, "CCD": 0})
    result = h100.change("devtools")
    assert result["changed"]
    h100.control.power_cycle(H100)
    assert h100.change("devtools", boot_timeout_s=5)["devices"][0]["mode_before"] == "devtools"


def test_a_filter_that_no_register_shows_is_made_sure_of(h100: Any) -> None:
    h100.control.set(H100, mode="on", knobs={"BAR0_DECOUPLER": 0})
    result = h100.change("on")
    assert [step["step"] for step in result["plan"]] == ["stage", "reset", "verify"]
    assert h100.state(H100)["active_bar0_filter"]


# --- devices that are not quite ready ---------------------------------------------------------------------------------


def config_word(site: Any, address: str, offset: int) -> int:
    """A word of config space, as whoever comes next finds it."""
    with site.held(address) as function:
        value: int = function.config.read16(offset)
        return value


@pytest.mark.parametrize("wanted", ["off", "on"])
def test_a_sleeping_device_is_woken_and_sleeps_again(peculiar: Any, wanted: str) -> None:
    assert peculiar.state(ASLEEP)["power"] == "D3hot"
    assert peculiar.change(wanted, devices=[ASLEEP])["devices"][0]["mode_after"] == wanted
    state = peculiar.state(ASLEEP)
    assert (state["mode"], state["power"]) == (wanted, "D3hot")


@pytest.mark.parametrize("wanted", ["off", "on"])
def test_memory_decoding_is_put_back(peculiar: Any, wanted: str) -> None:
    before = config_word(peculiar, DECODE_OFF, bus.COMMAND)
    assert not before & bus.COMMAND_MEMORY
    assert peculiar.change(wanted, devices=[DECODE_OFF])["devices"][0]["mode_after"] == wanted
    assert config_word(peculiar, DECODE_OFF, bus.COMMAND) == before


def test_addresses_and_command_survive_the_reset(h100: Any) -> None:
    with h100.held(H100) as function:
        before = [function.config.read32(offset) for offset in range(0, 0x40, 4)]
    h100.change("on")
    with h100.held(H100) as function:
        assert [function.config.read32(offset) for offset in range(0, 0x40, 4)] == before


def test_a_device_without_function_level_reset_is_reset_by_its_server(peculiar: Any) -> None:
    assert peculiar.change("on", devices=[NO_FLR])["devices"][0]["mode_after"] == "on"
    assert peculiar.touched() == {NO_FLR: (2, 1)}


@pytest.mark.parametrize(("address", "chip"), [(NEW_H, "GH100"), (NEW_B, "GB100")])
def test_devices_that_are_newer_than_the_list_of_names(peculiar: Any, address: str, chip: str) -> None:
    (device,) = peculiar.change("on", devices=[address])["devices"]
    assert (device["name"], device["chip"], device["mode_after"]) == ("Generic-%s" % chip, chip, "on")


def test_a_device_that_is_still_booting_is_waited_for(h100: Any) -> None:
    h100.control.power_cycle(H100)
    assert h100.change("on", boot_timeout_s=5)["devices"][0]["mode_after"] == "on"


# --- check mode -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wanted", "desired"),
    [
        ("off", "on", {}),
        ("ppcie", "devtools", {}),
        ("invalid", "off", {}),
        ("on", "on", {}),
        ("off", "devtools", {"reset": False}),
    ],
)
def test_check_mode_predicts_the_run(h100: Any, before: str, wanted: str, desired: dict[str, Any]) -> None:
    h100.control.set(H100, mode=before)
    predicted = h100.change(wanted, only_plan=True, **desired)
    assert h100.touched() == {}
    assert h100.modes() == {H100: before}
    real = h100.change(wanted, **desired)
    for result in (predicted, real):
        for device in result["devices"]:
            device.pop("seconds")
    assert predicted == real
    after = h100.change(wanted, only_plan=True, **desired)
    assert (after["changed"], after["plan"]) == (False, [])


def test_check_mode_predicts_a_fabric(hgx: Any) -> None:
    predicted = hgx.change("ppcie", only_plan=True)
    assert hgx.touched() == {}
    real = hgx.change("ppcie", boot_timeout_s=5)
    assert (predicted["plan"], predicted["diff"]) == (real["plan"], real["diff"])
    assert len(predicted["plan"]) == 12 * 2 + 8 * 2 + 4


def test_check_mode_refuses_what_the_run_would_refuse(mixed: Any) -> None:
    assert str(mixed.refused("on", only_plan=True)) == str(mixed.refused("on"))
    mixed.control.set(H100, knobs={"CCM_ALLOW_INB": 0})
    assert type(mixed.refused("on", devices=[H100], only_plan=True)).__name__ == "KnobRefused"


def test_check_mode_puts_a_sleeping_device_back(peculiar: Any) -> None:
    peculiar.change("on", devices=[ASLEEP], only_plan=True)
    assert peculiar.state(ASLEEP)["power"] == "D3hot"


# --- what is told -----------------------------------------------------------------------------------------------------


def test_info(mixed: Any) -> None:
    mixed.control.set(H100, mode="devtools")
    mixed.control.reset_counters()
    devices = mixed.info()
    assert {address: device["mode"] for address, device in devices.items()} == {
        H100: "devtools",
        H200: "off",
        B200: "off",
        RTX: "off",
        A100: "unsupported",
        UNKNOWN: None,
    }
    assert {address: device["chip"] for address, device in devices.items()} == {
        H100: "GH100",
        H200: "GH100",
        B200: "GB100",
        RTX: "GB202",
        A100: "A100",
        UNKNOWN: "",
    }
    assert devices[H100]["knobs"] == {
        "PPCIE": 0,
        "OPTION_2": 0,
        "OPTION_4": 0,
        "OPTION_34": 0,
        "CCD": 1,
        "CCM": 1,
        "BAR0_DECOUPLER": 0,
    }
    assert set(devices[B200]["knobs"]) == {"OPTION_2", "OPTION_4", "CCD", "CCM"}
    assert devices[H200]["module"] == "SXM_1"
    assert devices[UNKNOWN]["problem"]["kind"] == "UnknownDevice"
    assert mixed.state(H200)["power"] == "D3hot"
    assert mixed.touched() == {}


def test_info_of_old_firmware_and_recovery(peculiar: Any) -> None:
    peculiar.control.fault(device=NEW_H, event="connect", action="recovery")
    devices = peculiar.info()
    assert devices[OLD]["firmware_too_old_for_ppcie"]
    assert devices[OLD]["supported_modes"] == ["off", "on", "devtools"]
    assert (devices[NEW_H]["firmware"], devices[NEW_H]["mode"]) == ("recovery", None)
    assert devices[NEW_H]["name"] == "Generic-GH100"


def test_info_of_switches(hgx: Any) -> None:
    hgx.control.set(SWITCHES[0], mode="ppcie")
    devices = hgx.info()
    assert (devices[SWITCHES[0]]["kind"], devices[SWITCHES[0]]["mode"]) == ("nvswitch", "ppcie")
    assert devices[SWITCHES[1]]["supported_modes"] == ["off", "ppcie"]
    assert [device["module"] for device in devices.values() if device["kind"] == "gpu"] == [
        "SXM_%d" % number for number in range(1, 9)
    ]


def test_the_fact_tells_what_was_read_back(mixed: Any, tmp_path: Path) -> None:
    result = mixed.change(modes={H100: "on", B200: "devtools"})
    told = fact.fact(result["devices"], "mode_after")
    assert told == {"mode": "mixed", "gpus": {H100: "on", B200: "devtools"}, "nvswitches": {}}
    fact.keep(str(tmp_path / "confidential_gpu.fact"), told, [H100, B200])
    assert json.loads((tmp_path / "confidential_gpu.fact").read_text()) == told


def test_timings_are_told(h100: Any) -> None:
    seconds = h100.change("on")["devices"][0]["seconds"]
    assert set(seconds) == {"stage", "reset", "boot"}
    assert seconds["reset"] >= 0.1
    assert all(0 <= value < 10 for value in seconds.values())
