# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Modes: what registers and knobs mean, and what each mode needs."""

from __future__ import annotations

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu import mode
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.mode import Knob, Traits

H100 = Traits("gpu", "hopper", True, True)
OLD_H100 = Traits("gpu", "hopper", True, False)
B200 = Traits("gpu", "blackwell", True, False)
LS10 = Traits("nvswitch", "laguna", False, True)
LR10 = Traits("nvswitch", "limerock", False, False)
OLD_LS10 = Traits("nvswitch", "laguna", False, False)
A100 = Traits("gpu", "ampere", False, False)


@pytest.mark.parametrize(
    ("traits", "modes"),
    [
        (H100, ("off", "on", "devtools", "ppcie")),
        (OLD_H100, ("off", "on", "devtools")),
        (B200, ("off", "on", "devtools")),
        (LS10, ("off", "ppcie")),
        (OLD_LS10, ("off",)),
        (LR10, ()),
        (A100, ()),
    ],
)
def test_supported(traits: Traits, modes: tuple[str, ...]) -> None:
    assert mode.supported(traits) == modes


@pytest.mark.parametrize(
    ("cc", "ppcie", "name"),
    [
        ("off", False, "off"),
        ("on", False, "on"),
        ("devtools", False, "devtools"),
        ("invalid", False, "invalid"),
        ("off", True, "ppcie"),
        (None, True, "ppcie"),
        (None, False, "off"),
        ("on", True, "invalid"),
        ("devtools", True, "invalid"),
        ("invalid", True, "invalid"),
    ],
)
def test_active(cc: str | None, ppcie: bool, name: str) -> None:
    assert mode.active(cc, ppcie) == name


@pytest.mark.parametrize(
    ("ccm", "ccd", "ppcie", "name"),
    [
        (0, 0, 0, "off"),
        (1, 0, 0, "on"),
        (1, 1, 0, "devtools"),
        (0, 1, 0, "invalid"),
        (0, 0, 1, "ppcie"),
        (1, 0, 1, "invalid"),
        (0, 1, 1, "invalid"),
        (1, 1, 1, "invalid"),
    ],
)
def test_pending(ccm: int, ccd: int, ppcie: int, name: str) -> None:
    assert mode.pending({Knob.CCM: ccm, Knob.CCD: ccd, Knob.PPCIE: ppcie}) == name


def test_pending_without_knobs_is_off() -> None:
    assert mode.pending({}) == "off"


@pytest.mark.parametrize(
    ("knob", "number"),
    [
        ("OPTION_2", 2),
        ("OPTION_4", 4),
        ("CCD", 6),
        ("CCM", 8),
        ("BAR0_DECOUPLER", 10),
        ("OPTION_34", 34),
        ("PPCIE", 45),
    ],
)
def test_knob_numbers_and_their_permissions(knob: str, number: int) -> None:
    assert Knob[knob] == number
    assert Knob[knob].allow_in_band == number - 1


def test_blackwell_has_no_ppcie_no_34_and_no_decoupler() -> None:
    assert set(mode.knobs_to_read(H100)) == set(Knob)
    assert set(mode.knobs_to_read(LS10)) == set(Knob)
    assert set(mode.knobs_to_read(B200)) == {Knob.OPTION_2, Knob.OPTION_4, Knob.CCD, Knob.CCM}


@pytest.mark.parametrize(
    ("traits", "wanted", "bar0_filter"),
    [
        (H100, "on", 2),
        (H100, "devtools", 0),
        (H100, "off", 0),
        (H100, "ppcie", 2),
        (LS10, "ppcie", 0),
        (LS10, "off", 0),
    ],
)
def test_the_bar0_filter_is_for_gpus_in_production(traits: Traits, wanted: str, bar0_filter: int) -> None:
    assert dict(mode.staging(traits, wanted))[Knob.BAR0_DECOUPLER] == bar0_filter


@pytest.mark.parametrize("wanted", ["on", "devtools", "ppcie"])
def test_protection_needs_the_unnamed_options_to_be_off_first(wanted: str) -> None:
    order = [knob for knob, _value in mode.staging(H100, wanted)]
    assert order[:3] == [Knob.OPTION_2, Knob.OPTION_4, Knob.OPTION_34]
    assert {value for knob, value in mode.staging(H100, wanted)[:3]} == {0}


@pytest.mark.parametrize("wanted", mode.MODES)
def test_what_is_staged_leads_to_the_mode(wanted: str) -> None:
    assert mode.pending(dict(mode.staging(H100, wanted))) == wanted
