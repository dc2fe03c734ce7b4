# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The families of devices that NVIDIA's tool is run on, and what its commands are called in the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OFF, ON, DEVTOOLS, PPCIE = "off", "on", "devtools", "ppcie"
CC_MODES = (OFF, ON, DEVTOOLS)
MODES = (*CC_MODES, PPCIE)
# Seconds for the emulator: what is compared here is not time.
FAST: dict[str, Any] = {"boot_s": 0.05, "flr_s": 0.01}


@dataclass(frozen=True)
class Family:
    """A node of one kind of device, and which modes those have."""

    name: str
    models: tuple[str, ...]
    has_cc: bool = False
    has_ppcie: bool = False
    old_firmware: bool = False
    has_flr: bool = True

    def node(self) -> dict[str, Any]:
        """The description that the emulator is started with."""
        options: dict[str, Any] = {"firmware": "old" if self.old_firmware else "current", "flr": self.has_flr}
        devices = [
            {"address": "0000:%02x:00.0" % (0x17 + index), "model": model, **options}
            for index, model in enumerate(self.models)
        ]
        return {"name": self.name, "devices": devices}

    @property
    def modes(self) -> tuple[str, ...]:
        """What the family can be set to."""
        return (*(CC_MODES if self.has_cc else (OFF,)), *((PPCIE,) if self.has_ppcie else ()))

    @property
    def has_switches(self) -> bool:
        """True when a part of the node, or all of it, are NVSwitches."""
        return any("nvswitch" in model for model in self.models)

    @property
    def all_devices(self) -> str:
        """The tool's selector of every device."""
        gpus = any("nvswitch" not in model for model in self.models)
        return ",".join(["gpus"] * gpus + ["nvswitches"] * self.has_switches)

    def expected(self, model: str, mode: str) -> str:
        """The mode of one device of the node in this mode: a switch has no CC."""
        return mode if "nvswitch" not in model or mode == PPCIE else OFF


SUPPORTED = (
    Family("h100-pcie", ("h100-pcie",), has_cc=True, has_ppcie=True),
    Family("h200", ("h200",), has_cc=True, has_ppcie=True),
    Family("b200", ("b200",), has_cc=True),
    Family("rtx-pro-6000", ("rtx-pro-6000",), has_cc=True),
    Family("ls10", ("nvswitch-ls10",), has_ppcie=True),
    Family("hgx", ("h100-sxm",) * 8 + ("nvswitch-ls10",) * 4, has_cc=True, has_ppcie=True),
)
A100 = Family("a100", ("a100",))
OLD_H100 = Family("h100-old", ("h100-pcie",), has_cc=True, old_firmware=True, has_flr=False)
FAMILIES = {family.name: family for family in (*SUPPORTED, A100, OLD_H100)}
