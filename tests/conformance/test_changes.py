# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""After a change by either side, both tell the same of every device."""

from __future__ import annotations

import itertools

import pytest
from families import CC_MODES, DEVTOOLS, FAMILIES, MODES, OFF, ON, PPCIE, SUPPORTED, Family
from subject import Subject

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange

WITH_CC = [family for family in SUPPORTED if family.has_cc]
WITH_PPCIE = [family for family in SUPPORTED if family.has_ppcie]
# From every mode on one family of each transport; the others enter each mode once.
THOROUGH = ("h100-pcie", "b200")
ENTERED = {(OFF, ON), (ON, OFF), (ON, DEVTOOLS), (DEVTOOLS, PPCIE), (OFF, PPCIE), (PPCIE, OFF)}


def _pairs(families: list[Family], desired_modes: tuple[str, ...]) -> list[tuple[str, str, str]]:
    return [
        (family.name, start, desired)
        for family in families
        for start, desired in itertools.product(family.modes, desired_modes)
        if family.name in THOROUGH or (start, desired) in ENTERED
    ]


# The tool's 'off' of CC is not the end of ppcie: that has a test of its own.
CC_PAIRS = [pair for pair in _pairs(WITH_CC, CC_MODES) if pair[1:] != (PPCIE, OFF)]
PPCIE_PAIRS = _pairs(WITH_PPCIE, (OFF, PPCIE))
OUR_PAIRS = [(name, start, desired) for name, start, desired in _pairs(list(SUPPORTED), MODES) if start != desired]
OUR_PAIRS = [pair for pair in OUR_PAIRS if pair[2] in FAMILIES[pair[0]].modes]


@pytest.mark.parametrize(("family", "start", "desired"), CC_PAIRS)
def test_nvidia_sets_the_cc_mode(subject: Subject, start: str, desired: str) -> None:
    """--set-cc-mode with its reset."""
    subject.put(start)
    answer = subject.nvidia("--devices", "gpus", "--set-cc-mode=%s" % desired, "--reset-after-cc-mode-switch")
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(desired)
    _nothing_is_left_to_do(subject, desired)


@pytest.mark.parametrize("family", ["h100-pcie", "h200"])
def test_nvidias_off_of_cc_leaves_ppcie_without_its_filter(subject: Subject) -> None:
    """The tool's --set-cc-mode=off does not end ppcie, but takes its BAR0 filter away. We see that and mend it."""
    subject.put(PPCIE)
    answer = subject.nvidia("--devices", "gpus", "--set-cc-mode=off", "--reset-after-cc-mode-switch")
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(PPCIE)
    (state,) = subject.emulator.control.state().values()
    assert not state["active_bar0_filter"]
    assert subject.change(PPCIE).is_change
    (state,) = subject.emulator.control.state().values()
    assert state["active_bar0_filter"]


@pytest.mark.parametrize(("family", "start", "desired"), PPCIE_PAIRS)
def test_nvidia_sets_the_ppcie_mode(subject: Subject, start: str, desired: str) -> None:
    """--set-ppcie-mode with its reset. The tool's 'off' is about PPCIe alone: it leaves CC as it is."""
    subject.put(start)
    devices = subject.family.all_devices
    value = ON if desired == PPCIE else OFF
    answer = subject.nvidia("--devices", devices, "--set-ppcie-mode=%s" % value, "--reset-after-ppcie-mode-switch")
    assert answer.status == 0, answer.text
    after = start if desired == OFF and start != PPCIE else desired
    assert subject.agreed_modes() == subject.expected(after)
    if after == desired:
        _nothing_is_left_to_do(subject, after)


@pytest.mark.parametrize(("family", "start", "desired"), OUR_PAIRS)
def test_nvidia_reads_what_we_set(subject: Subject, start: str, desired: str) -> None:
    """After our change, and once more after NVIDIA's tool has read: the second change has nothing to do."""
    subject.put(start)
    assert subject.change(desired).is_change
    assert subject.agreed_modes() == subject.expected(desired)
    assert not subject.change(desired).is_change


@pytest.mark.parametrize("family", [family.name for family in WITH_CC])
def test_nvidias_own_test_of_cc_switching(subject: Subject) -> None:
    """--test-cc-mode-switch: five rounds of all modes with the options of knobs 2, 4 and 34 in the way."""
    answer = subject.nvidia("--devices", "gpus[0]", "--test-cc-mode-switch")
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(OFF)
    assert _resets(subject) == 16


@pytest.mark.parametrize("family", [family.name for family in WITH_PPCIE])
def test_nvidias_own_test_of_ppcie_switching(subject: Subject) -> None:
    """--test-ppcie-mode-switch: five rounds of on and off, on a GPU and on a switch where there are both."""
    devices = subject.family.all_devices.split(",")
    answer = subject.nvidia("--devices", ",".join(kind + "[0]" for kind in devices), "--test-ppcie-mode-switch")
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(OFF)
    assert _resets(subject) == 11 * len(devices)


@pytest.mark.parametrize("way", ["--reset-with-os", "--reset-with-flr"])
@pytest.mark.parametrize("family", [family.name for family in SUPPORTED])
def test_a_reset_by_nvidia_activates_what_we_staged(subject: Subject, way: str) -> None:
    """Knobs written without a reset are pending for us, and active after NVIDIA's reset."""
    desired = PPCIE if subject.family.has_ppcie else ON
    subject.stage(desired)
    staged = subject.our_devices().values()
    assert {entry["mode"] for entry in staged} == {OFF}
    assert {entry["pending_mode"] for entry in staged} == {desired}
    answer = subject.nvidia("--devices", subject.family.all_devices, way)
    assert answer.status == 0, answer.text
    assert subject.agreed_modes() == subject.expected(desired)
    _nothing_is_left_to_do(subject, desired)


def _nothing_is_left_to_do(subject: Subject, mode: str) -> None:
    """What NVIDIA's tool has set is right for us: no knob left to write, no reset pending."""
    change: ModeChange = subject.change(mode)
    assert not change.is_change, change.result()["plan"]
    assert not [entry for entry in subject.our_devices().values() if entry["reset_pending"] or entry["problem"]]


def _resets(subject: Subject) -> int:
    return sum(state["counters"]["resets"] for state in subject.emulator.control.state().values())
