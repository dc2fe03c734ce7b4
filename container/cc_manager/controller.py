# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what ``reconcile`` says, step by step, and keeps what is seen up to date. It decides nothing itself.

One thread; all others only put messages into its inbox. Nothing is waited for here but the API's answers.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from kube.client import ApiError

from . import desired as desired_modes
from . import outcome, reconcile, steps
from . import reading as readings
from .audit import Audit
from .desired import Desired
from .messages import Message, NodeSeen, PodsSeen, RunEnded, RunPlanned, StopAsked, WatchFailed
from .metrics import CCManagerMetrics
from .names import READY_LABEL, REASON_ANNOTATION, STATE_LABEL
from .node import Node, Patch
from .pod import Pod
from .publish import Status
from .retry import Rules
from .run import Job
from .seen import CHANGE, READ, Drained, Pods, Policy, Run, Seen
from .settings import Settings

if TYPE_CHECKING:
    from .answers import ChangedDevice

LOG = logging.getLogger(__name__)
# Without the right to make Events; an API server that has just started refuses what it allows a moment later.
EVENTS_AGAIN_S = 600.0
# More steps than these without a pause are a fault of this program; then it pauses all the same.
STEPS_MAX, BREATH_S = 100, 10.0
# After a request that failed. Conflicts are tried again at once, unless there are so many in a row.
API_DELAY_S, API_LONGEST_S = 0.5, 30.0
CONFLICTS_AT_ONCE = 4


class Cluster(Protocol):
    """The requests; see cluster.Cluster."""

    def node(self) -> Node: ...

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node: ...

    def pods(self) -> tuple[Pod, ...]: ...

    def components_pods(self) -> tuple[Pod, ...]: ...

    def evict(self, pod: Pod) -> None: ...

    def event(self, kind: str, reason: str, message: str) -> None: ...


class PodWatch(Protocol):
    """A watch that can be ended."""

    def end(self) -> None: ...


class PlaybookRun(Protocol):
    """A run; see run.PlaybookRun."""

    number: int

    def open_gate(self) -> None: ...

    def close_gate(self) -> None: ...

    def kill(self) -> None: ...


class Runner(Protocol):
    """Starts runs; see run.Runner."""

    def start(self, job: Job) -> PlaybookRun: ...


class Readiness(Protocol):
    """The readiness file; see readiness.ReadinessFile."""

    def write(self) -> None: ...

    def remove(self) -> None: ...


def policy_of(settings: Settings) -> Policy:
    """What of the settings decides."""
    return Policy(
        settings.default_cc_mode,
        settings.evict_operator_components,
        settings.busy,
        settings.busy_timeout_s,
        settings.eviction_timeout_s,
        settings.boot_timeout_s,
        settings.drift_interval_s,
        settings.drift_repair,
        Rules(settings.retry_limit, settings.retry_delay_s),
    )


def _jitter() -> float:
    return random.uniform(0.75, 1.0)


