# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The families of devices whose modes can be read and set, with a table each. Nothing here reaches a device.

A device whose chip is in none of them is left alone, whatever gpu-admin-tools knows of it. Registers, knobs and the
order in which they are written: NVIDIA gpu-admin-tools, release 2025.11.21.
"""

from __future__ import annotations

from typing import Collection, NamedTuple, Optional

from .mode import BAR0_FILTER_ON, DEVTOOLS, GPU, MODES, NVSWITCH, OFF, ON, PPCIE, Knob


class Firewall(NamedTuple):
    """Blackwell's BAR firewall: a bit that is 1 while it is up, in a vendor-specific extended capability."""

    designated: bool  # a DVSEC (extended capability 0x23), else a VSEC (0xb)
    id: tuple[int, int]  # DVSEC: vendor and id; VSEC: id and revision
    offset: int
    bit: int


class Family(NamedTuple):
    """One family. Registers are offsets in BAR0."""

    architecture: str  # as NVIDIA's tool calls it
    chips: tuple[str, ...]  # none: whatever the tool counts among the architecture
    kind: str
    modes: tuple[str, ...]
    knobs: tuple[Knob, ...]  # what the modes depend on, in the order in which they are read
    optional: frozenset[Knob]  # knobs that its firmware may lack
    cc_register: Optional[int]
    ppcie_register: Optional[int]
    boot_register: int  # 0xff when the firmware has booted
    recovery_register: int
    firewall: Optional[Firewall] = None

    @property
    def mode_register(self) -> int:
        """The register that the active mode is read from."""
        return self.cc_register or self.ppcie_register or 0


HOPPER = Family(
    architecture="hopper",
    chips=("gh100",),
    kind=GPU,
    modes=MODES,
    knobs=(Knob.PPCIE, Knob.OPTION_2, Knob.OPTION_4, Knob.CCD, Knob.CCM, Knob.OPTION_34, Knob.BAR0_DECOUPLER),
    optional=frozenset((Knob.PPCIE,)),
    cc_register=0x1182CC,
    ppcie_register=0x1182CC,
    boot_register=0x200BC,
    recovery_register=0x20120,
)
BLACKWELL_1XX = Family(
    architecture="blackwell",
    chips=("gb100", "gb102", "gb110", "gb112"),
    kind=GPU,
    modes=(OFF, ON, DEVTOOLS),
    knobs=(Knob.OPTION_2, Knob.OPTION_4, Knob.CCD, Knob.CCM),
    optional=frozenset(),
    cc_register=0x590,
    ppcie_register=None,
    boot_register=0x200BC,
    recovery_register=0x8AA128,
    firewall=Firewall(designated=True, id=(0x10DE, 0), offset=0x8, bit=1 << 20),
)
BLACKWELL_2XX = Family(
    architecture="blackwell",
    chips=("gb202", "gb203", "gb205", "gb206", "gb207"),
    kind=GPU,
    modes=(OFF, ON, DEVTOOLS),
    knobs=(Knob.OPTION_2, Knob.OPTION_4, Knob.CCD, Knob.CCM),
    optional=frozenset(),
    cc_register=0x590,
    ppcie_register=None,
    boot_register=0xAD00BC,
    recovery_register=0x8AA128,
    firewall=Firewall(designated=False, id=(0x1, 0x1), offset=0x14, bit=1 << 24),
)
LAGUNA = Family(  # NVSwitch LS10
    architecture="laguna",
    chips=(),
    kind=NVSWITCH,
    modes=(OFF, PPCIE),
    knobs=HOPPER.knobs,
    optional=frozenset(HOPPER.knobs),
    cc_register=None,
    ppcie_register=0x28C50,
    boot_register=0x660BC,
    recovery_register=0x66120,
)
FAMILIES = (HOPPER, BLACKWELL_1XX, BLACKWELL_2XX, LAGUNA)

# Architectures before these: no security processor, so no mode that could be read or set.
WITHOUT_MODES = frozenset(("kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "limerock"))


def find(architecture: str, chip: str) -> Optional[Family]:
    """The family of a chip; None for one that no table is for."""
    for family in FAMILIES:
        if family.architecture == architecture and (not family.chips or chip in family.chips):
            return family
    return None


def is_known(architecture: str, chip: str) -> bool:
    """True for a chip with a table, and for an architecture that is known to have no modes."""
    return architecture in WITHOUT_MODES or find(architecture, chip) is not None


def staging(family: Family, wanted: str) -> tuple[tuple[Knob, int], ...]:
    """Every knob that a mode depends on with its value, in the order in which they must be written.

    CCM goes on before CCD and off after it, so that a device that loses power half-way never comes up with devtools
    but without CC.
    """
    options = ((Knob.OPTION_2, 0), (Knob.OPTION_4, 0), (Knob.OPTION_34, 0))
    values: tuple[tuple[Knob, int], ...]
    bar0_filter = BAR0_FILTER_ON if family.kind == GPU and wanted in (ON, PPCIE) else 0
    if wanted == PPCIE:
        values = (*options, (Knob.CCD, 0), (Knob.CCM, 0), (Knob.BAR0_DECOUPLER, bar0_filter), (Knob.PPCIE, 1))
    elif wanted == OFF:
        values = ((Knob.BAR0_DECOUPLER, 0), (Knob.PPCIE, 0), (Knob.CCD, 0), (Knob.CCM, 0))
    else:
        devtools = 1 if wanted == DEVTOOLS else 0
        values = (*options, (Knob.PPCIE, 0), (Knob.BAR0_DECOUPLER, bar0_filter), (Knob.CCM, 1), (Knob.CCD, devtools))
    return tuple((knob, value) for knob, value in values if knob in family.knobs)


def lacking(family: Family, wanted: str, unknown: Collection[Knob]) -> tuple[Knob, ...]:
    """The knobs that a mode needs among those that the firmware does not know.

    An optional knob that has to be 0 is not needed: firmware without it cannot do what it stands for.
    """
    needed = [knob for knob, value in staging(family, wanted) if value or knob not in family.optional]
    return tuple(knob for knob in needed if knob in unknown)


def supported(family: Family, unknown: Collection[Knob] = ()) -> tuple[str, ...]:
    """The modes that a device can do whose firmware does not know these knobs."""
    return tuple(mode for mode in family.modes if not lacking(family, mode, unknown))
