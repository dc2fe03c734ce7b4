# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which nodes are ours: those whose provider id names our org, tenant and site."""

from __future__ import annotations

from collections.abc import Iterable

from .config import Config
from .node import Node
from .provider_id import NotOurs, ProviderId, read


def identified(node: Node, config: Config) -> ProviderId | None:
    """What the node's provider id says; None for a node without one. Raises NotOurs."""
    if not node.provider_id:
        return None
    found = read(node.provider_id)
    for what in ("org", "tenant", "site"):
        said, ours = getattr(found, what), getattr(config, what)
        if said not in ("", ours):
            raise NotOurs(f"{node.provider_id!r} is of another {what}")
    return found


def instances_of(nodes: Iterable[Node], config: Config) -> list[tuple[Node, ProviderId]]:
    """Those nodes that say which instance of ours they run on."""
    found = []
    for node in nodes:
        try:
            said = identified(node, config)
        except NotOurs:
            continue
        if said is not None:
            found.append((node, said))
    return found
