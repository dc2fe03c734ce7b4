# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where each node of a plan stands, from what is seen of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cc_manager.names import MIXED, MODES

from . import plan as plans
from .claim import HOLD, OVER, Claim
from .node import Node
from .plan import Entry
from .record import UNDO, UNDONE, Record
from .rules import Rules

# Kinds. OUT: its CC manager is at work. READY: it is where it should be, and can be let go. LEAVE: it is not the
# rollout's any more, and can be let go. UNFIT: it cannot be taken as it is now. BAD: the rollout pauses for it.
TODO, UNFIT, HELD, OUT, READY, LEAVE, DONE, SKIPPED, BAD = (
    "to do",
    "not fit",
    "held",
    "changing",
    "verified",
    "to release",
    "done",
    "skipped",
    "failed",
)
CLOSED = (DONE, SKIPPED)


@dataclass(frozen=True)
class Standing:
    """``why``: what is the matter. ``until``: when it has to be looked at again though nothing was seen to change."""

    entry: Entry
    node: Node | None
    kind: str
    why: str = ""
    until: float | None = None

    def holds(self, now: float) -> bool:
        """True while time alone changes nothing of it."""
        return self.until is None or now < self.until


class Memo:
    """What was computed before. It holds for as long as record and node are the same, until its moment comes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Record, Standing]] = {}

    def one(self, record: Record, entry: Entry, node: Node | None, now: float) -> Standing:
        """As ``one`` below."""
        known = self._known.get(entry.name)
        if known is not None and known[0] is record and known[1].node is node and known[1].holds(now):
            return known[1]
        made = one(record, entry, node, now)
        self._known[entry.name] = (record, made)
        return made


def of(record: Record, nodes: Mapping[str, Node], now: float, memo: Memo | None = None) -> dict[str, Standing]:
    """Of each node of the plan."""
    compute = one if memo is None else memo.one
    return {entry.name: compute(record, entry, nodes.get(entry.name), now) for entry in record.plan.entries}


def one(record: Record, entry: Entry, node: Node | None, now: float) -> Standing:
    """Of one node."""
    claim = mine(record, node)
    if entry.name in record.status.skipped:
        return Standing(entry, node, LEAVE if claim is not None and claim.is_open else SKIPPED)
    if node is None:
        return Standing(entry, node, BAD, "it is not there any more, or its CC manager publishes no state")
    undoes = record.status.phase in (UNDO, UNDONE)
    return _undone(record, entry, node, claim, now) if undoes else _forward(record, entry, node, claim, now)


def mine(record: Record, node: Node | None) -> Claim | None:
    """The rollout's own claim on a node."""
    claim = node.claim if node is not None else None
    return claim if claim is not None and claim.id == record.id else None


def goal(record: Record, entry: Entry) -> str:
    """The mode to ask a node for: the new one, or the one that it was in."""
    undoes = record.status.phase in (UNDO, UNDONE)
    return (entry.before or entry.state) if undoes else record.rules.mode


def is_again(record: Record, claim: Claim, entry: Entry) -> bool:
    """True when a bad node gets another attempt: it was bad when the rollout was resumed, and has not had it yet."""
    return entry.name in record.status.again and claim.attempt < record.status.attempt


def _forward(record: Record, entry: Entry, node: Node, claim: Claim | None, now: float) -> Standing:
    if claim is not None and claim.is_open and not claim.undo:
        return _open(record, entry, node, claim, now)
    if node.is_in(record.rules.mode):
        return Standing(entry, node, DONE)
    if claim is not None and claim.stage == OVER:
        return _left(record, entry, node, claim)
    why = plans.unfit(node, record.rules, record.id)
    return Standing(entry, node, UNFIT if why else TODO, why)


def _left(record: Record, entry: Entry, node: Node, claim: Claim) -> Standing:
    """It was in the mode, and let go, and is not in it now."""
    mode = record.rules.mode
    if node.desired == mode and not node.has_failed and not node.is_settled:
        return Standing(entry, node, UNFIT, "its CC manager is at work on it again")
    if is_again(record, claim, entry):
        return Standing(entry, node, TODO)
    why = _why_not(node, mode)
    return Standing(entry, node, BAD, f"it was in mode {mode} and is not any more: {why}")


def _undone(record: Record, entry: Entry, node: Node, claim: Claim | None, now: float) -> Standing:
    """Only what the rollout has changed is changed back, and only while no other user has changed it since."""
    if claim is None or (claim.undo and not claim.is_open):
        return Standing(entry, node, DONE)
    if claim.undo:
        return _open(record, entry, node, claim, now)
    if claim.stage == HOLD or node.desired != record.rules.mode:
        return Standing(entry, node, LEAVE if claim.is_open else DONE)
    return Standing(entry, node, TODO)


def _open(record: Record, entry: Entry, node: Node, claim: Claim, now: float) -> Standing:
    rules = record.rules
    if claim.stage == HOLD:
        ends = claim.at + rules.pods_timeout_s
        if now >= ends:
            return Standing(entry, node, BAD, f"pods hold its GPUs still after {rules.pods_timeout_s:g} s")
        return Standing(entry, node, HELD, "waits for its pods to end", ends)
    return _answer(entry, node, claim, rules, now)


def _answer(entry: Entry, node: Node, claim: Claim, rules: Rules, now: float) -> Standing:
    """What became of a label that was set."""
    if node.desired != claim.mode:
        return Standing(entry, node, BAD, f"another user set its label to {node.desired or 'nothing'}")
    if not node.is_in(claim.mode):
        why = _why_not(node, claim.mode)
        if (node.has_failed or _is_mixed(node)) and (node.has_answered or now >= claim.at + claim.grace_s):
            return Standing(entry, node, BAD, why)
    elif node.acknowledges and not node.has_answered:
        why = f"its CC manager has not read its devices since it was asked for {claim.mode}; does it run?"
    elif node.kubelet:
        why = f"in mode {claim.mode}, but not ready: {node.kubelet}"
    else:
        return Standing(entry, node, READY)
    ends = claim.at + rules.node_timeout_s
    if now >= ends:
        return Standing(entry, node, BAD, f"not in mode {claim.mode} after {rules.node_timeout_s:g} s: {why}")
    return Standing(entry, node, OUT, why, min(ends, claim.at + claim.grace_s) if _in_grace(claim, now) else ends)


def _in_grace(claim: Claim, now: float) -> bool:
    return claim.grace_s > 0 and now < claim.at + claim.grace_s


def _is_mixed(node: Node) -> bool:
    return node.observed == MIXED and not node.changing


def _why_not(node: Node, mode: str) -> str:
    if node.desired != mode:
        return f"its label says {node.desired or 'nothing'}"
    if node.changing:
        return f"its CC manager works on {node.changing}"
    if node.has_failed:
        return node.reason or "its CC manager reports failed without a reason"
    if node.observed == MIXED:
        return f"its devices are in different modes. {node.reason}".strip()
    if node.observed in MODES:
        return f"it is in mode {node.observed}; does its CC manager run?"
    return "its CC manager has published no mode"
