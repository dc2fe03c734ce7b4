# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The description of one device, checked and complete: what the node file says over what the model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .models import MODELS, Model


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds; defaults as measured or documented for hardware."""

    # PCI Express allows 100 ms before config space has to answer again.
    flr_s: float = 0.1
    # Public logs show 1.7-1.8 s from reset to usable on an H100.
    boot_s: float = 2.0
    rpc_s: float = 0.002
    # How long a Blackwell device keeps its BAR firewall up once config space answers.
    firewall_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One device of a node."""

    address: str
    model: str = "h100-sxm"
    index: int = 0
    device_id: int = 0
    subsystem_id: int = 0
    boot_0: int = 0
    bar1_mib: int = 256
    module_id: int = 0
    pdi: int = 0
    old_firmware: bool = False
    flr: bool = True
    memory_decode: bool = True
    d3hot: bool = False
    recovery: bool = False
    knobs: Mapping[int, int] = field(default_factory=dict)
    timing: Timing = Timing()

    @property
    def product(self) -> Model:
        """The model's fixed properties."""
        return MODELS[self.model]
