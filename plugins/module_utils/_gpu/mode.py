# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The mode of a device, which is one thing: off, on, devtools or ppcie, read from CC and PPCIe together.

The active mode is what registers say; the pending one is what the knobs make active at the next reset. Knob numbers:
NVIDIA gpu-admin-tools, release 2025.11.21.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Mapping, Optional

OFF = "off"
ON = "on"
DEVTOOLS = "devtools"
PPCIE = "ppcie"
MODES = (OFF, ON, DEVTOOLS, PPCIE)

# Findings, never requests.
INVALID = "invalid"  # devtools without CC, or CC and PPCIe together
UNSUPPORTED = "unsupported"

GPU = "gpu"
NVSWITCH = "nvswitch"


class Knob(IntEnum):
    """Persistent settings of a device's firmware (product reconfiguration) that take effect at the next reset."""

    OPTION_2 = 2
    OPTION_4 = 4
    CCD = 6  # devtools
    CCM = 8  # confidential computing
    BAR0_DECOUPLER = 10  # BAR0 filter: 2 on, 0 off
    OPTION_34 = 34
    PPCIE = 45  # protected PCIe

    @property
    def allow_in_band(self) -> int:
        """The number of the knob that says whether the host may change this one."""
        return int(self) - 1


BAR0_FILTER_ON = 2

# Knobs whose value in force no register shows: while they are wrong in a protected mode, only a reset makes sure.
UNSEEN_IN_FORCE = frozenset((Knob.OPTION_2, Knob.OPTION_4, Knob.OPTION_34, Knob.BAR0_DECOUPLER))


def active(cc: Optional[str], ppcie: bool) -> str:
    """The mode of a device whose registers give this CC mode (None: it has no CC) and this PPCIe state."""
    if ppcie:
        return PPCIE if cc in (None, OFF) else INVALID
    return cc or OFF


def pending(knobs: Mapping[Knob, int]) -> str:
    """The mode that the next reset makes active."""
    cc, devtools, ppcie = (knobs.get(knob, 0) == 1 for knob in (Knob.CCM, Knob.CCD, Knob.PPCIE))
    if ppcie:
        return INVALID if cc or devtools else PPCIE
    if devtools:
        return DEVTOOLS if cc else INVALID
    return ON if cc else OFF
