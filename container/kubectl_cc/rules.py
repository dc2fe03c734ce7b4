# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How a rollout is to be done, as the user asks for it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cc_manager.names import MODES

from .names import DRAIN, REFUSE, WAIT, ZONE

BUDGET = re.compile(r"([1-9][0-9]*)(%?)")


class Refused(ValueError):
    """It cannot be done as it was asked for; nothing was touched. The text says why and what to do."""


@dataclass(frozen=True)
class Rules:
    """``canary``: so many nodes go first. ``budget``: so many nodes, or a share, may be out of service at once.

    ``per``: a label; the budget counts for each of its values. ``zone``: a label; the last ready node of a value is
    never taken. ``busy``: what is done about pods that hold GPUs. ``settle_s``: for so long a wave is looked at before
    the next begins. ``gates``: by kind, the digest of what has to succeed on a wave; what it is, is not kept here.
    Times are seconds.
    """

    mode: str
    canary: int = 1
    budget: str = "1"
    per: str = ""
    zone: str = ZONE
    busy: str = REFUSE
    pods_timeout_s: float = 3600.0
    node_timeout_s: float = 900.0
    settle_s: float = 0.0
    gates: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise Refused(f"The mode {self.mode!r} is none. Use one of {', '.join(MODES)}.")
        if self.canary < 1:
            raise Refused(f"A canary of {self.canary} nodes shows nothing. Give 1 or more.")
        share(self.budget, 1)
        if self.busy not in (REFUSE, WAIT, DRAIN):
            raise Refused(f"--busy is {self.busy!r}. Give one of {REFUSE}, {WAIT}, {DRAIN}.")
        if min(self.pods_timeout_s, self.node_timeout_s, self.settle_s) < 0:
            raise Refused("A time is less than 0 s.")

    @property
    def is_gated(self) -> bool:
        """True when a wave has to pass more than that its modes were read back."""
        return bool(self.gates) or self.settle_s > 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Those that matter beside the CC manager's."""
        return tuple(one for one in (self.per, self.zone) if one)


def share(budget: str, size: int) -> int:
    """So many of a number of nodes: '3', or '10%', rounded down, at least one. Raises Refused."""
    found = BUDGET.fullmatch(budget)
    number = int(found[1]) if found else 0
    if found is None or (found[2] and number > 100):
        raise Refused(f"The budget {budget!r} is none. Give a number of nodes, 1 or more, or a share from 1% to 100%.")
    return max(1, size * number // 100) if found[2] else number
