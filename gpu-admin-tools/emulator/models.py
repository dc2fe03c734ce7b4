# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What distinguishes one chip and one product from another, as data; a new product is a new line here.

Sources: device and subsystem ids as NVIDIA's gpu-admin-tools 2025.11.21 knows them, `NV_PMC_BOOT_0` values from the
same place and from NVIDIA's open kernel modules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from . import knobs

MIB = 1 << 20
# The first virtual function's routing id is that of its physical function and 4, as on NVIDIA's data-centre GPUs.
VF_OFFSET, VF_STRIDE = 4, 1
CLASS_VGA = 0x030000
CLASS_3D = 0x030200
CLASS_SWITCH = 0x068000


class Family(Enum):
    """Chips that answer alike."""

    HOPPER = "hopper"
    BLACKWELL_1XX = "blackwell-1xx"
    BLACKWELL_2XX = "blackwell-2xx"
    LS10 = "ls10"
    AMPERE = "ampere"
    UNKNOWN = "unknown"
    VIRTUAL = "virtual function"

    @property
    def is_blackwell(self) -> bool:
        """Either Blackwell line: MNOC transport, BAR firewall, no PPCIe."""
        return self in (Family.BLACKWELL_1XX, Family.BLACKWELL_2XX)

    @property
    def has_fsp(self) -> bool:
        """Has knobs at all."""
        return self.is_blackwell or self in (Family.HOPPER, Family.LS10)

    @property
    def has_cc(self) -> bool:
        """Has a CC mode of its own; a switch only carries the knobs."""
        return self.is_blackwell or self is Family.HOPPER

    @property
    def has_ppcie(self) -> bool:
        """Has protected PCIe."""
        return self in (Family.HOPPER, Family.LS10)

    @property
    def knob_ids(self) -> frozenset[int]:
        """The knobs that exist.

        Blackwell has no PPCIe. A switch has no CECA, yet knows CCM, CCD and BAR0_DECOUPLER: NVIDIA's tool reads them
        there before it touches PPCIE. 33 and 34 are readable on every family, because its self tests read them.
        """
        if not self.has_fsp:
            return frozenset()
        missing = {Family.HOPPER: set(), Family.LS10: {46, 47}}.get(self, {44, 45})
        return frozenset(knobs.NAMES) - missing


@dataclass(frozen=True, slots=True)
class Model:
    """A product's identity in config space and in `NV_PMC_BOOT_0`."""

    family: Family
    device_id: int
    subsystem_id: int
    boot_0: int
    class_code: int = CLASS_3D
    bar0_mib: int = 16
    nvlinks: int = 0
    sxm: bool = False
    # Boards whose module straps are wired with the highest bit inverted.
    strap_flip: int = 0


MODELS: dict[str, Model] = {
    "h100-sxm": Model(Family.HOPPER, 0x2330, 0x16C1, 0x180000A1, nvlinks=18, sxm=True, strap_flip=4),
    "h100-pcie": Model(Family.HOPPER, 0x2331, 0x1626, 0x180000A1, nvlinks=18),
    "h200": Model(Family.HOPPER, 0x2335, 0x18BE, 0x180000A1, nvlinks=18, sxm=True, strap_flip=4),
    "b200": Model(Family.BLACKWELL_1XX, 0x2901, 0x1999, 0x1A0000A1, nvlinks=18, sxm=True),
    "rtx-pro-6000": Model(Family.BLACKWELL_2XX, 0x2BB1, 0x204B, 0x1B2000A1, class_code=CLASS_VGA),
    "nvswitch-ls10": Model(Family.LS10, 0x22A3, 0x1796, 0x007000A1, class_code=CLASS_SWITCH, bar0_mib=32, nvlinks=64),
    "a100": Model(Family.AMPERE, 0x20B5, 0x1533, 0x170000A1),
    # An id and a BOOT_0 that no release of the tool knows: it must report the device, not crash.
    "unknown": Model(Family.UNKNOWN, 0x3FFE, 0x0000, 0x1F0000A1),
    "unknown-nvswitch": Model(Family.UNKNOWN, 0x3FFD, 0x0000, 0x00F000A1, class_code=CLASS_SWITCH, bar0_mib=32),
}


def virtual_function(physical: Model) -> Model:
    """What a virtual function of a product is: a 3D controller without firmware of its own."""
    return replace(physical, family=Family.VIRTUAL, class_code=CLASS_3D, nvlinks=0, sxm=False, bar0_mib=16)
