# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The nodes of the cluster as they were last heard of, and which of them are to be looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from .node import Node


class Nodes:
    """Written by the watch and by whoever has written to a node; threads share it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._changed = threading.Condition()
        self._nodes: dict[str, Node] = {}
        self._due: dict[str, float] = {}  # name of a node to when it is to be looked at
        self._is_closed = False
        self.is_told = False  # a list came

    def told(self, nodes: Iterable[Node]) -> None:
        """All that there are."""
        with self._changed:
            # Whatever was known: after a restore of etcd versions are lower than they were.
            self._nodes = {one.name: one for one in nodes}
            self._due = {name: self._now() for name in self._nodes}
            self.is_told = True
            self._changed.notify_all()

    def put(self, node: Node) -> None:
        """A node as it is now, by the watch."""
        with self._changed:
            newer = self._newer(node)
            if newer is node:
                self._nodes[node.name] = node
                self._due[node.name] = self._now()
                self._changed.notify_all()

    def wrote(self, node: Node) -> None:
        """A node as the answer to a write has it: not to be looked at again for that."""
        with self._changed:
            if node.name in self._nodes:
                self._nodes[node.name] = self._newer(node)

    def gone(self, name: str, uid: str) -> None:
        """A node that is no more."""
        with self._changed:
            known = self._nodes.get(name)
            if known is not None and known.uid == uid:
                del self._nodes[name]
                self._due.pop(name, None)

    def _newer(self, node: Node) -> Node:
        known = self._nodes.get(node.name)
        if known is None or known.uid != node.uid or not (known.version.isdecimal() and node.version.isdecimal()):
            return node
        return known if int(known.version) > int(node.version) else node

    def all(self) -> list[Node]:
        """A copy."""
        with self._changed:
            return list(self._nodes.values())

    def get(self, name: str) -> Node | None:
        """One."""
        with self._changed:
            return self._nodes.get(name)

    def later(self, name: str, seconds: float) -> None:
        """Look at this one again by then, if it is there still; earlier when it changes."""
        with self._changed:
            if name in self._nodes:
                self._due.setdefault(name, self._now() + seconds)
                self._changed.notify_all()

    def take(self) -> list[Node]:
        """Wait for nodes that are to be looked at; those. Empty when this is closed."""
        with self._changed:
            while not self._is_closed:
                now = self._now()
                due = [name for name, at in self._due.items() if at <= now]
                if due:
                    for name in due:
                        del self._due[name]
                    return [self._nodes[name] for name in due if name in self._nodes]
                self._changed.wait(min(self._due.values(), default=now + 3600.0) - now)
            return []

    @property
    def waiting(self) -> int:
        """How many are to be looked at, now or later."""
        return len(self._due)

    def close(self) -> None:
        """Let ``take`` end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
