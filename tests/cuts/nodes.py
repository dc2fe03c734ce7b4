# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The nodes whose changes are cut, the changes, and what must be true of a device afterwards."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

OFF, ON, DEVTOOLS, PPCIE = "off", "on", "devtools", "ppcie"
# Starts in which the mode's BAR0 filter is missing: only the knob shows it, until it is written.
BARE = {"on-bare": ON, "ppcie-bare": PPCIE}
KILL, POWER = "kill", "power"
# What the emulator calls them.
ACTIONS = {KILL: "kill_client", POWER: "power_cut"}
GPU, SWITCH = "h100-sxm", "nvswitch-ls10"


@dataclass(frozen=True)
class Node:
    """A node and the changes between which modes are cut on it."""

    name: str
    models: dict[str, str]
    changes: tuple[tuple[str, str], ...]

    def description(self) -> dict[str, Any]:
        """What the emulator is started with."""
        devices = [{"address": address, "model": model} for address, model in self.models.items()]
        return {"name": self.name, "devices": devices}

    def expected(self, mode: str) -> dict[str, str]:
        """Address to mode when this mode is wanted of the node: a switch has no CC."""
        mode = BARE.get(mode, mode)
        return {address: mode if model == GPU or mode == PPCIE else OFF for address, model in self.models.items()}

    def chosen(self, start: str | None, desired: str | None) -> list[tuple[str, str]]:
        """The changes between these modes; None stands for any."""
        return [pair for pair in self.changes if start in (None, pair[0]) and desired in (None, pair[1])]


ONE = Node(
    "one-h100",
    {"0000:17:00.0": GPU},
    (*itertools.permutations((OFF, ON, DEVTOOLS, PPCIE), 2), *BARE.items()),
)
FABRIC = Node(
    "two-h100-one-switch",
    {"0000:17:00.0": GPU, "0000:3b:00.0": GPU, "0000:07:00.0": SWITCH},
    ((OFF, PPCIE), (PPCIE, OFF), (ON, PPCIE), (PPCIE, ON)),
)
NODES = {node.name: node for node in (ONE, FABRIC)}


@dataclass(frozen=True)
class Cut:
    """One cut: in the change from start to request, at one device's at-th write."""

    node: str
    start: str
    desired: str
    how: str
    device: str
    at: int

    @property
    def change(self) -> tuple[str, str, str, str]:
        """What cuts are counted by."""
        return self.node, self.start, self.desired, self.how

    def command(self) -> str:
        """What repeats just this one."""
        return "python tests/cuts/run.py --node %s --from %s --to %s --cut %s --device %s --at %d" % (
            self.node,
            self.start,
            self.desired,
            self.how,
            self.device,
            self.at,
        )


def knobs(model: str, mode: str) -> dict[str, int]:
    """The knobs with which the next reset keeps a device in this mode."""
    filtered = model == GPU and mode in (ON, PPCIE)
    return {
        "2": 0,
        "4": 0,
        "34": 0,
        "CCM": int(mode in (ON, DEVTOOLS)),
        "CCD": int(mode == DEVTOOLS),
        "BAR0_DECOUPLER": 2 if filtered else 0,
        "PPCIE": int(mode == PPCIE),
    }


def contradiction(stored: dict[str, int]) -> str:
    """What of these knobs no reset may ever find, or nothing."""
    if stored["CCD"] and not stored["CCM"]:
        return "devtools without CC"
    if stored["PPCIE"] and (stored["CCM"] or stored["CCD"]):
        return "PPCIe together with CC"
    return ""
