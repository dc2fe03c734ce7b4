# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the probes ask for: whether a process with a main loop and watches works, and whether it does what it is for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

# One step of the main loop is a few requests; longer than this, and it hangs.
STUCK_S = 120.0
# A watch that hears nothing is begun again after a minute and a half; what it knows by then is old.
STALE_S = 180.0


class Watched(Protocol):
    """A watch; see watch.Watch."""

    @property
    def heard_at(self) -> float: ...

    @property
    def has_ended(self) -> bool: ...

    @property
    def is_alive(self) -> bool: ...


class Health:
    """Written by the main loop, read by the server's threads. ``essential``: watches whose silence is not ready."""

    def __init__(self, essential: Sequence[str] = (), now: Callable[[], float] = time.monotonic) -> None:
        self._essential = essential
        self._now = now
        self._busy_since: float | None = None
        self._watches: dict[str, Watched] = {}
        self.ready = False

    def busy(self) -> None:
        """The main loop works."""
        self._busy_since = self._now()

    def idle(self) -> None:
        """The main loop waits."""
        self._busy_since = None

    def follow(self, name: str, watch: Watched) -> None:
        """Answer for this watch from now on, instead of the one that had the name."""
        self._watches = {**self._watches, name: watch}

    def silence_s(self, name: str) -> float:
        """Seconds since a watch last heard anything; 0 of one that has ended or was never begun."""
        watch = self._watches.get(name)
        return 0.0 if watch is None or watch.has_ended else max(0.0, self._now() - watch.heard_at)

    @property
    def is_alive(self) -> bool:
        """False when the main loop hangs, or a watch: only another process helps. The API's silence is no reason."""
        return not self._stuck()

    @property
    def is_ready(self) -> bool:
        """True when what is known is told, and the request that is known is not old."""
        return not self.problems()

    def problems(self) -> list[str]:
        """Why it is not ready."""
        silent = [one for one in self._essential if self.silence_s(one) >= STALE_S]
        unsettled = [] if self.ready else ["What is known is not told yet."]
        return [*unsettled, *self._stuck(), *(f"Nothing was heard of {one} for long." for one in silent)]

    def _stuck(self) -> list[str]:
        since = self._busy_since
        loop = ["The main loop hangs."] if since is not None and self._now() - since >= STUCK_S else []
        return loop + [f"The watch of {name} hangs." for name, one in self._watches.items() if not one.is_alive]
