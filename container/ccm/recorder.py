# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Events are told in a thread of their own: no work waits for one, and none fails because of one."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from kube.client import ApiError
from kube.events import Subject
from kube.lease import Lost

from .node import Node

LOG = logging.getLogger(__name__)
MOST_WAITING = 20_000
# What was told, so that a state that lasts is not told each round. The oldest is forgotten, and told again.
MOST_TOLD = 20_000
WARNING, NORMAL = "Warning", "Normal"
Tell = Callable[[Subject, str, str, str], None]


class Recorder:
    """``tell`` makes an Event; ``lost`` counts those that the API server did not take."""

    def __init__(self, tell: Tell, lost: Callable[[], None]) -> None:
        self._tell = tell
        self._lost = lost
        self._waiting: deque[tuple[Subject, str, str, str]] = deque(maxlen=MOST_WAITING)
        self._told: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._changed = threading.Condition()
        self._is_closed = False
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def event(self, about: Subject, kind: str, reason: str, message: str) -> None:
        """Each time."""
        with self._changed:
            if not self._is_closed:
                self._waiting.append((about, kind, reason, message))
                self._changed.notify_all()

    def of_node(self, node: Node, kind: str, reason: str, message: str) -> None:
        """Each time, on a node."""
        self.event(Subject("Node", node.name, node.uid), kind, reason, message)

    def once(self, node: Node, reason: str, message: str) -> None:
        """A warning on a node, unless it was the last one about it."""
        with self._changed:
            key = (node.uid, reason)
            if self._told.get(key) == message:
                return
            self._told[key] = message
            self._told.move_to_end(key)
            if len(self._told) > MOST_TOLD:
                self._told.popitem(last=False)
        LOG.warning("Node %s: %s: %s", node.name, reason, message)
        self.of_node(node, WARNING, reason, message)

    def over(self, node: Node, reason: str) -> None:
        """Tell it again when it comes again."""
        with self._changed:
            self._told.pop((node.uid, reason), None)

    def close(self, timeout_s: float) -> None:
        """Tell what waits, for so long, and end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_s)
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                one = self._waiting.popleft()
                self._busy = True
            try:
                self._tell(*one)
            except (ApiError, Lost) as error:
                self._lost()
                LOG.debug("An Event was not told: %s", error)
