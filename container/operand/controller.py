# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Carries out what ``reconcile`` says, step by step, and keeps what is seen up to date.

One thread; all others only put messages into its inbox. Nothing is waited for here but the API's answers.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from . import reading as readings
from . import reconcile
from . import wish as wishes
from .kube import ApiError
from .messages import Message, NodeSeen, PodsSeen, RunEnded, RunPlanned, StopAsked, WatchFailed
from .metrics import Metrics
from .names import COMPONENT_LABELS, READY_LABEL, REASON_ANNOTATION, STATE_LABEL
from .node import Node, Patch
from .pod import Pod
from .publish import Status
from .reading import Reading
from .reconcile import CHANGE, READ, Failure, Pods, Policy, Run, Seen
from .run import Job
from .settings import WAIT, Settings
from .watch import Delay
from .wish import Refused, Undecided, Wish

LOG = logging.getLogger(__name__)
LONGEST_RETRY_S = 300.0
# A reading that leaves something open (no device, a host that does not say what it can do) is done again earlier.
SOON_S = 60.0
# After a stop was asked for; kubelet kills after 30 s.
LEAVE_S = reconcile.STOP_S + 4.0
# Errors that another attempt cannot mend.
FINAL = ("InvalidRequest", "Unsupported", "FirmwareTooOld")
# Errors that end when somebody else does something: they are tried for ever. A retry looks first and pauses nothing.
PATIENT = ("DeviceBusy", "RunInProgress", "Forbidden")
# Without the right to make Events; an API server that has just started refuses what it allows a moment later.
EVENTS_AGAIN_S = 600.0
STEPS_MAX = 200
# Conflicts are tried again at once, unless there are so many in a row that the delay has grown to this.
CONFLICTS_DELAY_S = 4.0


class Cluster(Protocol):
    """The requests; see cluster.Cluster."""

    def node(self) -> Node: ...

    def patch(self, patch: Patch, resource_version: str | None = None) -> Node: ...

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
        settings.drift_repair,
    )


