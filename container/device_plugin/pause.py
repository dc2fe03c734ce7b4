# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the same is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.05
LONGEST_S = 5.0


class Pause:
    """Doubled each time, up to a few seconds. Two plugins that disturb each other do not stay in step."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._times = 0

    def reset(self) -> None:
        """It worked, or everything is different now."""
        self._times = 0

    def next_s(self) -> float:
        """Seconds."""
        self._times += 1
        whole = min(LONGEST_S, FIRST_S * 2.0 ** min(self._times - 1, 20))
        return whole * (0.75 + 0.25 * self._chance())
