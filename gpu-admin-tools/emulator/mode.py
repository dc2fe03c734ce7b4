# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""How the active mode follows from the knobs, and where each family shows it.

The knobs are the pending mode; a reset latches them. PPCIe wins over CC, as the two exclude each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import knobs, registers
from .knobs import KnobStore
from .models import Family

CC_BITS = {"off": 0, "on": 1, "invalid": 2, "devtools": 3}
MODES = (*CC_BITS, "ppcie")


@dataclass(frozen=True, slots=True)
class ActiveMode:
    """The mode a device runs in: CC bits as the register shows them, PPCIe, and the BAR0 filter."""

    cc: int = 0
    ppcie: bool = False
    bar0_filter: bool = False

    @classmethod
    def latched(cls, family: Family, store: KnobStore) -> ActiveMode:
        """What a reset makes of the knobs.

        Knobs 2, 4 and (Hopper, LS10) 34 must be 0 for CC and PPCIe: with one of them set the device comes up with
        both off here. What hardware does then is not public; this is the choice that shows a client's omission.
        """
        blockers = knobs.BLOCKERS if family.has_ppcie else knobs.BLOCKERS[:2]
        bar0_filter = store[knobs.BAR0_DECOUPLER] == knobs.DECOUPLER_ON
        if any(store[knob] for knob in blockers):
            return cls(0, False, bar0_filter)
        ppcie = family.has_ppcie and store[knobs.PPCIE] == 1
        cc = (store[knobs.CCM] & 1) | (store[knobs.CCD] & 1) << 1
        return cls(0 if ppcie or not family.has_cc else cc, ppcie, bar0_filter)

    @classmethod
    def named(cls, family: Family, name: str) -> ActiveMode:
        """The state of a device in which this mode was set properly."""
        filtered = family.has_cc and (name == "on" or name == "ppcie") and family is Family.HOPPER
        if name == "ppcie":
            return cls(0, family.has_ppcie, filtered)
        return cls(CC_BITS[name] if family.has_cc else 0, False, filtered)

    @classmethod
    def shown(cls, family: Family, word: int, bar0_filter: bool = False) -> ActiveMode:
        """The state that the register of a family shows; the filter, which is not in every one, may be given."""
        if family is Family.LS10:
            return cls(0, bool(registers.LS10_MODE_PPCIE.get(word)), bar0_filter)
        if family is Family.HOPPER:
            ppcie = bool(registers.HOPPER_MODE_PPCIE.get(word))
            return cls(registers.HOPPER_MODE_CC.get(word), ppcie, bar0_filter)
        filtered = bool(registers.BLACKWELL_MODE_BAR0_FILTER.get(word))
        return cls(registers.BLACKWELL_MODE_CC.get(word), False, filtered)

    @staticmethod
    def mask(family: Family) -> int:
        """The bits of a family's register that show it."""
        if family is Family.LS10:
            return registers.LS10_MODE_PPCIE.mask
        if family is Family.HOPPER:
            return registers.HOPPER_MODE_CC.mask | registers.HOPPER_MODE_PPCIE.mask
        return registers.BLACKWELL_MODE_CC.mask | registers.BLACKWELL_MODE_BAR0_FILTER.mask

    @property
    def name(self) -> str:
        """One word for it."""
        if self.ppcie:
            return "ppcie"
        return next(name for name, bits in CC_BITS.items() if bits == self.cc)

    def register(self, family: Family) -> tuple[int, int] | None:
        """Offset and value of the register that shows it."""
        if family is Family.HOPPER:
            word = registers.HOPPER_MODE_CC.put(self.cc) | registers.HOPPER_MODE_PPCIE.put(self.ppcie)
            return registers.HOPPER_MODE, word
        if family is Family.LS10:
            return registers.LS10_MODE, registers.LS10_MODE_PPCIE.put(self.ppcie)
        if family.is_blackwell:
            word = registers.BLACKWELL_MODE_CC.put(self.cc)
            return registers.BLACKWELL_MODE, word | registers.BLACKWELL_MODE_BAR0_FILTER.put(self.bar0_filter)
        return None


def knobs_for(family: Family, name: str) -> dict[int, int]:
    """The knobs with which the next reset leads to this mode."""
    filtered = ActiveMode.named(family, name).bar0_filter
    return {
        knobs.KNOB_2: 0,
        knobs.KNOB_4: 0,
        knobs.KNOB_34: 0,
        knobs.CCM: int(name in ("on", "devtools")),
        knobs.CCD: int(name in ("devtools", "invalid")),
        knobs.PPCIE: int(name == "ppcie"),
        knobs.BAR0_DECOUPLER: knobs.DECOUPLER_ON if filtered else 0,
    }
