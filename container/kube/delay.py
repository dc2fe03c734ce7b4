# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the same is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.5
LONGEST_S = 30.0


class Delay:
    """Seconds to wait after each failure in a row: doubled each time, and half of it random.

    So those that met one failure at one moment do not come back at one moment. ``chance``: from 0 to 1.
    """

    def __init__(
        self, first_s: float = FIRST_S, longest_s: float = LONGEST_S, chance: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._chance = chance
        self._failures = 0

    def reset(self) -> None:
        """After a success."""
        self._failures = 0

    def next(self) -> float:
        """After a failure."""
        whole = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return whole * (0.5 + 0.5 * self._chance())
