# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The verbs of a rollout, but for the work itself: start, dry run, status, pause, resume, undo."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cc_manager.names import STATE_LABEL
from kube.client import ApiError

from . import moment, plan, record, standing
from .cluster import Cluster
from .names import RECORD
from .node import Node
from .plan import Plan
from .record import FINISHED, FORWARD, UNDO, Pause, Record
from .rules import Refused, Rules

AGAIN = 5  # writes that others were faster than


class Nothing(Exception):
    """Nothing is to be done. ``lines``: why."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Choice:
    """Which nodes: by name, or by a label selector; neither: all with GPUs."""

    names: tuple[str, ...] = ()
    selector: str = ""


def make_plan(cluster: Cluster, rules: Rules, choice: Choice, leave_out: bool) -> Plan:
    """The plan as things are now. Raises Refused, ApiError."""
    nodes = cluster.nodes(STATE_LABEL, rules.labels)
    return plan.make(rules, nodes, chosen(cluster, nodes, choice), leave_out=leave_out)


def chosen(cluster: Cluster, nodes: dict[str, Node], choice: Choice) -> list[str]:
    """Names. Raises Refused when there are none."""
    if choice.names and choice.selector:
        raise Refused("Nodes are given by name and by a selector. Give one of both.")
    names: Iterable[str] = choice.names or nodes
    if choice.selector:
        names = cluster.nodes(choice.selector, ())
    if not list(names):
        raise Refused(
            f"No node is chosen: none has the label {STATE_LABEL}, by which the CC manager publishes its mode"
            + (f", and is selected by {choice.selector}." if choice.selector else ".")
        )
    return list(names)


def start(cluster: Cluster, rules: Rules, choice: Choice, leave_out: bool, now: float) -> tuple[Record, bool]:
    """Write the record; False when the same rollout is under way already. Raises Refused, ApiError, Unreadable.

    A rollout that is not over is never replaced: of two who start one at the same moment, the API takes one.
    Raises Nothing when all are in the mode.
    """
    found = cluster.record()
    known = record.read(found) if found is not None else None
    if known is not None and not known.status.is_over:
        if known.rules == rules and known.status.phase == FORWARD:
            return known, False
        raise Refused(f"{_words(known)} Wait for its end, or end it: kubectl cc rollout undo.")
    made = make_plan(cluster, rules, choice, leave_out)
    if not made.entries:  # and the last one can still be undone
        raise Nothing(plan_lines(made))
    ours = Record(f"r{secrets.token_hex(4)}", made, record.Status(at=now), who(), now, known.version if known else "")
    body = ours.body(cluster.namespace)
    try:
        return record.read(cluster.create(body) if known is None else cluster.replace(body)), True
    except ApiError as error:
        if error.is_conflict:
            raise Refused("Another rollout was started at this moment. See: kubectl cc rollout status.") from None
        raise


def who() -> str:
    """Who asks, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user without a name, as in a container
        return socket.gethostname()


def existing(cluster: Cluster) -> Record:
    """The record. Raises Refused when there is none, ApiError, Unreadable."""
    found = cluster.record()
    if found is None:
        raise Refused(f"There is no rollout: no ConfigMap {RECORD} in the namespace {cluster.namespace}.")
    return record.read(found)


def pause(cluster: Cluster, cause: str) -> Record:
    """Begin nothing more."""

    def change(found: Record) -> dict[str, Any]:
        _check_open(found)
        return {} if found.status.paused else {"paused": Pause(cause, "", time.time())}

    return _change(cluster, change)


def resume(cluster: Cluster, skip: Sequence[str] = ()) -> Record:
    """Go on where it stopped, with one more attempt at what has failed. ``skip``: nodes to leave as they are."""

    def change(found: Record) -> dict[str, Any]:
        _check_open(found)
        known = {entry.name for entry in found.plan.entries}
        if strangers := sorted(set(skip) - known):
            raise Refused(f"{', '.join(strangers)}: not in this rollout. See: kubectl cc rollout status.")
        skipped = tuple(sorted({*found.status.skipped, *skip}))
        again = bad(found, cluster.nodes(STATE_LABEL, found.rules.labels), time.time())
        return {"paused": None, "attempt": found.status.attempt + 1, "again": again, "skipped": skipped}

    return _change(cluster, change)