class Controller:
    """One node. ``watch_pods`` starts a watch of the pods on it, of the components' namespace or of all (True)."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        runner: Runner,
        watch_pods: Callable[[bool], PodWatch],
        readiness: Readiness,
        metrics: CCManagerMetrics,
        now: Callable[[], float],
        boot: str,
        jitter: Callable[[], float] = _jitter,
        audit: Audit | None = None,
    ) -> None:
        self._node_name = settings.node_name
        self._audit = audit
        self._cluster = cluster
        self._runner = runner
        self._watch_pods = watch_pods
        self._readiness = readiness
        self._metrics = metrics
        self._now = now
        self._jitter = jitter
        self.seen = Seen(now(), policy_of(settings), boot)
        self._run: PlaybookRun | None = None
        self._watches: dict[bool, PodWatch] = {}
        self._stale = False  # a request may or may not have been carried out: look at the node again
        self._blocked_until = 0.0
        self._api_failures = 0
        self._events_again_at = now()
        self._last_event = ""
        self._elsewhere_denied = False  # said once, not at each change
        self.settled = False  # the node has been told what is known
        self.stopped = False
        readiness.remove()
        self._record(Audit.start)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def handle(self, message: Message) -> None:
        """Take in one message."""
        self._see(now=self._now(), looked=False)
        if isinstance(message, NodeSeen):
            self._node_seen(message)
        elif isinstance(message, PodsSeen):
            self._pods_seen(message)
        elif isinstance(message, RunPlanned):
            if self._is_current(message.run) and self.seen.run is not None:
                self._metrics.phase("run", self._now() - self.seen.run.since)
                self._see(run=replace(self.seen.run, planned=True))
        elif isinstance(message, RunEnded):
            if self._is_current(message.run):
                self._run_ended(message.result, message.failed)
        elif isinstance(message, WatchFailed):
            self._metrics.watch_restarts.labels(message.what).inc()
            LOG.warning("The watch of %s failed and is started again: %s", message.what, message.error)
        elif isinstance(message, StopAsked) and self.seen.stopping_since is None:
            LOG.info("Asked to stop.")
            self._readiness.remove()
            self._see(stopping_since=message.at)

    def _see(self, **changes: Any) -> None:
        self.seen = replace(self.seen, **changes)

    def _is_current(self, number: int) -> bool:
        return self._run is not None and self._run.number == number

    def _node_seen(self, message: NodeSeen) -> None:
        node, known = message.node, self.seen.node
        if node is None:
            LOG.warning("The node %s is not there. Is NODE_NAME right (kubectl get nodes)?", self._node_name)
        elif known is not None and _is_older(node, known):
            # A watch runs behind the answers to our own patches. A list may, too; or the cluster was put back to an
            # older state, and its versions count again from there: the node itself tells.
            self._stale = self._stale or message.fresh
            return
        self._see(node=node)

    def _pods_seen(self, message: PodsSeen) -> None:
        name = "everywhere" if message.everywhere else "pods"
        known: Pods | None = getattr(self.seen, name)
        if known is None or message.watch is not self._watches.get(message.everywhere):
            return  # of a watch that was ended
        if message.everywhere:
            self._note_denied(message.denied)
        self._see(**{name: known.are_denied(message.denied) if message.denied else known.are(message.pods)})

    def _note_denied(self, denied: str) -> None:
        if denied and not self._elsewhere_denied:
            LOG.warning(
                "Pods of other namespaces cannot be seen, so who uses GPUs shows only at the devices: %s", denied
            )
        self._elsewhere_denied = bool(denied)

    # --- what becomes of runs -----------------------------------------------------------------------------------------

    def _run_ended(self, result: Mapping[str, Any], failed: bool) -> None:
        before, run = self.seen, self.seen.run
        self._run = None
        self.seen = outcome.run_ended(before, result, failed, self._jitter())
        if run is None:
            return
        if self.seen.reading is not None:
            self._metrics.show_devices(self.seen.reading)
        if run.kind == READ:
            self._count_reading(before, result, failed)
        else:
            self._count_change(before, run, result)
            if run.opened:
                reason = outcome.reason_of(result) if failed else ""
                self._record(lambda audit: audit.ended(run, before.reading, self.seen, reason))
        self._count_failure(before)

    def _count_reading(self, before: Seen, result: Mapping[str, Any], failed: bool) -> None:
        if failed:
            LOG.error("The devices could not be read: %s", outcome.reason_of(result))
            self._metrics.failures.labels(outcome.kind_of(result)).inc()
        elif self.seen.reading is not None and self.seen.reading is not before.reading:
            self._metrics.last_reading.set_to_current_time()
            if before.reading is not None:
                self._count_drift(before.reading, self.seen.reading)
            else:
                found = self.seen.reading
                self._record(lambda audit: audit.read(found))

    def _count_drift(self, before: readings.Reading, now: readings.Reading) -> None:
        known = before.modes()
        moved = [one for one in now.devices if one.mode is not None and known.get(one.address, one.mode) != one.mode]
        for device in moved:
            self._metrics.drift.inc()
            LOG.warning("%s was left in mode %s and is in %s.", device.address, known[device.address], device.mode)
        for address in sorted(set(now.gone) - set(before.gone)):
            self._metrics.drift.inc()
            LOG.warning("%s is no longer there.", address)
        gone = sorted(set(now.gone) - set(before.gone))
        if moved or gone:
            self._record(lambda audit: audit.drifted(known, moved, gone))

    def _record(self, record: Callable[[Audit], str]) -> None:
        """Add a record where records are kept. One that cannot be written keeps nothing from being done."""
        if self._audit is None:
            return
        try:
            tail = record(self._audit)
        except (OSError, ValueError) as error:
            self._metrics.audit_lost.inc()
            LOG.error("An audit record could not be written: %s. See that the folder can be written to.", error)
            return
        if tail != self.seen.audited:
            self._metrics.audit_records.inc()
            LOG.info("Audit record: %s", tail)
            self._see(audited=tail)

    def _count_change(self, before: Seen, run: Run, result: Mapping[str, Any]) -> None:
        if run.opened_at is not None:
            whole_s = self._now() - run.opened_at
            for name, seconds in _phases(readings.entries_of(result), whole_s).items():
                self._metrics.phase(name, seconds)
        if self.seen.done is not before.done:
            LOG.info("The devices are in mode %s.", run.desired.words if run.desired else "")
            self._metrics.changes.labels("done").inc()
        elif run.abandoned_at is not None:
            self._metrics.changes.labels("abandoned").inc()
        elif self.seen.evict_first and not before.evict_first:
            LOG.info("Devices are in use while the components' pods still go: %s", outcome.reason_of(result))

    def _count_failure(self, before: Seen) -> None:
        """A line and numbers for an attempt that failed, if one did."""
        failure = self.seen.failure
        if failure is None or failure is before.failure:
            return
        when = "no more" if failure.retry_at is None else f"again in {max(0.0, failure.retry_at - self.seen.now):.0f} s"
        LOG.error("%s: %s Attempt %d; %s.", failure.kind, failure.reason, failure.attempts, when)
        self._metrics.failures.labels(failure.kind).inc()
        if failure.desired is not None:
            self._metrics.changes.labels("failed").inc()

    # --- what is done -------------------------------------------------------------------------------------------------

    def act(self) -> float | None:
        """Do what can be done now; the seconds after which to be called again without a message, None: never."""
        for _number in range(STEPS_MAX):
            self._see(now=self._now())
            step = self._step()
            if isinstance(step, float):
                return step
            if isinstance(step, steps.Wait):
                self._wait()
                return None if step.until is None else max(0.0, step.until - self.seen.now)
            if isinstance(step, steps.Stop):
                if step.late:
                    LOG.error("Stopping with work left: the API could not be reached. The next start repairs it.")
                self.stopped = True
                return None
            self._try(step)
        LOG.error("%d steps without a pause, the last of which was %s.", STEPS_MAX, step)
        self._blocked_until = self._now() + BREATH_S
        return BREATH_S

    def _step(self) -> steps.Step | float:
        """What to do; or seconds in which nothing can be done, because the API does not do it."""
        blocked_s = self._blocked_until - self.seen.now
        if blocked_s <= 0 and self._stale:
            blocked_s = self._refresh()
        if blocked_s <= 0:
            self._notice()
            return reconcile.next_step(self.seen)
        step = reconcile.next_step(self.seen)
        if isinstance(step, steps.Kill | steps.Forget | steps.Abandon) or step == steps.Stop(late=True):
            return step  # needs no API
        since = self.seen.stopping_since
        return blocked_s if since is None else min(blocked_s, max(0.0, since + reconcile.LEAVE_S - self.seen.now))

    def _refresh(self) -> float:
        try:
            self._see(node=self._cluster.node())
            self._stale = False
        except ApiError as error:
            self._api_failed(error)
        return self._blocked_until - self.seen.now

    def _try(self, step: steps.Step) -> None:
        try:
            self._carry_out(step)
        except ApiError as error:
            if error.status in outcome.REFUSALS and isinstance(step, steps.Patching):
                self._refused(step, error)
            else:
                self._api_failed(error)
        else:
            self._api_failures = 0

    def _api_failed(self, error: ApiError) -> None:
        """A request failed: look at the node again, at once after a conflict, otherwise later and later."""
        self._metrics.api_errors.labels(str(error.status)).inc()
        self._stale = True
        self._api_failures += 1
        if error.is_conflict and self._api_failures < CONFLICTS_AT_ONCE:
            LOG.debug("The node has changed meanwhile: %s", error)
            return
        grown_s = API_DELAY_S * 2.0 ** min(self._api_failures - 1, 20)
        delay_s = max(min(API_LONGEST_S, grown_s) * self._jitter(), error.retry_after_s)
        LOG.warning("The API did not do it, again in %.1f s: %s", delay_s, error)
        self._blocked_until = self._now() + delay_s

    def _refused(self, step: steps.Patching, error: ApiError) -> None:
        """The API will not do it however often it is asked: what else there is to do goes on."""
        LOG.warning("The API refuses a patch of the node: %s", error)
        self._metrics.api_errors.labels(str(error.status)).inc()
        before = self.seen
        self.seen = outcome.refused(before, step, error.status, str(error), self._jitter())
        self._close_if_abandoned(before)
        self._count_failure(before)

    def _notice(self) -> None:
        before = self.seen
        self.seen = outcome.noticed(before)
        if self.seen is not before:
            desired = self.seen.noticed
            self._metrics.show_wanted(desired.mode if isinstance(desired, Desired) else None)
            LOG.info("Wanted: %s", desired.words if isinstance(desired, Desired) else desired)
        self._sync()

    def _sync(self) -> None:
        """Watches that nobody needs are ended; what metrics say is what is seen."""
        for everywhere, known in ((True, self.seen.everywhere), (False, self.seen.pods)):
            if known is None and everywhere in self._watches:
                self._watches.pop(everywhere).end()
        failure = self.seen.failure
        self._metrics.gave_up.set(1 if failure is not None and failure.given_up else 0)

    def _carry_out(self, step: steps.Step) -> None:
        LOG.debug("Step: %s", step)
        if isinstance(step, steps.Patching):
            self._patch(step)
        elif isinstance(step, steps.StartReading):
            self._start(Job(False), Run(READ, self.seen.now, asked_before=self.seen.asked))
        elif isinstance(step, steps.StartChange):
            self._start_change(step)
        elif isinstance(step, steps.FindUsers):
            self._see(everywhere=Pods(self.seen.now))
            self._watches[True] = self._watch_pods(True)
        elif isinstance(step, steps.WatchPods):
            self._see(pods=Pods(self.seen.now))
            self._watches[False] = self._watch_pods(False)
        elif isinstance(step, steps.Look):
            self._look()
        elif isinstance(step, steps.Drain):
            self._drain(step.pods)
        elif isinstance(step, steps.Fail):
            before = self.seen
            self.seen = outcome.called_off(before, step.desired, step.kind, step.reason, self._jitter())
            self._close_if_abandoned(before)
            self._count_failure(before)
        else:
            self._steer_run(step)

    def _patch(self, step: steps.Patching) -> None:
        if isinstance(step, steps.Mark) or (isinstance(step, steps.Tell) and step.status.is_failure):
            self._readiness.remove()
        if isinstance(step, steps.Mark):
            self._metrics.changing.set(1)
            self._metrics.show_state("")
        node, began = self.seen.node, self._now()
        # A status is true whatever else has changed on the node; the others hold for the node as it was seen.
        bound = node is not None and not isinstance(step, steps.Tell | steps.TakeBack)
        answer = self._cluster.patch(step.patch, node.resource_version if node is not None and bound else None)
        fought = set(self.seen.writes.fought(self.seen.now))
        self.seen = outcome.wrote(self.seen, step, answer)
        for key in sorted(set(self.seen.writes.fought(self.seen.now)) - fought):
            LOG.error("Something else keeps changing %s of this node.", key)
            self._metrics.fights.labels(key).inc()
        if isinstance(step, steps.Pause):
            LOG.info("Paused: %s", ", ".join(step.patch.labels))
        elif isinstance(step, steps.Restore):
            self._metrics.phase("restore", self._now() - began)
            LOG.info("Put back: %s", ", ".join(step.patch.labels) or "pods may come to this node")
        elif isinstance(step, steps.Tell):
            self._tell_people(step.status, step.patch)

    def _look(self) -> None:
        node = self._cluster.node()
        everywhere, pods = self.seen.everywhere, self.seen.pods
        if everywhere is not None and not everywhere.denied:
            everywhere = _asked(everywhere, self._cluster.pods)
            if pods is not None and not everywhere.denied:
                pods = replace(pods, pods=everywhere.pods, denied="")
        if pods is not None and (everywhere is None or everywhere.denied):
            pods = _asked(pods, self._cluster.components_pods)
        self._see(node=node, everywhere=everywhere, pods=pods, looked=True)

    def _steer_run(self, step: steps.Step) -> None:
        run, handle = self.seen.run, self._run
        if run is None or handle is None:
            raise RuntimeError(f"there is no run to {step}")
        if isinstance(step, steps.OpenGate):
            if self.seen.paused_at is not None:
                self._metrics.phase("evict", self.seen.now - self.seen.paused_at)
            self._record(lambda audit: audit.began(run, self.seen))
            self.seen = outcome.run_opened(self.seen)
            handle.open_gate()
        elif isinstance(step, steps.Abandon):
            LOG.info("The run is called off: %s.", step.why)
            if run.kind == READ or run.waits_s:
                handle.kill()
            handle.close_gate()
            self._see(run=None if run.kind == READ else replace(run, abandoned_at=self.seen.now))
        elif isinstance(step, steps.Kill):
            LOG.error("The run has not ended in time: it is ended.")
            handle.kill()
            self._see(run=replace(run, killed_at=self.seen.now))
        elif isinstance(step, steps.Forget):
            self._run_ended({}, failed=True)

    def _close_if_abandoned(self, before: Seen) -> None:
        if self._run is not None and self.seen.run is not before.run:
            self._run.close_gate()

    def _start(self, job: Job, run: Run) -> None:
        self._see(run=run)
        try:
            self._run = self._runner.start(job)
        except OSError as error:  # no room for its files, or no process to be had
            self._run_ended({"msg": f"The run cannot be started: {error}."}, failed=True)

    def _start_change(self, step: steps.StartChange) -> None:
        reading, desired = self.seen.reading, step.desired
        if reading is None:
            raise RuntimeError("a change without a reading")
        modes = desired_modes.wanted(desired, reading)
        LOG.info("To do: %s%s", desired.words, " (looking first)" if step.look_first else "")
        if self.seen.failure is not None:
            self._metrics.retries.inc()
        job = Job(True, desired.mode, modes if desired_modes.needs_naming(desired, reading) else None, step.waits_s)
        asked = tuple(sorted(modes.items()))
        before = self.seen.asked
        run = Run(CHANGE, self.seen.now, desired, asked, step.look_first, asked_before=before, waits_s=step.waits_s)
        self._start(job, run)

    def _drain(self, pods: tuple[Pod, ...]) -> None:
        drained = self.seen.drained
        uids = drained.uids if drained else frozenset(pod.identity for pod in pods)
        self._see(drained=Drained(self.seen.now, uids))
        for pod in pods:
            try:
                self._cluster.evict(pod)
                LOG.info("Evicted: %s", pod.words)
            except ApiError as error:
                if error.status not in (404, 429):
                    LOG.warning("%s cannot be evicted: %s", pod.words, error)

    def _tell_people(self, status: Status, patch: Patch) -> None:
        """A line and an Event, when what the labels say is new."""
        if not {STATE_LABEL, READY_LABEL} & patch.labels.keys() and REASON_ANNOTATION not in patch.annotations:
            return
        level = logging.ERROR if status.is_failure else logging.INFO
        LOG.log(level, "State: %s. %s", status.state, status.reason or "As wanted.")
        kind, reason = ("Warning", "CCModeFailed") if status.is_failure else ("Normal", "CCModeSet")
        if status.reason and not status.is_failure:
            kind, reason = "Warning", "CCModeDiffers"
        message = status.reason or f"The GPUs are in mode {status.state}."
        if message == self._last_event or self._now() < self._events_again_at:
            return
        try:
            self._cluster.event(kind, reason, message)
            self._last_event = message
        except ApiError as error:
            self._metrics.events_lost.inc()
            self._events_again_at = self._now() + (EVENTS_AGAIN_S if error.is_forbidden else 0.0)
            LOG.warning(
                "No Event was made%s: %s", ", and none will be for a while" if error.is_forbidden else "", error
            )

    def _wait(self) -> None:
        """Nothing to do for now: what is told here and not on the node."""
        if not reconcile.rests(self.seen):
            return
        self.seen = outcome.rested(self.seen)
        self._sync()
        status, _desired = reconcile.standing(self.seen)
        self.settled = True
        self._metrics.changing.set(0)
        self._metrics.show_state(status.state)
        if status.is_failure:
            self._readiness.remove()
        else:
            self._readiness.write()


def _asked(known: Pods, ask: Callable[[], tuple[Pod, ...]]) -> Pods:
    """The pods as they are now. Raises ApiError, unless it is a right that is missing."""
    try:
        return known.are(ask())
    except ApiError as error:
        if error.status != 403:  # 401 is not about rights: the token is old, or the server has just started
            raise
        return known.are_denied(str(error))


def _is_older(node: Node, known: Node) -> bool:
    try:
        return int(node.resource_version) < int(known.resource_version)
    except ValueError:
        return False


def _phases(entries: list[ChangedDevice], whole_s: float) -> dict[str, float]:
    """Seconds by phase: of the slowest device; what is left of the whole is the verification."""
    seconds: dict[str, float] = {}
    for entry in entries:
        found = entry.get("seconds")
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, int | float):
                seconds[name] = max(seconds.get(name, 0.0), value)
    return {**seconds, "verify": whole_s - sum(seconds.values())} if seconds else {}
