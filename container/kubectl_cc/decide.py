# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From what is seen to the next step of a rollout. Pure: nothing here reaches the API or a clock.

Level-triggered: each call looks at the record and at all nodes as they are now, and names one step. A step is one write
of one object, so a kill falls between two steps, and whoever comes next sees what was done.

What holds whatever is seen: a wave begins when the one before it is in its mode and has passed its gates; no node is
taken that would leave its zone without a ready one, or more than the budget out of service; and while the rollout is
paused, or a node is bad, none is taken at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from cc_manager.names import MODES

from . import plan as plans
from . import standing as standings
from .claim import HOLD, OVER, SET, Claim
from .names import DRAIN, WAIT
from .node import Node
from .record import FINISHED, FORWARD, UNDO, UNDONE, Pause, Record
from .standing import BAD, CLOSED, HELD, LEAVE, OUT, READY, TODO, Standing
from .steps import Finish, Halt, Hold, Look, Pass, Release, Rest, RunGate, Step, Take, Wait

# What was seen of a node's pods is good for so long; then they are looked at again.
FRESH_S = 10.0
# A CC manager that was asked for another attempt may say for so long what it said before.
GRACE_S = 60.0
# So long a rollout waits for what it has no part in: a kubelet that is away, a node that is cordoned.
PATIENCE_S = 300.0
SHOWN = 5


@dataclass(frozen=True)
class Users:
    """Pods that hold GPUs of a node, by name, as they were seen at a moment."""

    at: float
    pods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gate:
    """How the examination of a wave goes: ``over`` with a reason why it failed, or none."""

    over: bool = False
    failure: str = ""


@dataclass(frozen=True)
class Seen:
    """All that is known. ``users``: by node. ``gates``: by wave, in this attempt.

    ``stuck_since``: since when nothing could be done, as this process has seen it. ``memo``: what was computed before.
    """

    record: Record
    nodes: Mapping[str, Node]
    now: float
    users: Mapping[str, Users] = field(default_factory=dict)
    gates: Mapping[int, Gate] = field(default_factory=dict)
    stuck_since: float | None = None
    memo: standings.Memo | None = None


def next_step(seen: Seen) -> Step:
    """The one thing to do now."""
    record = seen.record
    if record.status.is_over:
        return Rest()
    stands = standings.of(record, seen.nodes, seen.now, seen.memo)
    for one in stands.values():
        if one.kind in (READY, LEAVE) and one.node is not None:
            return _release(record, one, one.node)
    if record.status.paused is not None:
        return _paused(record, stands)
    for one in stands.values():
        if one.kind == BAD:
            return _again(seen, one) or Halt(Pause(_words(one), one.entry.name, seen.now))
    return _advance(seen, stands)


# --- one node ---------------------------------------------------------------------------------------------------------


def _release(record: Record, one: Standing, node: Node) -> Release:
    claim = node.claim
    if claim is None or claim.stage == HOLD:
        return Release(node, None)
    unlabel = one.kind == READY and claim.undo and one.entry.before is None
    return Release(node, _claim(record, one, claim.at, OVER, False, claim.mode), unlabel)


def _claim(
    record: Record, one: Standing, at: float, stage: str, cordoned: bool, mode: str, grace_s: float = 0
) -> Claim:
    undoes = record.status.phase == UNDO
    return Claim(record.id, mode, at, stage, cordoned, record.status.attempt, grace_s, undoes)


def _take(seen: Seen, one: Standing, node: Node) -> Take:
    """The node was not bad when nothing is known against it: then all that comes is the answer to this."""
    record, mode = seen.record, standings.goal(seen.record, one.entry)
    before = standings.mine(record, node)
    cordoned = (before is not None and before.cordoned) or not node.unschedulable
    grace_s = 0.0 if node.is_settled and node.observed in MODES else GRACE_S
    asked = f"{record.id}.{record.status.attempt}"
    return Take(node, _claim(record, one, seen.now, SET, cordoned, mode, grace_s), asked)


def _again(seen: Seen, one: Standing) -> Step | None:
    """What a bad node gets after a resume: one more attempt."""
    claim = standings.mine(seen.record, one.node)
    if claim is None or one.node is None or not claim.is_open or not standings.is_again(seen.record, claim, one.entry):
        return None
    if claim.stage == HOLD:
        return Hold(one.node, _claim(seen.record, one, seen.now, HOLD, claim.cordoned, claim.mode))
    return _take(seen, one, one.node)


# --- while it is paused -----------------------------------------------------------------------------------------------


def _paused(record: Record, stands: Mapping[str, Standing]) -> Step:
    """What is begun comes to its end, and is let go; nodes that only wait are given back."""
    for one in stands.values():
        held = standings.mine(record, one.node)
        if one.node is not None and held is not None and held.stage == HOLD:
            return Release(one.node, None)
    out = [one for one in stands.values() if one.kind == OUT and _is_open(record, one)]
    return Wait(_earliest(out)) if out else Rest()


def _is_open(record: Record, one: Standing) -> bool:
    claim = standings.mine(record, one.node)
    return claim is not None and claim.is_open


# --- onwards ----------------------------------------------------------------------------------------------------------