def bad(found: Record, nodes: dict[str, Node], now: float) -> tuple[str, ...]:
    """The nodes for which it pauses."""
    return tuple(name for name, one in standing.of(found, nodes, now).items() if one.kind == standing.BAD)


def undo(cluster: Cluster) -> Record:
    """Put the labels back that it has set, in waves, as carefully. Also of one that is over, until the next one."""

    def change(found: Record) -> dict[str, Any]:
        if found.status.phase not in (FORWARD, FINISHED, UNDO):
            raise Refused(f"The rollout {found.id} is undone already.")
        attempt = found.status.attempt + 1
        return {"phase": UNDO, "paused": None, "attempt": attempt, "again": (), "skipped": (), "passed": 0}

    return _change(cluster, change)


def _check_open(found: Record) -> None:
    if found.status.is_over:
        raise Refused(f"The rollout {found.id} is {found.status.phase} already.")


def _change(cluster: Cluster, change: Any) -> Record:
    """A change of the status, made again when the worker was faster."""
    for _attempt in range(AGAIN):
        found = existing(cluster)
        changed = change(found)
        if not changed:
            return found
        try:
            return record.read(cluster.patch_record(found.patch(found.at_status(at=time.time(), **changed))))
        except ApiError as error:
            if not error.is_conflict:
                raise
    raise Refused("Something else keeps changing the rollout at this moment. Try again.")


# --- what is printed --------------------------------------------------------------------------------------------------


def plan_lines(made: Plan) -> list[str]:
    """A dry run: the waves, and what is not in them."""
    rules = made.rules
    per = f" for each {rules.per}" if rules.per else ""
    lines = [
        f"{len(made.entries)} nodes to mode {rules.mode}; budget {rules.budget}{per}; pods with GPUs: {rules.busy}"
    ]
    for number, wave in enumerate(made.waves):
        head = "canary" if number == 0 else f"wave {number + 1}"
        lines.append(f"{head:8} {len(wave):4}  {' '.join(entry.name for entry in wave)}")
    if made.there:
        lines.append(f"in mode {rules.mode} already: {len(made.there)}")
    lines += [f"left out: {name}: {why}" for name, why in made.left_out.items()]
    return lines


def summary(found: Record, nodes: dict[str, Node], now: float) -> dict[str, Any]:
    """How it stands, for machines."""
    stands = standing.of(found, nodes, now)
    paused = found.status.paused
    waves = [
        {
            "nodes": [entry.name for entry in wave],
            "counts": dict(Counter(stands[entry.name].kind for entry in wave)),
        }
        for wave in found.plan.waves
    ]
    return {
        "id": found.id,
        "mode": found.rules.mode,
        "phase": found.status.phase,
        "by": found.by,
        "since": moment.text(found.at),
        "paused": None
        if paused is None
        else {"cause": paused.cause, "node": paused.node, "at": moment.text(paused.at)},
        "waves": waves,
        "counts": dict(Counter(one.kind for one in stands.values())),
        "nodes": {
            name: {"standing": one.kind, "why": one.why, "observed": one.node.observed if one.node else None}
            for name, one in stands.items()
        },
    }


def summary_lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    lines = [
        f"rollout {found['id']} to mode {found['mode']}: {found['phase']}; begun by {found['by']} at {found['since']}"
    ]
    if found["paused"]:
        lines.append(f"paused at {found['paused']['at']}: {found['paused']['cause']}")
    for number, wave in enumerate(found["waves"]):
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(wave["counts"].items()))
        lines.append(f"{'canary' if number == 0 else f'wave {number + 1}':8} {len(wave['nodes']):4}  {counts}")
    lines += [f"  {name}: {one['standing']}: {one['why']}" for name, one in found["nodes"].items() if one["why"]]
    return lines


def _words(found: Record) -> str:
    paused = f", paused: {found.status.paused.cause}" if found.status.paused else ""
    return (
        f"The rollout {found.id} to mode {found.rules.mode}, begun by {found.by} at {moment.text(found.at)}, "
        f"is not over ({found.status.phase}{paused})."
    )
