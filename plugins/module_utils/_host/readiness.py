# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything that a host needs for confidential GPUs, looked at and not changed."""

from __future__ import annotations

from typing import Any, Optional, Sequence

from .._core.wait import SYSTEM_CLOCK, Clock
from .._pci.bus import Bus
from . import system
from .gpus import Gpus
from .requirement import MISSING, OK, UNKNOWN


def check(
    bus: Bus,
    addresses: Sequence[str] = (),
    mode: Optional[str] = None,
    tools_path: Optional[str] = None,
    root: str = "/",
    boot_timeout_s: float = 30,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any]:
    """``requirements``, ``ready``, ``missing`` and ``unknown`` as plain data. Raises InvalidRequest, NotPermitted."""
    gpus = Gpus(bus, addresses, tools_path, root, boot_timeout_s, clock)
    found = [*system.requirements(system.System.read(root)), *gpus.requirements(mode)]
    return {
        "requirements": [one._asdict() for one in found],
        "ready": all(one.state == OK for one in found),
        MISSING: [one.requirement for one in found if one.state == MISSING],
        UNKNOWN: [one.requirement for one in found if one.state == UNKNOWN],
    }
