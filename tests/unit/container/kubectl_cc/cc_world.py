# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A fleet without an API: nodes as objects, CC managers that answer when they are told to, and a worker without memory.

What must hold is looked at here, from the objects alone, whatever the code under test thinks of them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from cc_bed import gpu_node
from cc_manager.names import (
    CHANGING_ANNOTATION,
    DEVICES_ANNOTATION,
    MODE_LABEL,
    MODES,
    REASON_ANNOTATION,
    RETRIED_ANNOTATION,
    RETRY_ANNOTATION,
    STATE_LABEL,
)
from fake_api.store import merged
from kubectl_cc import decide, plan, record, rollout, standing, steps
from kubectl_cc.decide import Gate, Seen, Users
from kubectl_cc.names import ROLLOUT_ANNOTATION, ZONE
from kubectl_cc.node import Node
from kubectl_cc.record import UNDO, Record, Status
from kubectl_cc.rules import Rules

RACK = "example.com/rack"
ID = "r1"
STEPS_MAX = 4000


class World:
    """``pods``: node to pods that hold its GPUs. ``broken``: nodes whose CC managers fail.

    ``devices``: the mode that the devices of a node are in. ``begun``: what its CC manager works on, and says later.
    """

    def __init__(
        self, rules: Rules, zones: dict[str, str], racks: dict[str, str] | None = None, mode: str = "off"
    ) -> None:
        self.objects: dict[str, Any] = {}
        self._nodes: dict[str, Node] = {}
        self._read: tuple[Any, Record] | None = None
        self._version = 0
        self.now = 1_000_000.0
        self.devices = dict.fromkeys(zones, mode)
        self.begun: dict[str, str] = {}
        for name, zone in zones.items():
            made = gpu_node(name, mode, zone, **{RACK: (racks or {}).get(name, "")})
            made["metadata"]["annotations"][DEVICES_ANNOTATION] = "{}"
            self._store(name, made)
        made_plan = plan.make(rules, self.nodes(), list(zones))
        first = Record(ID, made_plan, Status(at=self.now), "somebody", self.now, "1")
        self.text = first.body("kube-system")
        self.pods: dict[str, set[str]] = {}
        self.broken: set[str] = set()
        self.failed_since_resume: set[str] = set()
        self.gate_fails = False
        self.taken: list[str] = []
        self.forget()

    def _store(self, name: str, found: Any) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self.objects[name] = found
        self._nodes[name] = Node.of(found)

    # --- what there is ------------------------------------------------------------------------------------------------

    @property
    def record(self) -> Record:
        """As the ConfigMap has it: through its text."""
        if self._read is None or self._read[0] is not self.text:
            self._read = (self.text, record.read(self.text))
        return self._read[1]

    def nodes(self) -> dict[str, Node]:
        return dict(self._nodes)

    def label(self, name: str) -> str:
        return str(self.objects[name]["metadata"]["labels"].get(MODE_LABEL, ""))

    def state(self, name: str) -> str:
        return str(self.objects[name]["metadata"]["labels"].get(STATE_LABEL, ""))

    def claim(self, name: str) -> Any:
        return json.loads(self.objects[name]["metadata"]["annotations"].get(ROLLOUT_ANNOTATION, "null"))

    def is_cordoned(self, name: str) -> bool:
        return bool(self.objects[name]["spec"].get("unschedulable"))

    def is_out(self, name: str) -> bool:
        """Out of service, by what stands on the object."""
        found = self.objects[name]
        claim = self.claim(name)
        return (
            found["status"]["conditions"][0]["status"] != "True"
            or self.is_cordoned(name)
            or CHANGING_ANNOTATION in found["metadata"]["annotations"]
            or self.state(name) not in MODES
            or self.label(name) not in ("", self.state(name))
            or (claim is not None and claim["stage"] != "done")
        )

    # --- what others do -----------------------------------------------------------------------------------------------

    def change(
        self, name: str, labels: Any = None, annotations: Any = None, spec: Any = None, ready: Any = None
    ) -> None:
        patch: dict[str, Any] = {
            "metadata": {"labels": labels or {}, "annotations": annotations or {}},
            "spec": spec or {},
        }
        if ready is not None:
            patch["status"] = {"conditions": [{"type": "Ready", "status": "True" if ready else "Unknown"}]}
        self._store(name, merged(self.objects[name], patch))

    def manager(self, name: str) -> bool:
        """The CC manager of a node does the next thing, if there is one: it sees, begins, ends, or reads again."""
        label, annotations = self.label(name), self.objects[name]["metadata"]["annotations"]
        asked = annotations.get(RETRY_ANNOTATION)
        if CHANGING_ANNOTATION in annotations:
            self._end(name, label)
        elif name in self.begun:  # with no look at the label: that comes before it writes to the devices
            self.change(name, {STATE_LABEL: ""}, {CHANGING_ANNOTATION: self.begun[name]})
        elif label and label != self.state(name) and (self.state(name) != "failed" or name not in self.broken):
            self.begun[name] = label
        elif asked != annotations.get(RETRIED_ANNOTATION) and self.state(name) != "failed":
            self.change(name, {STATE_LABEL: self.devices[name]}, {RETRIED_ANNOTATION: asked})
        else:
            return False
        return True

    def _end(self, name: str, label: str) -> None:
        """Of a change; of one that is not asked for any more without a touch."""
        asked = self.objects[name]["metadata"]["annotations"].get(RETRY_ANNOTATION)
        if self.begun.pop(name) != label:
            self.change(name, {STATE_LABEL: self.devices[name]}, {CHANGING_ANNOTATION: None})
            return
        if name in self.broken:
            self.failed_since_resume.add(name)
            self.change(name, {STATE_LABEL: "failed"}, {CHANGING_ANNOTATION: None, REASON_ANNOTATION: "it is broken"})
            return
        self.devices[name] = label
        cleared = {CHANGING_ANNOTATION: None, REASON_ANNOTATION: None, RETRIED_ANNOTATION: asked}
        self.change(name, {STATE_LABEL: label}, cleared)

    def status(self, **changed: Any) -> None:
        """The user, or the worker, writes the status."""
        found = self.record
        self.text = replace(found, status=found.at_status(**changed)).body("kube-system")
        self.text["metadata"]["resourceVersion"] = str(int(found.version) + 1)

    def resume(self, skip: tuple[str, ...] = ()) -> None:
        status = self.record.status
        self.failed_since_resume.clear()
        again = rollout.bad(self.record, self.nodes(), self.now)
        skipped = tuple(sorted({*status.skipped, *skip}))
        self.status(paused=None, attempt=status.attempt + 1, again=again, skipped=skipped)

    def undo(self) -> None:
        self.failed_since_resume.clear()
        attempt = self.record.status.attempt + 1
        self.status(phase=UNDO, paused=None, attempt=attempt, again=(), skipped=(), passed=0)

    # --- the worker ---------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """It is killed, and another begins."""
        self.users: dict[str, Users] = {}
        self.gates: dict[int, Gate] = {}
        self.stuck_since: float | None = None
        self.memo = standing.Memo()

    def seen(self) -> Seen:
        return Seen(self.record, self.nodes(), self.now, self.users, self.gates, self.stuck_since, self.memo)

    def work(self) -> steps.Step:
        """One step of the worker, with all that must hold."""
        seen = self.seen()
        step = decide.next_step(seen)
        assert step == decide.next_step(replace(seen, memo=None)), "what is remembered is not what is"
        if isinstance(step, steps.Take | steps.Hold):
            self._check(step)
        stuck = isinstance(step, steps.Wait) and step.stuck
        self.stuck_since = (self.stuck_since or self.now) if stuck else None
        if isinstance(step, steps.Change):
            assert step.node.version == self.objects[step.node.name]["metadata"]["resourceVersion"]
            was_cordoned, had = self.is_cordoned(step.node.name), self.claim(step.node.name)
            if isinstance(step, steps.Release):
                self._check_release(step.node.name, had)
            self._store(step.node.name, merged(self.objects[step.node.name], steps.patch(step)))
            if was_cordoned and not self.is_cordoned(step.node.name):
                assert had is not None, "uncordoned what somebody else had cordoned"
                assert had["cordoned"], "uncordoned what somebody else had cordoned"
            self.users.pop(step.node.name, None)
        elif isinstance(step, steps.Look):
            self.users[step.node.name] = Users(self.now, tuple(sorted(self.pods.get(step.node.name, ()))))
        elif isinstance(step, steps.RunGate):
            self.gates[step.wave] = Gate(True, "no" if self.gate_fails else "")
        elif isinstance(step, steps.Pass):
            self.status(passed=step.waves)
        elif isinstance(step, steps.Halt):
            self.gates.clear()
            self.status(paused=step.pause)
        elif isinstance(step, steps.Finish):
            self.status(phase=step.phase)
        elif isinstance(step, steps.Wait) and step.until is not None:
            assert step.until > self.now, "it would ask again at once"
        return step

    def _check_release(self, name: str, had: Any) -> None:
        """Of a node whose label was set, and which is asked for nothing else since: its CC manager has answered."""
        if had["stage"] == "set" and had["mode"] == self.label(name) and name not in self.record.status.skipped:
            assert self.devices[name] == had["mode"], f"{name} is let go in mode {self.devices[name]}"
            assert name not in self.begun, f"{name} is let go while its CC manager works on {self.begun[name]}"

    def _check(self, step: steps.Take | steps.Hold) -> None:
        """Before a node is taken."""
        name, found = step.node.name, self.record
        assert found.status.paused is None, f"{name} is taken while the rollout is paused"
        # One that was bad at the resume has an attempt to come, whatever it was bad for.
        due = {
            one for one in found.status.again if (self.claim(one) or {"attempt": 0})["attempt"] < found.status.attempt
        }
        others = self.failed_since_resume - set(found.status.skipped) - due - {name}
        assert not others, f"{name} is taken after a failure of {others}"
        had = self.claim(name)
        if name in self.failed_since_resume and found.status.phase != UNDO:
            assert name in found.status.again, f"{name} is tried again though nobody has resumed it"
            assert had["attempt"] < found.status.attempt, f"{name} is tried again more than once"
        self.failed_since_resume.discard(name)
        assert name not in found.status.skipped
        entry = next(one for one in found.plan.entries if one.name == name)
        if not self.is_out(name):
            members = [one.name for one in found.plan.entries if one.part == entry.part]
            out = [one for one in members if self.is_out(one) and one not in found.status.skipped]
            assert len(out) + 1 <= found.plan.budgets[entry.part], f"{name} is taken beside {out}"
            zone = self.objects[name]["metadata"]["labels"][ZONE]
            ready = [
                one
                for one in self.objects
                if one != name and self.objects[one]["metadata"]["labels"][ZONE] == zone and not self.is_out(one)
            ]
            assert ready, f"{name} is the last ready node of {zone}"
        if found.status.phase != UNDO and (had is None or had["stage"] == "done"):  # else it is taken already
            number = next(at for at, wave in enumerate(found.plan.waves) if entry in wave)
            before = [one.name for wave in found.plan.waves[:number] for one in wave]
            late = [one for one in before if one not in found.status.skipped and self.state(one) != found.rules.mode]
            assert not late, f"{name} is taken before {late}"
            assert not found.rules.is_gated or number <= found.status.passed
        if isinstance(step, steps.Take):
            if step.claim.mode != self.label(name):
                assert not self.pods.get(name) or found.rules.busy == "drain", f"{name} is in use"
            self.taken.append(name)

    def settle(self, kill: frozenset[int] = frozenset()) -> None:
        """Until it is over or paused, with quick CC managers; ``kill``: before these steps the worker is killed."""
        for number in range(STEPS_MAX):
            if number in kill:
                self.forget()
            step = self.work()
            if isinstance(step, steps.Rest):
                return
            if isinstance(step, steps.Wait):
                moved = [self.manager(name) for name in self.objects]
                if not any(moved):
                    self.now = max(self.now + 1, step.until or 0.0)
        raise AssertionError("it comes to no end")

    def end(self) -> dict[str, tuple[str, str, bool]]:
        """What is left on the nodes: label, state, cordoned."""
        return {name: (self.label(name), self.state(name), self.is_cordoned(name)) for name in self.objects}


def parts(made: plan.Plan) -> list[Counter[str]]:
    """How many of each part are in each wave."""
    return [Counter(entry.part for entry in wave) for wave in made.waves]