class Controller:
    """One node. ``watch_pods`` starts a watch of the pods on it, of the components' namespace or of all (True)."""

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        runner: Runner,
        watch_pods: Callable[[bool], PodWatch],
        readiness: Readiness,
        metrics: Metrics,
        now: Callable[[], float],
        boot: str,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._runner = runner
        self._watch_pods = watch_pods
        self._readiness = readiness
        self._metrics = metrics
        self._now = now
        self.seen = Seen(now(), policy_of(settings), boot)
        self._run: PlaybookRun | None = None
        self._run_opened_at = 0.0
        self._watches: dict[bool, PodWatch] = {}
        self._last_wish: object = None
        self._stale = False  # a request may or may not have been carried out: look at the node again
        self._blocked_until = 0.0
        self._delay = Delay()
        self._events_again_at = now()
        self._elsewhere_denied = False  # said once, not at each change
        self.settled = False  # the node has been told what is known
        self.stopped = False
        readiness.remove()

    # --- what is seen -------------------------------------------------------------------------------------------------

    def handle(self, message: Message) -> None:
        """Take in one message."""
        if isinstance(message, NodeSeen):
            self._node_seen(message.node)
        elif isinstance(message, PodsSeen):
            self._pods_seen(message)
        elif isinstance(message, RunPlanned):
            if self._is_current(message.run) and self.seen.run is not None:
                self._metrics.phase("run", self._now() - self.seen.run.since)
                self._see(run=replace(self.seen.run, planned=True))
        elif isinstance(message, RunEnded):
            if self._is_current(message.run):
                self._run_ended(message)
        elif isinstance(message, WatchFailed):
            self._metrics.watch_restarts.labels(message.what).inc()
            LOG.warning("The watch of %s failed and is started again: %s", message.what, message.error)
        elif isinstance(message, StopAsked) and self.seen.stopping_since is None:
            LOG.info("Asked to stop.")
            self._see(stopping_since=message.at)

    def _see(self, **changes: Any) -> None:
        self.seen = replace(self.seen, **changes)

    def _is_current(self, number: int) -> bool:
        return self._run is not None and self._run.number == number

    def _node_seen(self, node: Node | None) -> None:
        known = self.seen.node
        if node is not None and known is not None and _is_older(node, known):
            return  # the watch runs behind the answers to our own patches
        self._see(node=node)
        if node is None:
            LOG.warning("The node %s is not there. Is NODE_NAME right (kubectl get nodes)?", self._settings.node_name)

    def _pods_seen(self, message: PodsSeen) -> None:
        name = "everywhere" if message.everywhere else "pods"
        known: Pods | None = getattr(self.seen, name)
        if known is None or message.watch is not self._watches.get(message.everywhere):
            return  # of a watch that was ended
        if message.everywhere:
            if message.denied and not self._elsewhere_denied:
                LOG.warning(
                    "Pods of other namespaces cannot be seen, so GPUs in use show only by their files: %s",
                    message.denied,
                )
            self._elsewhere_denied = bool(message.denied)
        self._see(**{name: replace(known, pods=None if message.denied else message.pods, denied=message.denied)})

    # --- what becomes of runs -----------------------------------------------------------------------------------------

    def _run_ended(self, message: RunEnded) -> None:
        run = self.seen.run
        self._run = None
        self._see(run=None)
        if run is None:
            return
        if run.kind == READ:
            self._reading_ended(message)
        else:
            self._change_ended(run, message)

    def _reading_ended(self, message: RunEnded) -> None:
        before = self.seen.reading
        self._see(reading_due_at=self._next_reading(before))
        if message.failed:
            reason = _reason(message.result)
            LOG.error("The devices could not be read: %s", reason)
            self._metrics.failures.labels(_kind(message.result)).inc()
            if before is None:
                self._failed(None, reason, "Reading")
            return
        published = readings.published_modes(self.seen.node.annotations, self.seen.boot) if self.seen.node else {}
        reading = readings.read(message.result, self.seen.boot).knowing(before.modes() if before else published)
        if before is not None:
            reading = reading.after(before)
            self._note_drift(before, reading)
        self._see(reading=reading, reading_due_at=self._next_reading(reading))
        self._forget_failure(None)
        self._metrics.last_reading.set_to_current_time()
        self._metrics.show_devices(reading)

    def _next_reading(self, reading: Reading | None) -> float | None:
        interval = self._settings.drift_interval_s
        if reading is not None and (not reading.devices or self._waits_for_host(reading)):
            interval = min(interval or SOON_S, SOON_S)
        return self._now() + interval if interval else None

    def _waits_for_host(self, reading: Reading) -> bool:
        """True when the wish depends on what the host does not say yet."""
        try:
            return isinstance(reconcile.current_wish(replace(self.seen, reading=reading)), Undecided)
        except Refused:
            return False

    def _note_drift(self, before: Reading, now: Reading) -> None:
        known = before.modes()
        moved = [one for one in now.devices if one.mode is not None and known.get(one.address, one.mode) != one.mode]
        for device in moved:
            self._metrics.drift.inc()
            LOG.warning("%s was left in mode %s and is in %s.", device.address, known[device.address], device.mode)
        for address in sorted(set(now.gone) - set(before.gone)):
            self._metrics.drift.inc()
            LOG.warning("%s is no longer there.", address)

    def _change_ended(self, run: Run, message: RunEnded) -> None:
        entries = message.result.get("devices") or []
        if self.seen.reading is not None and entries:
            self._see(reading=readings.changed(self.seen.reading, entries, done=not message.failed))
            self._metrics.show_devices(self.seen.reading)
        if run.opened:
            self._metrics.run_phases(_phases(entries, self._now() - self._run_opened_at))
        if not message.failed:
            LOG.info("The devices are in mode %s.", run.wish.words if run.wish else "")
            self._metrics.changes.labels("done").inc()
            self._see(achieved=run.wish, evict_first=False, reading_due_at=self._next_reading(self.seen.reading))
            self._forget_failure(run.wish)
        elif run.abandoned_at is not None:
            self._metrics.changes.labels("abandoned").inc()
        else:
            self._change_failed(run, message)

    def _change_failed(self, run: Run, message: RunEnded) -> None:
        kind, reason = _kind(message.result), _reason(message.result)
        if kind == "DeviceBusy" and not run.opened and not self.seen.evict_first and not run.look_first:
            # What is being evicted may be what uses them: let it go first, and then start again.
            LOG.info("Devices are in use while the components' pods still go: %s", reason)
            self._see(evict_first=True)
            return
        waits = kind == "DeviceBusy" and self._settings.busy == WAIT and not run.waits_s
        self._failed(run.wish, reason, kind, wait_for_users=waits)

    def _failed(self, wish: Wish | None, reason: str, kind: str, wait_for_users: bool = False) -> None:
        """Note a failed attempt, and when to try again."""
        before = self.seen.failure
        attempts = before.attempts + 1 if before is not None and before.wish == wish else 1
        too_often = attempts >= self._settings.retry_limit and kind not in PATIENT
        given_up = wish is not None and (too_often or kind in FINAL)
        delay = min(LONGEST_RETRY_S, self._settings.retry_delay_s * 2 ** min(attempts - 1, 20)) * random.uniform(
            0.75, 1
        )
        if wait_for_users:
            delay, note = 0.0, f"Waiting up to {self._settings.busy_timeout_s:g} s."
        elif given_up:
            note = f"Given up after attempt {attempts}: set the label anew to try again."
        else:
            note = f"Attempt {attempts}; the next in {delay:.0f} s."
        LOG.error("%s: %s %s", kind, reason, note)
        self._metrics.failures.labels(kind).inc()
        if wish is not None:
            self._metrics.changes.labels("failed").inc()
        self._metrics.gave_up.set(1 if given_up else 0)
        retry_at = None if given_up else self._now() + delay
        self._see(
            failure=Failure(wish, f"{reason} {note}", attempts, retry_at, wait_for_users=wait_for_users),
            evict_first=False,
        )

    def _forget_failure(self, wish: Wish | None) -> None:
        if self.seen.failure is not None and self.seen.failure.wish == wish:
            self._metrics.gave_up.set(0)
            self._see(failure=None)

    # --- what is done -------------------------------------------------------------------------------------------------

    def act(self) -> float | None:
        """Do what can be done now; the seconds after which to be called again without a message, None: never."""
        for _number in range(STEPS_MAX):
            self._see(now=self._now())
            since = self.seen.stopping_since
            if since is not None and self.seen.now >= since + LEAVE_S:
                LOG.error("Stopping with components paused: the API could not be reached. The next start repairs it.")
                self.stopped = True
            if self.stopped:
                return None
            if self.seen.now < self._blocked_until:
                return self._blocked_until - self.seen.now
            if not self._refreshed():
                continue
            self._note_wish()
            step = reconcile.next_step(self.seen)
            if isinstance(step, reconcile.Wait):
                self._at_rest()
                return None if step.until is None else max(0.0, step.until - self.seen.now)
            try:
                self._carry_out(step)
            except ApiError as error:
                self._api_failed(error)
            else:
                self._delay.reset()
        raise RuntimeError(f"{STEPS_MAX} steps without a pause; the last was {step}")

    def _refreshed(self) -> bool:
        if not self._stale:
            return True
        try:
            self._see(node=self._cluster.node())
            self._stale = False
        except ApiError as error:
            self._api_failed(error)
            return False
        return True

    def _api_failed(self, error: ApiError) -> None:
        """A request failed: look at the node again, at once after a conflict, otherwise later and later."""
        self._metrics.api_errors.labels(str(error.status)).inc()
        self._stale = True
        delay = max(self._delay.next(), error.retry_after_s)
        if error.is_conflict and delay < CONFLICTS_DELAY_S:
            LOG.debug("The node has changed meanwhile: %s", error)
            return
        LOG.warning("The API did not do it, again in %.1f s: %s", delay, error)
        self._blocked_until = self._now() + delay

    def _note_wish(self) -> None:
        """Another wish has nothing to do with the failures of the one before."""
        if self.seen.node is None or self.seen.reading is None:
            return
        try:
            wish: object = reconcile.current_wish(self.seen)
        except Refused as refused:
            wish = str(refused)
        if wish == self._last_wish:
            return
        self._last_wish = wish
        self._metrics.show_wanted(wish.mode if isinstance(wish, Wish) else None)
        self._metrics.gave_up.set(0)
        LOG.info("Wanted: %s", wish.words if isinstance(wish, Wish) else wish)
        self._see(failure=None, achieved=None, evict_first=False, everywhere=None, drained_at=None)
        if isinstance(wish, Undecided):
            self._see(reading_due_at=self._next_reading(self.seen.reading))
        self._end_watch(everywhere=True)

    def _carry_out(self, step: reconcile.Step) -> None:
        LOG.debug("Step: %s", step)
        if isinstance(step, reconcile.StartReading):
            self._start(Job(False), Run(READ, self._now()))
        elif isinstance(step, reconcile.TakeBack):
            self._see(node=self._cluster.patch(step.patch))
        elif isinstance(step, reconcile.StartChange):
            self._start_change(step)
        elif isinstance(step, reconcile.FindUsers):
            self._see(everywhere=Pods(self._now()))
            self._watches[True] = self._watch_pods(True)
        elif isinstance(step, reconcile.WatchPods):
            self._see(pods=Pods(self._now()))
            self._watches[False] = self._watch_pods(False)
        elif isinstance(step, reconcile.Drain):
            self._drain(step.pods)
        elif isinstance(step, reconcile.Mark):
            self._readiness.remove()
            self._metrics.changing.set(1)
            self._metrics.show_state("")
            self._see(node=self._cluster.patch(step.patch))
        elif isinstance(step, reconcile.Pause):
            self._pause(step.patch)
        elif isinstance(step, reconcile.Settle):
            self._settle(step)
        elif isinstance(step, reconcile.Fail):
            if self._run is not None and self.seen.run is not None:
                self._run.close_gate()
                self._see(run=replace(self.seen.run, abandoned_at=self._now()))
            self._failed(step.wish, step.reason, step.kind)
        elif isinstance(step, reconcile.Stop):
            self.stopped = True
        else:
            self._steer_run(step)

    def _steer_run(self, step: reconcile.Step) -> None:
        run, handle = self.seen.run, self._run
        if run is None or handle is None:
            raise RuntimeError(f"there is no run to {step}")
        if isinstance(step, reconcile.OpenGate):
            if self.seen.paused_at is not None:
                self._metrics.phase("evict", self._now() - self.seen.paused_at)
            self._run_opened_at = self._now()
            self._see(run=replace(run, opened=True))
            handle.open_gate()
        elif isinstance(step, reconcile.Abandon):
            LOG.info("The run is called off: %s.", step.why)
            if run.kind == READ or run.waits_s:
                handle.kill()
            handle.close_gate()
            self._see(run=None if run.kind == READ else replace(run, abandoned_at=self._now()))
        elif isinstance(step, reconcile.Kill):
            handle.kill()
            self._run_ended(RunEnded(handle.number, {"msg": "It hung and was ended."}, failed=True))
            if run.opened:  # what it has done is not known; the next reading waits for the lock that it may still hold
                self._see(reading=None)

    def _start(self, job: Job, run: Run) -> None:
        try:
            self._run = self._runner.start(job)
        except OSError as error:  # no room for its files, or no process to be had
            self._see(run=run)
            self._run_ended(RunEnded(0, {"msg": f"The run cannot be started: {error}."}, failed=True))
            return
        self._see(run=run)

    def _start_change(self, step: reconcile.StartChange) -> None:
        reading = self.seen.reading
        if reading is None:
            raise RuntimeError("a change without a reading")
        modes = wishes.wanted(step.wish, reading) if wishes.needs_naming(step.wish, reading) else None
        LOG.info("To do: %s%s", step.wish.words, " (looking first)" if step.look_first else "")
        if self.seen.failure is not None:
            self._metrics.retries.inc()
        job = Job(True, step.wish.mode, modes, step.waits_s)
        self._start(job, Run(CHANGE, self._now(), step.wish, step.look_first, waits_s=step.waits_s))

    def _pause(self, patch: Patch) -> None:
        node = self.seen.node
        self._see(node=self._cluster.patch(patch, node.resource_version if node else None))
        LOG.info("Paused: %s", ", ".join(patch.labels))
        self._see(paused_at=self._now())

    def _drain(self, pods: tuple[Pod, ...]) -> None:
        self._see(drained_at=self._now())
        for pod in pods:
            try:
                self._cluster.evict(pod)
                LOG.info("Evicted: %s", pod.words)
            except ApiError as error:
                if error.status not in (404, 429):
                    LOG.warning("%s cannot be evicted: %s", pod.words, error)

    def _settle(self, step: reconcile.Settle) -> None:
        began = self._now()
        if step.status.is_failure:
            self._readiness.remove()
        restores = any(key in COMPONENT_LABELS for key in step.patch.labels)
        node = self.seen.node
        self._see(node=self._cluster.patch(step.patch, node.resource_version if restores and node else None))
        self._metrics.phase("restore", self._now() - began)
        self._end_watch(everywhere=True)
        self._end_watch(everywhere=False)
        self._see(everywhere=None, pods=None, paused_at=None, drained_at=None)
        self._tell_people(step.status, step.patch)

    def _end_watch(self, everywhere: bool) -> None:
        watch = self._watches.pop(everywhere, None)
        if watch is not None:
            watch.end()

    def _tell_people(self, status: Status, patch: Patch) -> None:
        """A line and an Event, when what the labels say is new."""
        if not {STATE_LABEL, READY_LABEL} & patch.labels.keys() and REASON_ANNOTATION not in patch.annotations:
            return
        LOG.log(
            logging.ERROR if status.is_failure else logging.INFO,
            "State: %s. %s",
            status.state,
            status.reason or "As wanted.",
        )
        if self._now() < self._events_again_at:
            return
        kind, reason = ("Warning", "CCModeFailed") if status.is_failure else ("Normal", "CCModeSet")
        if status.reason and not status.is_failure:
            kind, reason = "Warning", "CCModeDiffers"
        try:
            self._cluster.event(kind, reason, status.reason or f"The GPUs are in mode {status.state}.")
        except ApiError as error:
            self._metrics.events_lost.inc()
            self._events_again_at = self._now() + (EVENTS_AGAIN_S if error.is_forbidden else 0.0)
            LOG.warning(
                "No Event was made%s: %s", ", and none will be for a while" if error.is_forbidden else "", error
            )

    def _at_rest(self) -> None:
        """Nothing to do for now: what is told here and not on the node."""
        if self.seen.run is not None or self.seen.node is None:
            return
        status, wish = reconcile.standing(self.seen)
        failed = self.seen.failure is not None
        if wish is not None and not failed:
            return  # pods are being waited for
        self.settled = True
        if reconcile.is_satisfied(self.seen):
            self._see(achieved=reconcile.current_wish(self.seen))
        self._metrics.changing.set(0)
        self._metrics.show_state(status.state)
        if status.is_failure:
            self._readiness.remove()
        else:
            self._readiness.write()


def _is_older(node: Node, known: Node) -> bool:
    try:
        return int(node.resource_version) < int(known.resource_version)
    except ValueError:
        return False


def _reason(result: Mapping[str, Any]) -> str:
    return str(result.get("msg") or "The run failed without a word.")


def _kind(result: Mapping[str, Any]) -> str:
    error = result.get("error") or {}
    kinds = {one.get("kind") for one in (error.get("seen") or {}).get("errors") or []}
    return str(kinds.pop() if len(kinds) == 1 else error.get("kind", "Run"))


def _phases(entries: list[Mapping[str, Any]], whole_s: float) -> dict[str, float]:
    """Seconds by phase: of the slowest device; what is left of the whole is the verification."""
    seconds: dict[str, float] = {}
    for entry in entries:
        for name, value in (entry.get("seconds") or {}).items():
            seconds[name] = max(seconds.get(name, 0.0), value)
    return {**seconds, "verify": whole_s - sum(seconds.values())} if seconds else {}
