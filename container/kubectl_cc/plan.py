# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The plan of a rollout: which nodes in which wave. Pure: nothing here reaches the API or a clock."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from cc_manager.names import FAILED, MIXED, MODES, NONE

from .node import Node
from .rules import Refused, Rules, share

SHOWN = 8


@dataclass(frozen=True)
class Entry:
    """A node of a plan. ``before``: its label then, None: it had none. ``state``: the mode read then.

    ``part``: the value of the label that the budget counts by.
    """

    name: str
    before: str | None
    state: str
    part: str = ""


@dataclass(frozen=True)
class Plan:
    """``budgets``: of each part, how many of its nodes may be out of service at once.

    ``there``: nodes that were in the mode already. ``left_out``: nodes that could not be taken, and why.
    """

    rules: Rules
    waves: tuple[tuple[Entry, ...], ...]
    budgets: Mapping[str, int]
    there: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def entries(self) -> list[Entry]:
        """All, in the order of their waves."""
        return [entry for wave in self.waves for entry in wave]


def make(
    rules: Rules, nodes: Mapping[str, Node], chosen: Iterable[str], rollout: str = "", leave_out: bool = False
) -> Plan:
    """The plan for the chosen ones of all nodes with GPUs. Raises Refused.

    ``rollout``: its id; a node that another one has is refused. ``leave_out``: those that cannot be taken now stay
    out of the plan; otherwise they are a refusal.
    """
    names = sorted(set(chosen), key=natural)
    there = [name for name in names if name in nodes and nodes[name].is_in(rules.mode)]
    whys = {name: why for name in names if name not in there and (why := unfit(nodes.get(name), rules, rollout))}
    if whys and not leave_out:
        raise Refused(f"{_some(whys)}. Mend that, or leave such nodes out with --leave-out.")
    left = [nodes[name] for name in names if name not in there and name not in whys]
    members = [nodes[name] for name in names if name not in whys]
    sizes = Counter(part_of(node, rules) for node in members)
    budgets = {part: share(rules.budget, size) for part, size in sizes.items()}
    room = _room(rules, nodes)
    _check_zones(rules, left, room)
    waves = tuple(tuple(_entry(node, rules) for node in wave) for wave in _waves(rules, left, budgets, room))
    return Plan(rules, waves, budgets, tuple(there), whys)


def unfit(node: Node | None, rules: Rules, rollout: str) -> str:
    """Why a node cannot be taken, whatever the others do; empty: it can."""
    if node is None:
        return "there is no node of this name with a CC manager"
    if node.claim is not None and node.claim.is_open and node.claim.id != rollout:
        return f"the rollout {node.claim.id} has it"
    if node.kubelet:
        return f"not ready: {node.kubelet}"
    if node.unschedulable:
        return "it is cordoned"
    if node.changing or not node.observed:
        return "its CC manager is at work on it, or has published no state yet"
    if node.observed == FAILED:
        return f"it has failed: {node.reason or 'no reason is given'}"
    if node.observed not in (*MODES, MIXED):
        return f"its state is {node.observed!r}, which is no mode"
    if not node.follows and node.observed != MIXED:
        return f"it is in mode {node.observed} though its label asks for {node.desired}"
    if node.observed == MIXED and not node.desired:
        return "its devices are in different modes, and no label says which is right: there is no way back to that"
    return _of_devices(node, rules)


def _of_devices(node: Node, rules: Rules) -> str:
    """What is desired of single devices has precedence over the label."""
    if not node.wanted:
        return ""
    try:
        others = {str(mode) for mode in dict(json.loads(node.wanted)).values()} - {NONE, rules.mode}
    except (ValueError, TypeError, RecursionError):
        return "the modes wanted for its single devices cannot be read"
    return f"single devices of it are to be in mode {', '.join(sorted(others))}" if others else ""


def part_of(node: Node, rules: Rules) -> str:
    """By which the budget counts."""
    return node.labels.get(rules.per, "") if rules.per else ""


def zone_of(node: Node, rules: Rules) -> str:
    """Whose last ready node is never taken."""
    return node.labels.get(rules.zone, "")


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts gpu-2 before gpu-10."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name)]


def _entry(node: Node, rules: Rules) -> Entry:
    return Entry(node.name, node.desired or None, node.observed, part_of(node, rules))


def _room(rules: Rules, nodes: Mapping[str, Node]) -> dict[str, int]:
    """Of each zone, how many nodes can be taken at once so that one is left."""
    ready = Counter(zone_of(node, rules) for node in nodes.values() if node.in_service)
    return {zone: count - 1 for zone, count in ready.items()}


def _check_zones(rules: Rules, left: Sequence[Node], room: Mapping[str, int]) -> None:
    alone = {node.name: f"the last ready node of {_zone(node, rules)}" for node in left if _is_last(node, rules, room)}
    if alone:
        raise Refused(
            f"{_some(alone)}. It is never taken. Make another node there ready, choose others, or set its label "
            "yourself when nobody needs it."
        )


def _is_last(node: Node, rules: Rules, room: Mapping[str, int]) -> bool:
    return room.get(zone_of(node, rules), 0) < 1


def _zone(node: Node, rules: Rules) -> str:
    zone = zone_of(node, rules)
    return f"{rules.zone}={zone}" if zone else f"those without {rules.zone or 'a zone'}"


def _waves(rules: Rules, left: Sequence[Node], budgets: Mapping[str, int], room: Mapping[str, int]) -> list[list[Node]]:
    """The canary first, then as many as budgets and zones allow, in the order of their names."""
    waves: list[list[Node]] = []
    while left:
        most = rules.canary if not waves else len(left)
        wave: list[Node] = []
        parts: Counter[str] = Counter()
        zones: Counter[str] = Counter()
        for node in left:
            part, zone = part_of(node, rules), zone_of(node, rules)
            if len(wave) < most and parts[part] < budgets[part] and zones[zone] < room[zone]:
                wave.append(node)
                parts[part] += 1
                zones[zone] += 1
        taken = {node.name for node in wave}
        left = [node for node in left if node.name not in taken]
        waves.append(wave)
    return waves


def _some(whys: Mapping[str, str]) -> str:
    told = [f"{name}: {why}" for name, why in list(whys.items())[:SHOWN]]
    more = [f"and {len(whys) - SHOWN} more"] if len(whys) > SHOWN else []
    return "; ".join([*told, *more])
