# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The node that this process is on, as the API server has it: labels and annotations.

It is read by its name and watched, which needs the rights get and watch, in a thread of its own; what is heard is told
in the thread of the event loop. A node that was never heard of, or not for long, is unknown: whoever changes something
of its devices meanwhile would say so there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from kube.client import METADATA, ApiError, Kube
from kube.events import Events, Subject
from kube.watch import Kept, Resource, Watch

LOG = logging.getLogger(__name__)
COMPONENT = "device-plugin"
# The server says something about once a minute; a watch that hears nothing is begun again after a minute and a half.
STALE_S = 180.0
Told = tuple[Mapping[str, str], Mapping[str, str]]


class OwnNode:
    """``changed`` is called when labels or annotations are others than before, and when the node becomes known."""

    def __init__(self, kube: Kube, name: str, stale_s: float = STALE_S) -> None:
        self.name = name
        self._kube = kube
        self._stale_s = stale_s
        self._events = Events(kube, COMPONENT, name, counts=False)
        self._loop = asyncio.get_running_loop()
        self._changed: Callable[[], None] = lambda: None
        self._kept: Kept | None = None
        self._last: Told | None = None  # the thread's
        self._found: Told | None = None
        self._error = "it was not read yet"
        self.errors: Callable[[int], None] = lambda status: None
        self.events_lost: Callable[[], None] = lambda: None

    def start(self, changed: Callable[[], None]) -> None:
        """Begin to watch."""
        self._changed = changed
        self._kept = Kept(self._watch)

    def stop(self) -> None:
        """Hear no more."""
        if self._kept is not None:
            self._kept.end()
        self._kube.close()

    @property
    def labels(self) -> Mapping[str, str]:
        """As they were heard last."""
        return self._found[0] if self._found is not None else {}

    @property
    def annotations(self) -> Mapping[str, str]:
        """As they were heard last."""
        return self._found[1] if self._found is not None else {}

    @property
    def was_seen(self) -> bool:
        """Whether it was there since the start."""
        return self._found is not None

    @property
    def problem(self) -> str:
        """Why it is not known; empty: it is."""
        if self._found is None:
            return f"the node {self.name} is not known: {self._error}"
        if self._silence_s >= self._stale_s:
            why = f": {self._error}" if self._error else ""
            return f"nothing was heard of the node {self.name} for {self._stale_s:g} s{why}"
        return ""

    def look(self) -> float:
        """Mend a watch that hangs; seconds after which to look again: silence is no event."""
        if self._kept is not None and self._kept.revive():
            LOG.error("The watch of the node hung or died, and is begun again.")
        return max(0.0, self._stale_s - self._silence_s) or self._stale_s

    def tell(self, kind: str, reason: str, message: str) -> None:
        """Make an Event about the node, without waiting for it."""
        threading.Thread(target=self._tell, args=(kind, reason, message), name="event", daemon=True).start()

    def _tell(self, kind: str, reason: str, message: str) -> None:
        try:
            self._events.tell(Subject.node(self.name), kind, reason, message)
        except ApiError as error:
            LOG.warning("An Event was not made: %s", error)
            self._in_loop(self.events_lost)

    @property
    def _silence_s(self) -> float:
        return 0.0 if self._kept is None else max(0.0, time.monotonic() - self._kept.heard_at)

    # --- in the thread of the watch -----------------------------------------------------------------------------------

    def _watch(self, _kept: Kept) -> Watch:
        selected = {"fieldSelector": f"metadata.name={self.name}"}
        resource = Resource("/api/v1/nodes", selected, accept_one=METADATA, name=self.name)
        return Watch(self._kube, resource, self._told, self._failed)

    def _told(self, objects: list[dict[str, Any]], fresh: bool) -> None:
        """The kubelet's beat changes the node, too; that is nothing new here. After a silence nothing new is news."""
        if not objects:
            self._last = None
            self._in_loop(self._gone)
            return
        metadata = objects[0]["metadata"]
        found = (dict(metadata.get("labels") or {}), dict(metadata.get("annotations") or {}))
        if fresh or found != self._last:
            self._last = found
            self._in_loop(lambda: self._seen(found))

    def _failed(self, error: ApiError) -> None:
        self._in_loop(lambda: self._missed(error))

    def _in_loop(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
            self._loop.call_soon_threadsafe(what)

    # --- in the thread of the event loop ------------------------------------------------------------------------------

    def _seen(self, found: Told) -> None:
        self._found, self._error = found, ""
        self._changed()

    def _gone(self) -> None:
        self._found, self._error = None, "there is no such node"
        self._changed()

    def _missed(self, error: ApiError) -> None:
        self.errors(error.status)
        if str(error) != self._error:
            self._error = str(error)
            LOG.warning("The node %s cannot be watched: %s. It is tried again.", self.name, error)
