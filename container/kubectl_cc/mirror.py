# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""All nodes as they were seen last: what a watch reports, and the answers to one's own requests, whichever is newer."""

from __future__ import annotations

from collections.abc import Iterable

from .node import Node


class Mirror:
    """``nodes``: by name. For one thread."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.is_complete = False  # a first list has come

    def listed(self, nodes: Iterable[Node]) -> list[str]:
        """A whole list; the names of nodes that are to be read again.

        Of these a newer version is known, and kept: either it was written while the list was on its way, and to forget
        it would be to take more nodes than the budget allows, or etcd was restored. A reading shows which.
        """
        found = {node.name: node for node in nodes}
        doubtful = [name for name, node in found.items() if _number(node) < _number(self.nodes.get(name))]
        self.nodes = {**found, **{name: self.nodes[name] for name in doubtful}}
        self.is_complete = True
        return doubtful

    def told(self, kind: str, node: Node) -> None:
        """An event of a watch; one that is older than what is known is late."""
        if _number(node) < _number(self.nodes.get(node.name)):
            return
        if kind == "DELETED":
            self.nodes.pop(node.name, None)
        else:
            self.nodes[node.name] = node

    def read(self, name: str, node: Node | None) -> None:
        """The answer to a write or a question, which is the truth; None: it is gone."""
        if node is None:
            self.nodes.pop(name, None)
        else:
            self.nodes[name] = node


def _number(node: Node | None) -> int:
    return int(node.version) if node is not None and node.version.isdecimal() else 0
