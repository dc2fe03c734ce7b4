# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What keeps this from working: told once, in the log, as an Event and as a metric, and shown until it is over."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable

from kube.client import ApiError

LOG = logging.getLogger(__name__)


class Problems:
    """Threads share it. ``tell`` makes the Event (reason, message); ``count`` counts (key, reason)."""

    def __init__(self, tell: Callable[[str, str], None], count: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._count = count
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, str]] = {}

    def report(self, key: str, reason: str, message: str) -> None:
        """Of one thing, ``key``, there is one problem at a time; it is told when nothing else has that reason yet."""
        with self._lock:
            is_told = any(known == reason for known, _message in self._known.values())
            self._known[key] = (reason, message)
        self._count(key, reason)
        if not is_told:
            LOG.warning("%s: %s", reason, message)
            self._tell(reason, message)

    def tell_again(self) -> None:
        """Make the Events once more of what does not work: who did not lead could make none."""
        with self._lock:
            known = dict(self._known.values())
        for reason, message in known.items():
            self._tell(reason, message)

    def over(self, key: str) -> None:
        """That thing works."""
        with self._lock:
            before = self._known.pop(key, None)
        if before is not None:
            LOG.info("%s is over: %s works again.", before[0], key)

    def refused(self, right: str, error: ApiError, key: str = "") -> None:
        """The API server did not carry out a request, which needs ``right``: 'patch nodes', which is the key, too."""
        if error.is_denied:
            words = f"This service account may not {right}: {error}. Grant it, as the chart does."
            self.report(key or right, reason_of(right), words)

    def sentences(self) -> list[str]:
        """For /readyz."""
        with self._lock:
            return [f"{reason}: {message}" for reason, message in dict.fromkeys(self._known.values())]


def reason_of(right: str) -> str:
    """Of a right that is missing: MayNotPatchNodesStatus for 'patch nodes/status'."""
    return "MayNot" + "".join(word.title() for word in re.findall("[a-z]+", right))
