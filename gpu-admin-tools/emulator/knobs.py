# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The product reconfiguration (PRC) knobs: the pending mode of a device, kept across resets and power loss.

A knob is written in band through the FSP and takes effect at the next reset. Every knob has a partner, one id below
it, that says whether the host may change it in band; the partners themselves can only be changed out of band.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

KNOB_2 = 2
KNOB_4 = 4
CCD = 6
CCM = 8
BAR0_DECOUPLER = 10
KNOB_34 = 34
PPCIE = 45

NAMES: dict[int, str] = {
    1: "1",
    2: "2",
    3: "3",
    4: "4",
    5: "CCD_ALLOW_INB",
    6: "CCD",
    7: "CCM_ALLOW_INB",
    8: "CCM",
    9: "BAR0_DECOUPLER_ALLOW_INB",
    10: "BAR0_DECOUPLER",
    33: "33",
    34: "34",
    35: "FORCE_RESET_COUPLING_ALLOW_INB",
    36: "FORCE_RESET_COUPLING",
    44: "PPCIE_ALLOW_INB",
    45: "PPCIE",
    46: "CECA_ALLOW_INB",
    47: "CECA",
}
IDS: dict[str, int] = {name: number for number, name in NAMES.items()}
ALLOW_IN_BAND: frozenset[int] = frozenset({1, 3, 5, 7, 9, 33, 35, 44, 46})
# Knobs that must be 0 for CC or PPCIe to come up.
BLOCKERS = (KNOB_2, KNOB_4, KNOB_34)

# BAR0_DECOUPLER: the value that filters BAR0 while CC is on.
DECOUPLER_ON = 2


def number_of(name: object) -> int | None:
    """The id of a knob given by name or number, None if there is no such knob."""
    if isinstance(name, int) and not isinstance(name, bool):
        return name if name in NAMES else None
    return IDS.get(str(name).upper())


class KnobStore:
    """The persistent part of one device; tells its owner of every change so that it can be saved."""

    def __init__(self, present: frozenset[int], initial: Mapping[int, int]) -> None:
        self._present = present
        self._initial = dict(initial)
        self._values: dict[int, int] = {}
        self.on_change: Callable[[], None] = lambda: None
        self._load(self._initial)

    def __contains__(self, knob: int) -> bool:
        return knob in self._present

    def __getitem__(self, knob: int) -> int:
        return self._values.get(knob, 0)

    def _load(self, values: Mapping[int, int]) -> None:
        self._values = {knob: int(knob in ALLOW_IN_BAND) for knob in self._present}
        self._values.update({knob: value & 0xFFFF for knob, value in values.items() if knob in self._present})

    def is_locked(self, knob: int) -> bool:
        """An allow-in-band knob, or a knob whose partner forbids the change."""
        return knob in ALLOW_IN_BAND or self._values.get(knob - 1, 1) == 0

    def store(self, values: Mapping[int, int]) -> None:
        """Write knobs, as the firmware or somebody out of band does."""
        self._values.update({knob: value & 0xFFFF for knob, value in values.items() if knob in self._present})
        self.on_change()

    def restore(self) -> None:
        """Back to the values of the node description."""
        self._load(self._initial)
        self.on_change()

    def load_named(self, values: Mapping[str, int]) -> None:
        """Take over saved values; names unknown to this device are ignored."""
        self._values.update({IDS[n]: int(v) & 0xFFFF for n, v in values.items() if IDS.get(n) in self._present})

    def named(self) -> dict[str, int]:
        """Values by name, for the state file and the control socket."""
        return {NAMES[knob]: value for knob, value in sorted(self._values.items())}
