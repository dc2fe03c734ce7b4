# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Threads that do one thing again and again, and are known to be alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from kube.lease import Lost

LOG = logging.getLogger(__name__)
# A step is bounded by the deadlines of its requests; longer than this, and it hangs.
STUCK_S = 300.0
AFTER_FAULT_S = 5.0


class Loop:
    """Calls ``step`` every ``period_s`` seconds, 0: without a pause, until ``end`` or until this leads no longer."""

    def __init__(self, name: str, step: Callable[[], object], period_s: float) -> None:
        self._name = name
        self._step = step
        self._period_s = period_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._busy_since: float | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Begin no step any more."""
        self._ended.set()

    def busy(self, is_busy: bool) -> None:
        """A step waits for something that may take for ever, or does no longer."""
        self._busy_since = time.monotonic() if is_busy else None

    @property
    def is_alive(self) -> bool:
        """False when its thread is gone, or hangs."""
        since = self._busy_since
        hangs = since is not None and time.monotonic() - since > STUCK_S
        return self._ended.is_set() or (self._thread.is_alive() and not hangs)

    def _run(self) -> None:
        while not self._ended.is_set():
            pause_s = self._period_s
            try:
                self.busy(True)
                self._step()
            except Lost:
                return
            except Exception:  # whatever it is: the next step may go well
                LOG.exception("%s: nobody has thought of this.", self._name)
                pause_s = max(pause_s, AFTER_FAULT_S)
            self.busy(False)
            self._ended.wait(pause_s)
