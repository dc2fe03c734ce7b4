# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The record of a rollout: its plan, and how it stands, as a ConfigMap keeps them.

What becomes of each node is not in it: that is seen on the nodes. The plan is never changed; the status is written with
the resource version that it was read with, so that of two who change it at once one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from . import moment
from .names import RECORD
from .plan import Entry, Plan
from .rules import Refused, Rules

FORWARD, UNDO, FINISHED, UNDONE = "forward", "undo", "done", "undone"
PHASES = (FORWARD, UNDO, FINISHED, UNDONE)
VERSION = 1
PLAN, STATUS = "plan", "status"
# etcd takes no object of more than 1.5 MiB, the API server no ConfigMap of more than one.
MAX_BYTES = 1_000_000


class Unreadable(ValueError):
    """The ConfigMap is there and is no record; the text says why and what to do."""


@dataclass(frozen=True)
class Pause:
    """Why nothing more is begun. ``node``: whose fault it is; empty: a user asked for it."""

    cause: str
    node: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class Status:
    """``passed``: so many waves have passed their gates. ``attempt``: counted up by each resume.

    ``again``: nodes that were bad at the last resume, and get one more attempt. ``skipped``: nodes that are left as
    they are.
    """

    phase: str = FORWARD
    paused: Pause | None = None
    passed: int = 0
    attempt: int = 0
    again: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    at: float = 0.0

    @property
    def is_over(self) -> bool:
        """True when nothing is left to do."""
        return self.phase in (FINISHED, UNDONE)

    def text(self) -> str:
        """As it is kept."""
        paused = None if self.paused is None else {**asdict(self.paused), "at": moment.text(self.paused.at)}
        return json.dumps({**asdict(self), "paused": paused, "at": moment.text(self.at)}, sort_keys=True)


@dataclass(frozen=True)
class Record:
    """``by``: who started it. ``version``: of the object."""

    id: str
    plan: Plan
    status: Status = field(default_factory=Status)
    by: str = ""
    at: float = 0.0
    version: str = ""

    @property
    def rules(self) -> Rules:
        """Of its plan."""
        return self.plan.rules

    def body(self, namespace: str) -> dict[str, Any]:
        """The whole ConfigMap. Raises Refused when there are too many nodes for one."""
        data = {PLAN: _plan_text(self), STATUS: self.status.text()}
        if sum(map(len, data.values())) > MAX_BYTES:
            raise Refused(f"A plan of {len(self.plan.entries)} nodes fits in no ConfigMap. Roll out to a part of them.")
        metadata: dict[str, Any] = {"name": RECORD, "namespace": namespace}
        if self.version:
            metadata["resourceVersion"] = self.version
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}

    def patch(self, status: Status) -> dict[str, Any]:
        """A merge patch that only holds for the version that this was read with."""
        return {"metadata": {"resourceVersion": self.version}, "data": {STATUS: status.text()}}

    def at_status(self, **changed: Any) -> Status:
        """The status with other values."""
        return replace(self.status, **changed)


def read(found: Mapping[str, Any]) -> Record:
    """From a ConfigMap. Raises Unreadable: nothing is guessed of what was edited, or is another version's."""
    try:
        version = str(found["metadata"]["resourceVersion"])
        plan, status = json.loads(found["data"][PLAN]), json.loads(found["data"][STATUS])
        if plan["version"] != VERSION or status["phase"] not in PHASES:
            raise ValueError("another version's")
        record = Record(str(plan["id"]), _plan(plan), _status(status), plan["by"], moment.seconds(plan["at"]), version)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(
            f"The ConfigMap {RECORD} is no record of a rollout that this version can read "
            f"({type(error).__name__}: {str(error)[:100]}). See what it holds, and who made it."
        ) from None
    return record


def _plan_text(record: Record) -> str:
    plan = record.plan
    rules = {**asdict(plan.rules), "gates": dict(plan.rules.gates)}
    waves = [[[one.name, one.before, one.state, one.part] for one in wave] for wave in plan.waves]
    head = {"version": VERSION, "id": record.id, "by": record.by, "at": moment.text(record.at), "rules": rules}
    return json.dumps({**head, "waves": waves, "budgets": dict(plan.budgets)}, sort_keys=True)


def _plan(found: Mapping[str, Any]) -> Plan:
    rules = dict(found["rules"])
    rules["gates"] = tuple(sorted((str(kind), str(digest)) for kind, digest in rules["gates"].items()))
    waves = tuple(
        tuple(
            Entry(str(name), None if before is None else str(before), str(state), str(part))
            for name, before, state, part in wave
        )
        for wave in found["waves"]
    )
    return Plan(Rules(**rules), waves, {str(part): int(count) for part, count in found["budgets"].items()})


def _status(found: Mapping[str, Any]) -> Status:
    paused = found["paused"]
    return Status(
        str(found["phase"]),
        None if paused is None else Pause(str(paused["cause"]), str(paused["node"]), moment.seconds(paused["at"])),
        int(found["passed"]),
        int(found["attempt"]),
        tuple(str(name) for name in found["again"]),
        tuple(str(name) for name in found["skipped"]),
        moment.seconds(found["at"]),
    )
