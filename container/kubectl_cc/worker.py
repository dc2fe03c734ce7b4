# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Who works on a rollout: watches, one thread that decides and writes, and the Lease that keeps others out.

All that this process knows is in the API, so it may be killed at any moment: the next one goes on with what it finds.
What it remembers beyond that (pods that it saw, since when it is stuck, examinations under way) only makes it wait.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kube.client import SILENCE_S, ApiError, Kube
from kube.delay import Delay
from kube.events import Events, Subject
from kube.lease import Elector, Lost, Times
from kube.watch import Kept, Watch

from . import decide, record, standing, steps
from .cluster import Cluster
from .decide import Gate, Seen, Users
from .gates import Examiner, Gates, Wave
from .mirror import Mirror
from .names import AGENT, DONE, FAILED, NAMESPACE, PAUSED, RECORD
from .node import Node
from .record import Record
from .steps import Finish, Halt, Look, Pass, Rest, RunGate, Wait

LOG = logging.getLogger(__name__)
TIMES = Times()
# The longest wait without looking after the watches.
LOOK_AFTER_S = 30.0


class Stop(Exception):
    """Nothing more can be done here. ``status``: to exit with."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Told:
    """What threads tell the worker: ``what`` it is, and what there is to it."""

    what: str
    about: Any = None


LEADS, LOST, NODES, NODE, RECORDS, FAILURE, EXAMINED, ASKED = (
    "leads",
    "lost",
    "nodes",
    "node",
    "record",
    "failure",
    "examined",
    "asked to stop",
)


@dataclass(frozen=True)
class Reread:
    """Ask for a node as it is now."""

    name: str


class Worker:
    """``say`` gets a line for each thing that happens. ``for_ever``: goes on to wait when it is paused, or over."""

    def __init__(
        self,
        kube: Kube,
        gates: Gates,
        say: Callable[[str], None],
        namespace: str = NAMESPACE,
        times: Times = TIMES,
        for_ever: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._say = say
        self._gates = gates
        self._for_ever = for_ever
        self._now = now
        self._inbox: queue.SimpleQueue[Told] = queue.SimpleQueue()
        identity = f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}"
        self._elector = Elector(
            kube,
            namespace,
            RECORD,
            identity,
            lambda: self._inbox.put(Told(LEADS)),
            lambda: self._inbox.put(Told(LOST)),
            times,
        )
        self._cluster = Cluster(kube, namespace, self._elector.check)
        self._events = Events(kube, AGENT, socket.gethostname())
        self._examiner = Examiner(
            gates, kube, namespace, lambda wave, why: self._inbox.put(Told(EXAMINED, (wave, why)))
        )
        self._kube = kube
        self._mirror = Mirror()
        self._doubtful: set[str] = set()  # nodes to read again
        self._record: Record | None = None
        self._there_is_none = False
        self._memo = standing.Memo()
        self._users: dict[str, Users] = {}
        self._gate: dict[tuple[int, int], Gate] = {}  # by wave and attempt
        self._stuck_since: float | None = None
        self._stuck = ""
        self._watches: dict[str, Kept] = {}
        self._delay = Delay()
        self.steps = 0  # carried out

    def run(self) -> int:
        """Until it is over or paused, or a stop is asked for; the exit status."""
        self._elector.start()
        try:
            self._watch_record()
            self._wait_for_lease()
            while True:
                self._act()
        except Stop as stop:
            if str(stop):
                self._say(str(stop))
            return stop.status
        except Lost as lost:
            self._say(f"{lost} Another process may work on the rollout; this one ends.")
            return FAILED
        finally:
            self._examiner.end()
            for watch in self._watches.values():
                watch.end()
            self._elector.end()

    def stop(self) -> None:
        """Ask for the end, from any thread. What was begun stays as it is, for the next one to go on with."""
        self._inbox.put(Told(ASKED))

    # --- the loop -----------------------------------------------------------------------------------------------------

    def _wait_for_lease(self) -> None:
        """Until this process has the lock, or the one that has it has come to an end with the rollout."""
        told_of = ""
        while not self._elector.is_leading:
            try:
                self._take(self._inbox.get(timeout=1.0))
            except queue.Empty:
                self._check_lock()
                if self._elector.holder not in ("", told_of):
                    told_of = self._elector.holder
                    self._say(f"{told_of} works on the rollout, or has just been killed; following it.")
            found = self._record
            if found is not None and told_of and (found.status.is_over or found.status.paused is not None):
                self._rest(found)

    def _check_lock(self) -> None:
        problem = self._elector.problem
        if problem is not None and problem.is_forbidden and not self._for_ever:
            raise Stop(FAILED, f"The lock cannot be had: {problem}")

    def _act(self) -> None:
        """Take the messages, then do one thing, or wait."""
        self._drain()
        record_ = self._record
        if record_ is None:
            if self._there_is_none and not self._for_ever:
                raise Stop(FAILED, "There is no rollout. Start one: kubectl cc rollout start --help.")
            self._wait(None)
            return
        if "nodes" not in self._watches:
            if record_.status.phase == record.FORWARD:
                self._gates.check(record_.rules)
            self._watch_nodes(record_)
        if not self._mirror.is_complete or not self._is_fresh():
            self._wait(None)
            return
        if self._doubtful:
            self._carry_out(record_, Reread(self._doubtful.pop()))
            return
        step = decide.next_step(self._seen(record_))
        self._note_stuck(step)
        if isinstance(step, Wait):
            self._wait(step.until)
        elif isinstance(step, Rest):
            self._rest(record_)
        else:
            self._carry_out(record_, step)

    def _seen(self, record_: Record) -> Seen:
        attempt = record_.status.attempt
        gates = {wave: gate for (wave, of_attempt), gate in self._gate.items() if of_attempt == attempt}
        return Seen(record_, self._mirror.nodes, self._now(), self._users, gates, self._stuck_since, self._memo)

    def _is_fresh(self) -> bool:
        """False while the API has said nothing for long: what is known then is not good enough to take a node."""
        now = time.monotonic()
        return all(now - watch.heard_at < 2 * SILENCE_S for watch in self._watches.values())

    def _note_stuck(self, step: steps.Step) -> None:
        stuck = step.stuck if isinstance(step, Wait) else ""
        if not stuck:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = self._now()
        if stuck and stuck != self._stuck:
            self._say(f"Waiting: {stuck}")
        self._stuck = stuck

    def _rest(self, record_: Record) -> None:
        pause = record_.status.paused
        if self._for_ever:
            self._wait(None)
        elif pause is not None:
            raise Stop(PAUSED, f"Paused. {pause.cause}")
        else:
            raise Stop(DONE, f"The rollout {record_.id} is {record_.status.phase}.")

    def _wait(self, until: float | None) -> None:
        """Until a message comes, or a moment has come. Watches are looked after meanwhile."""
        for name, watch in self._watches.items():
            if watch.revive():
                LOG.error("The watch of %s hung or died, and is started again.", name)
        left_s = LOOK_AFTER_S if until is None else min(LOOK_AFTER_S, max(0.05, until - self._now()))
        try:
            self._take(self._inbox.get(timeout=left_s))
        except queue.Empty:
            return

    def _drain(self) -> None:
        try:
            while True:
                self._take(self._inbox.get_nowait())
        except queue.Empty:
            return

    def _take(self, told: Told) -> None:
        if told.what == ASKED:
            raise Stop(FAILED, "Stopped. It goes on with: kubectl cc rollout run.")
        if told.what == LOST:
            raise Lost("The lock was lost.")
        if told.what == NODES:
            self._doubtful.update(self._mirror.listed(map(Node.of, told.about)))
        elif told.what == NODE:
            kind, found = told.about
            self._mirror.told(kind, Node.of(found))
        elif told.what == RECORDS:
            self._take_record(told.about)
        elif told.what == EXAMINED:
            wave, why = told.about
            self._gate[wave.number, wave.attempt] = Gate(True, why)
        elif told.what == FAILURE:
            self._say(f"The API does not answer as it should, it is tried again: {told.about}")

    def _take_record(self, found: list[dict[str, Any]]) -> None:
        if not found:
            self._record, self._there_is_none = None, True
            return
        made = record.read(found[0])
        known = self._record
        if known is not None and known.id == made.id and _number(made) < _number(known):
            return  # from before one's own write
        if known is not None and known.id != made.id:
            if not self._for_ever:
                raise Stop(FAILED, f"The rollout {known.id} was replaced by {made.id}.")
            self._forget()
        elif known is not None and known.status.attempt != made.status.attempt:
            self._users, self._stuck_since = {}, None
        self._record = made

    def _forget(self) -> None:
        """What was known of another rollout."""
        self._watches.pop("nodes").end()
        self._mirror, self._doubtful = Mirror(), set()
        self._users, self._gate, self._stuck_since = {}, {}, None

    # --- the watches --------------------------------------------------------------------------------------------------

    def _watch_record(self) -> None:
        def make(_kept: Kept) -> Watch:
            return Watch(
                self._kube,
                self._cluster.records(),
                lambda objects, _fresh: self._inbox.put(Told(RECORDS, objects)),
                self._failed,
            )

        self._watches["record"] = Kept(make)

    def _watch_nodes(self, record_: Record) -> None:
        def make(_kept: Kept) -> Watch:
            return Watch(
                self._kube,
                self._cluster.resource(keep=record_.rules.labels),
                lambda objects, _fresh: self._inbox.put(Told(NODES, objects)),
                self._failed,
                each=lambda kind, found: self._inbox.put(Told(NODE, (kind, found))),
            )

        self._watches["nodes"] = Kept(make)

    def _failed(self, error: ApiError) -> None:
        self._inbox.put(Told(FAILURE, error))

    # --- the steps ----------------------------------------------------------------------------------------------------

    def _carry_out(self, record_: Record, step: steps.Step | Reread) -> None:
        try:
            if isinstance(step, Reread):
                self._read(step.name)
            else:
                self._do(record_, step)
        except ApiError as error:
            self._survive(step, error)
        else:
            self.steps += 1
            self._delay.reset()

    def _survive(self, step: steps.Step | Reread, error: ApiError) -> None:
        """Somebody else has changed it: look again. Anything else is tried again, for a right may be given yet."""
        if isinstance(step, Reread):
            self._doubtful.add(step.name)
        if error.is_conflict:
            if isinstance(step, steps.Change):
                self._doubtful.add(step.node.name)
            else:
                self._record = None  # the watch begins with it as it is
                self._watches.pop("record").end()
                self._watch_record()
            return
        if error.status == 404 and isinstance(step, steps.Change):
            self._mirror.read(step.node.name, None)
            return
        if error.is_forbidden and not self._for_ever:
            raise Stop(FAILED, f"A right is missing: {error}") from error
        self._say(f"It is tried again: {error}")
        self._wait(self._now() + max(self._delay.next(), error.retry_after_s))

    def _read(self, name: str) -> None:
        try:
            self._mirror.read(name, self._cluster.node(name))
        except ApiError as error:
            if error.status != 404:
                raise
            self._mirror.read(name, None)

    def _do(self, record_: Record, step: steps.Step) -> None:
        if isinstance(step, steps.Change):
            self._say(_words(step))
            self._mirror.read(step.node.name, self._cluster.patch(step.node.name, steps.patch(step)))
            self._users.pop(step.node.name, None)
        elif isinstance(step, Look):
            pods = self._cluster.users(step.node.name)
            self._users[step.node.name] = Users(self._now(), tuple(sorted(pod.words for pod in pods)))
        elif isinstance(step, RunGate):
            self._examine(record_, step.wave)
        elif isinstance(step, Pass):
            self._say(f"Wave {step.waves} has passed.")
            self._write(record_, passed=step.waves)
        elif isinstance(step, Halt):
            uid = self._write(record_, paused=step.pause)
            self._event(uid, "Warning", "RolloutPaused", f"Rollout {record_.id} is paused. {step.pause.cause}")
        elif isinstance(step, Finish):
            uid = self._write(record_, phase=step.phase)
            self._event(uid, "Normal", "RolloutEnded", f"Rollout {record_.id} is {step.phase}.")

    def _examine(self, record_: Record, number: int) -> None:
        wave = decide.waves(record_)[number]
        names = [one.name for one in wave if one.name not in record_.status.skipped]
        self._gate[number, record_.status.attempt] = Gate()
        self._say(f"Wave {number + 1} is in its mode, and is examined.")
        about = Wave(record_.id, number, names, record_.status.attempt, record_.rules.settle_s)
        self._examiner.begin(about)

    def _write(self, record_: Record, **changed: Any) -> str:
        """A status for the version that was decided on; another's change is seen first. Returns the record's uid."""
        status = record_.at_status(at=self._now(), **changed)
        found = self._cluster.patch_record(record_.patch(status))
        self._record = record.read(found)
        return str(found["metadata"].get("uid", ""))

    def _event(self, uid: str, kind: str, reason: str, message: str) -> None:
        """The record says the same, so a rollout goes on without the right to make Events."""
        about = Subject("ConfigMap", RECORD, uid, self._cluster.namespace)
        try:
            self._events.tell(about, kind, reason, message)
        except ApiError as error:
            self._say(f"No Event could be made: {error}")


def _words(step: steps.Change) -> str:
    name = step.node.name
    if isinstance(step, steps.Take):
        what = "another attempt at" if step.node.desired == step.claim.mode else "label set to"
        return f"{name}: {what} {step.claim.mode}"
    if isinstance(step, steps.Hold):
        return f"{name}: cordoned until its pods have ended"
    observed = step.node.observed or "no mode"
    return f"{name}: released, in mode {observed}"


def _number(made: Record) -> int:
    return int(made.version) if made.version.isdecimal() else 0
