# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's queries tell and what this collection's information module tells are the same."""

from __future__ import annotations

import pytest
from emulator.models import MODELS
from families import FAMILIES, SUPPORTED, Family
from subject import Subject

WITH_CC = [family.name for family in SUPPORTED if family.has_cc]
WITH_PPCIE = [family.name for family in SUPPORTED if family.has_ppcie]
EVERY_MODE = [(family.name, mode) for family in SUPPORTED for mode in family.modes]


def test_every_model_is_in_a_family() -> None:
    known = {name for name in MODELS if not name.startswith("unknown")}
    assert {model for family in FAMILIES.values() for model in family.models} == known


@pytest.mark.parametrize(("family", "mode"), EVERY_MODE)
def test_the_active_mode_is_read_alike(subject: Subject, mode: str) -> None:
    """--query-cc-mode and --query-ppcie-mode."""
    subject.put(mode)
    assert subject.agreed_modes() == subject.expected(mode)
    assert subject.written() == 0


@pytest.mark.parametrize(("family", "mode"), [(name, mode) for name, mode in EVERY_MODE if name in WITH_CC])
def test_cc_settings_are_read_alike(subject: Subject, mode: str) -> None:
    """--query-cc-settings shows the knobs that the information module shows."""
    subject.put(mode)
    answer = subject.nvidia("--devices", "gpus[0]", "--query-cc-settings")
    assert answer.status == 0, answer.text
    settings, knobs = answer.settings, _first(subject)["knobs"]
    assert [settings["enable"], settings["enable-devtools"]] == [str(knobs["CCM"]), str(knobs["CCD"])]
    if "BAR0_DECOUPLER" in knobs:
        assert settings["enable-bar0-filter"] == str(knobs["BAR0_DECOUPLER"])
    assert subject.written() == 0


@pytest.mark.parametrize(("family", "mode"), [(name, mode) for name, mode in EVERY_MODE if name in WITH_PPCIE])
def test_ppcie_settings_are_read_alike(subject: Subject, mode: str) -> None:
    """--query-ppcie-settings shows the knob that the information module shows."""
    subject.put(mode)
    answer = subject.nvidia("--devices", _one_device(subject.family), "--query-ppcie-settings")
    assert answer.status == 0, answer.text
    assert answer.settings["enable"] == str(_first(subject)["knobs"]["PPCIE"])


@pytest.mark.parametrize("family", [family.name for family in SUPPORTED])
def test_every_knob_is_read_alike(subject: Subject) -> None:
    """--query-prc-knobs agrees on each knob that the information module shows, and with the emulator on all."""
    subject.put(subject.family.modes[-1])
    answer = subject.nvidia("--devices", _one_device(subject.family), "--query-prc-knobs")
    assert answer.status == 0, answer.text
    told = {name.split()[-2]: value for name, value in answer.settings.items()}
    address = next(iter(subject.emulator.control.state()))
    truth = subject.emulator.control.state(address)["knobs"]
    known = {number: value for number, value in told.items() if value != "invalid"}
    assert sorted(known.values()) == sorted(str(value) for value in truth.values())
    for name, value in _first(subject)["knobs"].items():
        number = {"CCD": "6", "CCM": "8", "BAR0_DECOUPLER": "10", "PPCIE": "45"}.get(name, name.rpartition("_")[2])
        assert known[number] == str(value), name


@pytest.mark.parametrize("family", ["h100-pcie", "hgx"])
def test_a_device_is_found_by_its_address(subject: Subject) -> None:
    """--gpu-bdf and an address as --devices select one device."""
    for selector in ("--gpu-bdf", "--devices"):
        answer = subject.nvidia(selector, "17:00.0", "--query-cc-mode")
        assert answer.status == 0, answer.text
        assert answer.text.count("CC mode is off") == 1
    assert subject.nvidia("--gpu-bdf", "77:00.0", "--query-cc-mode").status == 1


def _one_device(family: Family) -> str:
    return "gpus[0]" if family.has_cc else "nvswitches[0]"


def _first(subject: Subject) -> dict[str, dict[str, int]]:
    return next(iter(subject.our_devices().values()))
