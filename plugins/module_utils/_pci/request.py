# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is wanted of PCI functions: which ones, which driver, and what to do about those that are in use."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest
from .bus import parse_address
from .functions import Match
from .plan import BOUND, STATES

REFUSE = "refuse"
WAIT = "wait"


class Request(NamedTuple):
    """What is wanted, of the devices at these addresses or of those that match."""

    devices: Sequence[str] = ()
    match: Optional[Match] = None
    driver: str = "vfio-pci"
    state: str = BOUND
    whole_group: bool = True
    companions: Sequence[str] = ()
    load: bool = False
    busy: str = REFUSE
    busy_timeout_s: float = 300
    timeout_s: float = 10

    def check(self) -> None:
        """Raise InvalidRequest for what cannot be meant."""
        if self.state not in STATES:
            raise InvalidRequest("%r is not a state." % self.state, "Use one of %s." % ", ".join(STATES))
        if not self.driver or "/" in self.driver or self.driver.startswith("."):
            raise InvalidRequest("%r is not a driver's name." % self.driver, "Use a name such as vfio-pci.")
        if self.busy_timeout_s < 0 or self.timeout_s < 0:
            raise InvalidRequest("A time-out is negative.", "Give seconds, 0 or more.")
        for address in self.companions:
            parse_address(address)