def waves(record: Record) -> list[tuple[plans.Entry, ...]]:
    """In the order in which they are done: on the way back the last one comes first."""
    return list(record.plan.waves) if record.status.phase == FORWARD else list(reversed(record.plan.waves))


def _advance(seen: Seen, stands: Mapping[str, Standing]) -> Step:
    record = seen.record
    gated = record.rules.is_gated and record.status.phase == FORWARD
    for number, wave in enumerate(waves(record)):
        of_wave = [stands[entry.name] for entry in wave]
        if any(one.kind not in CLOSED for one in of_wave):
            return _wave(seen, of_wave, stands)
        if gated and number >= record.status.passed:
            return _gate(seen, number)
    return Finish(FINISHED if record.status.phase == FORWARD else UNDONE)


def _gate(seen: Seen, number: int) -> Step:
    gate = seen.gates.get(number)
    if gate is None:
        return RunGate(number)
    if not gate.over:
        return Wait()
    return Halt(Pause(gate.failure, "", seen.now)) if gate.failure else Pass(number + 1)


def _wave(seen: Seen, of_wave: list[Standing], stands: Mapping[str, Standing]) -> Step:
    """Take whoever can be taken, in order; then wait for those that are out; then see what is in the way."""
    rules = seen.record.rules
    room = _Room(seen, stands)
    blocked: dict[str, str] = {}
    busy: dict[str, str] = {}
    looks: list[float] = []
    for one in of_wave:
        if one.kind not in (TODO, HELD) or one.node is None:
            if one.kind not in (*CLOSED, OUT):
                blocked[one.entry.name] = one.why
            continue
        why = "" if one.kind == HELD else room.why_not(one, one.node)
        if why:
            blocked[one.entry.name] = why
            continue
        if rules.busy == DRAIN:  # its CC manager evicts, and minds disruption budgets
            return _take(seen, one, one.node)
        users = seen.users.get(one.entry.name)
        if users is None or seen.now >= users.at + FRESH_S:
            return Look(one.node)
        if not users.pods:
            return _take(seen, one, one.node)
        looks.append(users.at + FRESH_S)
        if one.kind == TODO and rules.busy == WAIT:
            mode = standings.goal(seen.record, one.entry)
            return Hold(one.node, _claim(seen.record, one, seen.now, HOLD, not one.node.unschedulable, mode))
        if rules.busy != WAIT:
            busy[one.entry.name] = f"its GPUs are in use by {', '.join(users.pods)}"
    return _rest_of_wave(seen, stands, blocked, busy, looks)


def _rest_of_wave(
    seen: Seen,
    stands: Mapping[str, Standing],
    blocked: Mapping[str, str],
    busy: Mapping[str, str],
    looks: list[float],
) -> Step:
    moving = [one for one in stands.values() if one.kind in (OUT, HELD)]
    if moving:
        return Wait(min([*looks, *(one.until for one in moving if one.until is not None)], default=None))
    if busy and not blocked:
        names = next(iter(busy))
        return Halt(Pause(f"{_some(busy)}. Stop these pods, or go on with --skip.", names, seen.now))
    ends = (seen.now if seen.stuck_since is None else seen.stuck_since) + PATIENCE_S
    if seen.now < ends:
        return Wait(min([ends, *looks]), stuck=_some(blocked))
    every = {**blocked, **busy}
    return Halt(Pause(f"{_some(every)}. Nothing else can be done before.", next(iter(every)), seen.now))


class _Room:
    """Which nodes are out of service in each part of the plan, and how many are ready in each zone."""

    def __init__(self, seen: Seen, stands: Mapping[str, Standing]) -> None:
        self._rules, self._budgets = seen.record.rules, seen.record.plan.budgets
        self._ready = Counter(plans.zone_of(node, self._rules) for node in seen.nodes.values() if node.in_service)
        self._out: dict[str, list[str]] = {}
        skipped = set(seen.record.status.skipped)
        for name, one in stands.items():
            if name not in skipped and (one.node is None or not one.node.in_service):
                self._out.setdefault(one.entry.part, []).append(name)

    def why_not(self, one: Standing, node: Node) -> str:
        """Why a node is not to be taken now, because of others. What is out of service already is no loss."""
        if not node.in_service:
            return ""
        zone, part = plans.zone_of(node, self._rules), one.entry.part
        if self._ready[zone] < 2:
            return f"it is the last ready node of {self._rules.zone}={zone}" if zone else "it is the last ready node"
        out, budget = self._out.get(part, []), self._budgets.get(part, 1)
        return f"the budget of {budget} is used up by {_names(out)}" if len(out) + 1 > budget else ""


def _earliest(stands: list[Standing]) -> float | None:
    return min((one.until for one in stands if one.until is not None), default=None)


def _words(one: Standing) -> str:
    return f"{one.entry.name}: {one.why}"


def _some(whys: Mapping[str, str]) -> str:
    told = [f"{name}: {why}" for name, why in list(whys.items())[:SHOWN]]
    return "; ".join([*told, *([f"and {len(whys) - SHOWN} more"] if len(whys) > SHOWN else [])])


def _names(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
