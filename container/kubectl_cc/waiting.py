# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Wait until nodes are in the mode that was asked of them: by a watch, not by asking again and again."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from kube.client import ApiError
from kube.watch import Kept, Watch

from .cluster import Cluster
from .mirror import Mirror
from .node import Node
from .plan import natural
from .table import pending, reason

LOOK_AFTER_S = 10.0


@dataclass(frozen=True)
class Goal:
    """``names``: empty: whatever the selector selects. ``mode``: empty: the one that each node's label says."""

    names: tuple[str, ...] = ()
    selector: str = ""
    mode: str = ""
    fail_fast: bool = False

    def of(self, nodes: Mapping[str, Node]) -> list[str]:
        """The nodes to wait for."""
        return sorted(self.names or nodes, key=natural)


def left(goal: Goal, nodes: Mapping[str, Node]) -> dict[str, str]:
    """Of the nodes that are not there yet: why. Pure."""
    whys = {name: _why(goal, nodes.get(name)) for name in goal.of(nodes)}
    return {name: why for name, why in whys.items() if why}


def _why(goal: Goal, node: Node | None) -> str:
    if node is None:
        return "there is no such node"
    mode = goal.mode or node.desired
    if not mode:
        return "" if node.is_settled else f"no mode is asked for, and none is published. {reason(node)}".strip()
    if node.desired and node.desired != mode:
        return f"its label asks for {node.desired}"
    if node.observed == mode and not node.changing:
        return ""
    words = ", ".join(one for one in (f"observed {node.observed or 'nothing'}", pending(node)) if one)
    return f"{words}. {reason(node)}".strip()


def wait(
    cluster: Cluster,
    goal: Goal,
    timeout_s: float,
    say: Callable[[str], None],
    now: Callable[[], float] = time.monotonic,
) -> dict[str, str]:
    """Returns when all are there, with nothing; or when time is over, or one has failed, with what is left.

    Raises ApiError when the right is missing.
    """
    inbox: queue.SimpleQueue[Callable[[Mirror], None]] = queue.SimpleQueue()
    watch = _watch(cluster, goal, inbox)
    mirror, ends = Mirror(), now() + timeout_s
    told: set[str] = set()
    try:
        while True:
            whys = left(goal, mirror.nodes) if mirror.is_complete else {"nodes": "the API has not listed them yet"}
            if mirror.is_complete:
                _tell(goal, mirror.nodes, whys, told, say)
                failed = [name for name in whys if name in mirror.nodes and mirror.nodes[name].has_failed]
                if not whys or (failed and goal.fail_fast):
                    return whys
            left_s = ends - now()
            if left_s <= 0:
                return whys
            watch.revive()
            try:
                inbox.get(timeout=min(left_s, LOOK_AFTER_S))(mirror)
            except queue.Empty:
                continue
    finally:
        watch.end()


def _watch(cluster: Cluster, goal: Goal, inbox: queue.SimpleQueue[Callable[[Mirror], None]]) -> Kept:
    def failed(error: ApiError) -> None:
        if error.is_denied:
            inbox.put(lambda _mirror: _raise(error))

    def make(_kept: Kept) -> Watch:
        one = goal.names[0] if len(goal.names) == 1 else ""
        resource = cluster.resource("" if goal.names else goal.selector, ())
        if one:
            resource = type(resource)(resource.path, {"fieldSelector": f"metadata.name={one}"}, trim=resource.trim)
        return Watch(
            cluster.kube,
            resource,
            lambda found, _fresh: inbox.put(lambda mirror: _listed(mirror, found)),
            failed,
            each=lambda kind, found: inbox.put(lambda mirror: mirror.told(kind, Node.of(found))),
        )

    return Kept(make)


def _listed(mirror: Mirror, found: Iterable[Mapping[str, object]]) -> None:
    mirror.nodes = {node.name: node for node in map(Node.of, found)}
    mirror.is_complete = True


def _raise(error: ApiError) -> None:
    raise error


def _tell(
    goal: Goal, nodes: Mapping[str, Node], whys: Mapping[str, str], told: set[str], say: Callable[[str], None]
) -> None:
    """A line for each node that has arrived."""
    for name in goal.of(nodes):
        if name not in whys and name not in told:
            told.add(name)
            say(f"{name}: in mode {nodes[name].observed or '-'}")
        elif name in whys:
            told.discard(name)
