# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How many nodes may be deleted: a proof can be wrong for all nodes at once, and then most of them are to survive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Cap:
    """At most ``share`` of the nodes in ``window_s``, and at least one. For one thread."""

    def __init__(self, share: float, window_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._share = share
        self._window_s = window_s
        self._now = now
        self._deleted: deque[float] = deque()

    def limit(self, nodes: int) -> int:
        """Of so many nodes, those deleted within the window among them."""
        return max(1, int(nodes * self._share))

    def allows(self, nodes: int) -> bool:
        """Whether one more may be deleted while there are ``nodes``."""
        while self._deleted and self._now() - self._deleted[0] >= self._window_s:
            self._deleted.popleft()
        return len(self._deleted) < self.limit(nodes + len(self._deleted))

    def count(self) -> None:
        """One was deleted."""
        self._deleted.append(self._now())
