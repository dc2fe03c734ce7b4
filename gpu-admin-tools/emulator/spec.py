# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The description of one device, checked and complete: what the node file says over what the model says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .models import CLASS_SWITCH, MODELS, Model, virtual_function
from .recording import Recording

POWER_STATES = ("d0", "d3hot", "d3cold")
# The value that says "retry" (as root ports do), all ones (those that do not), or config space itself, at once.
DURING_RESET = ("crs", "ones", "data")


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
    power: str = "d0"
    no_soft_reset: bool = True
    # What config space reads during a reset: one of `DURING_RESET`.
    during_reset: str = "crs"
    unassigned_bars: frozenset[int] = frozenset()
    unknown_knobs: frozenset[int] = frozenset()
    recovery: bool = False
    virtual_functions: int = 0
    # Of a virtual function: the address of the function whose it is.
    physical_function: str | None = None
    knobs: Mapping[int, int] = field(default_factory=dict)
    timing: Timing = Timing()
    # A device as it was recorded, instead of a model.
    recording: Recording | None = None

    @property
    def product(self) -> Model:
        """The fixed properties of the model, or of what was recorded."""
        if self.recording is not None:
            return self.recording.product
        model = MODELS[self.model]
        return model if self.physical_function is None else virtual_function(model)

    @property
    def is_gpu(self) -> bool:
        """Not a switch."""
        return self.product.class_code != CLASS_SWITCH
