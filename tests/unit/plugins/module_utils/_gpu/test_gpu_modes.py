# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Modes: what registers and knobs mean, and what each mode needs."""

from __future__ import annotations

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu import families, mode
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import (
    BLACKWELL_1XX,
    BLACKWELL_2XX,
    FAMILIES,
    HOPPER,
    LAGUNA,
    Family,
    staging,
    supported,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.mode import Knob

EVERY_MODE = [(family, wanted) for family in FAMILIES for wanted in family.modes]


@pytest.mark.parametrize(
    ("architecture", "chip", "family"),
    [
        ("hopper", "gh100", HOPPER),
        ("blackwell", "gb100", BLACKWELL_1XX),
        ("blackwell", "gb112", BLACKWELL_1XX),
        ("blackwell", "gb202", BLACKWELL_2XX),
        ("blackwell", "gb207", BLACKWELL_2XX),
        ("laguna", "", LAGUNA),
        ("ampere", "", None),
        ("rubin", "gr100", None),
        ("blackwell", "gb300", None),
        ("hopper", "gh200", None),
        ("blackwell", "", None),
        ("unknown", "unknown", None),
    ],
)
def test_a_chip_has_a_family_or_none(architecture: str, chip: str, family: Family | None) -> None:
    assert families.find(architecture, chip) is family
    assert families.is_known(architecture, chip) == (family is not None or architecture == "ampere")


@pytest.mark.parametrize(
    ("family", "unknown", "modes"),
    [
        (HOPPER, (), ("off", "on", "devtools", "ppcie")),
        (HOPPER, (Knob.PPCIE,), ("off", "on", "devtools")),
        (HOPPER, (Knob.OPTION_34,), ("off",)),
        (HOPPER, (Knob.OPTION_2, Knob.PPCIE), ("off",)),
        (HOPPER, (Knob.CCD,), ()),
        (HOPPER, (Knob.CCM,), ()),
        (HOPPER, (Knob.BAR0_DECOUPLER,), ()),
        (BLACKWELL_1XX, (), ("off", "on", "devtools")),
        (BLACKWELL_2XX, (Knob.OPTION_4,), ("off",)),
        (BLACKWELL_2XX, (Knob.CCM,), ()),
        (LAGUNA, (), ("off", "ppcie")),
        (LAGUNA, (Knob.OPTION_2, Knob.OPTION_4, Knob.OPTION_34, Knob.CCD, Knob.CCM), ("off", "ppcie")),
        (LAGUNA, (Knob.PPCIE,), ("off",)),
    ],
)
def test_a_mode_is_supported_when_the_firmware_knows_its_knobs(
    family: Family, unknown: tuple[Knob, ...], modes: tuple[str, ...]
) -> None:
    assert supported(family, unknown) == modes


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
    assert set(HOPPER.knobs) == set(LAGUNA.knobs) == set(Knob)
    for family in (BLACKWELL_1XX, BLACKWELL_2XX):
        assert set(family.knobs) == {Knob.OPTION_2, Knob.OPTION_4, Knob.CCD, Knob.CCM}


@pytest.mark.parametrize(
    ("family", "wanted", "bar0_filter"),
    [
        (HOPPER, "on", 2),
        (HOPPER, "devtools", 0),
        (HOPPER, "off", 0),
        (HOPPER, "ppcie", 2),
        (LAGUNA, "ppcie", 0),
        (LAGUNA, "off", 0),
    ],
)
def test_the_bar0_filter_is_for_gpus_in_production(family: Family, wanted: str, bar0_filter: int) -> None:
    assert dict(staging(family, wanted))[Knob.BAR0_DECOUPLER] == bar0_filter


@pytest.mark.parametrize("wanted", ["on", "devtools", "ppcie"])
def test_protection_needs_the_unnamed_options_to_be_off_first(wanted: str) -> None:
    order = [knob for knob, _value in staging(HOPPER, wanted)]
    assert order[:3] == [Knob.OPTION_2, Knob.OPTION_4, Knob.OPTION_34]
    assert {value for knob, value in staging(HOPPER, wanted)[:3]} == {0}


@pytest.mark.parametrize(("family", "wanted"), EVERY_MODE)
def test_what_is_staged_leads_to_the_mode_with_the_familys_knobs(family: Family, wanted: str) -> None:
    assert mode.pending(dict(staging(family, wanted))) == wanted
    assert {knob for knob, _value in staging(family, wanted)} <= set(family.knobs)
