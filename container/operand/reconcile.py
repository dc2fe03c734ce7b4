# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From what is seen to the next step. Pure: nothing here reaches the API, a device or a clock.

Level-triggered: each call looks at everything that is known now (the wish, the journal on the node, the devices, the
run at work) and names one step. Whatever happens meanwhile - another wish, a lost pod, a restart - is seen by the next
call, so there is no state to get out of step with.

A change goes: validate - see who uses the devices - start the run, which reads and plans and then waits at its gate -
mark the node and journal the component labels - pause - wait until the components' pods are gone - open the gate (the
run writes, resets and verifies) - put back and tell, in one patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from . import components, publish
from . import wish as wishes
from .names import CHANGING_ANNOTATION, FAILED, PAUSED
from .node import Node, Patch
from .pod import Pod
from .publish import Status
from .reading import Reading
from .settings import DRAIN, REFUSE
from .wish import Refused, Undecided, Wish

READ, CHANGE = "read", "change"
# What a run may take beside its own waiting; then something hangs, and it is ended.
RUN_TIMEOUT_S = 180.0
# A run whose gate was closed ends by itself, unless it hangs before the gate.
ABANDONED_S = 15.0
# From a stop to the moment at which a change that is still at work is left behind; kubelet kills after 30 s.
STOP_S = 20.0


@dataclass(frozen=True)
class Policy:
    """The settings that decide what is done."""

    default_mode: str = ""
    evict: bool = True
    busy: str = REFUSE
    busy_timeout_s: float = 300
    eviction_timeout_s: float = 300
    repair: bool = False


@dataclass(frozen=True)
class Run:
    """The Ansible run at work."""

    kind: str
    since: float
    wish: Wish | None = None
    look_first: bool = False  # nothing is paused until its plan is there
    planned: bool = False
    opened: bool = False
    abandoned_at: float | None = None
    waits_s: float = 0  # how long it may wait for the devices' users itself


@dataclass(frozen=True)
class Failure:
    """Why the last attempt failed. ``wish`` None: a reading failed."""

    wish: Wish | None
    reason: str
    attempts: int
    retry_at: float | None  # None: given up
    look_first: bool = True
    wait_for_users: bool = False


@dataclass(frozen=True)
class Pods:
    """The pods that are watched, once the first list is there. ``denied``: why they cannot be seen."""

    since: float
    pods: tuple[Pod, ...] | None = None
    denied: str = ""


@dataclass(frozen=True)
class Seen:
    """Everything that is known now. Times are seconds of one clock."""

    now: float
    policy: Policy = field(default_factory=Policy)
    boot: str = ""  # of the host
    node: Node | None = None
    reading: Reading | None = None
    reading_due_at: float | None = None
    run: Run | None = None
    pods: Pods | None = None  # of the components' namespace
    paused_at: float | None = None
    everywhere: Pods | None = None  # of all namespaces: who uses GPUs
    drained_at: float | None = None
    failure: Failure | None = None
    evict_first: bool = False  # the devices are in use by what is being evicted
    achieved: Wish | None = None
    stopping_since: float | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing to do until something is seen, or until a moment."""

    until: float | None = None


@dataclass(frozen=True)
class StartReading:
    """Read the devices."""


@dataclass(frozen=True)
class TakeBack:
    """Tell no longer what may have become untrue."""

    patch: Patch


@dataclass(frozen=True)
class StartChange:
    """Start the run that makes the change."""

    wish: Wish
    look_first: bool = False
    waits_s: float = 0


@dataclass(frozen=True)
class FindUsers:
    """Watch the pods of all namespaces on this node."""


@dataclass(frozen=True)
class Drain:
    """Evict pods that hold GPUs."""

    pods: tuple[Pod, ...]


@dataclass(frozen=True)
class WatchPods:
    """Watch the pods of the components' namespace on this node."""


@dataclass(frozen=True)
class Mark:
    """Tell that a change is under way, and journal."""

    patch: Patch


@dataclass(frozen=True)
class Pause:
    """Pause components; the patch holds only for the node as it was seen."""

    patch: Patch


@dataclass(frozen=True)
class OpenGate:
    """Let the run write."""


@dataclass(frozen=True)
class Abandon:
    """Close the gate: the run ends without having written. A reading is ended."""

    why: str


@dataclass(frozen=True)
class Kill:
    """End a run that hangs."""


@dataclass(frozen=True)
class Fail:
    """Give this attempt up."""

    wish: Wish | None
    reason: str
    kind: str


@dataclass(frozen=True)
class Settle:
    """Put components back and tell the status."""

    status: Status
    patch: Patch


@dataclass(frozen=True)
class Stop:
    """End the process."""


Step = (
    Wait
    | StartReading
    | TakeBack
    | StartChange
    | FindUsers
    | Drain
    | WatchPods
    | Mark
    | Pause
    | OpenGate
    | Abandon
    | Kill
    | Fail
    | Settle
    | Stop
)


def next_step(seen: Seen) -> Step:
    """The one thing to do now."""
    if seen.stopping_since is not None:
        return _stopping(seen, seen.stopping_since)
    if seen.node is None:
        return Wait()
    if seen.run is not None:
        return _reading(seen, seen.run) if seen.run.kind == READ else _changing(seen, seen.run, seen.node)
    if seen.reading is None and _first_reading_is_due(seen):
        outdated = publish.outdated(seen.node, seen.boot)
        return TakeBack(outdated) if outdated and seen.failure is None else StartReading()
    step = _idle(seen, seen.node)
    return StartReading() if isinstance(step, Wait) and _reading_is_due(seen) else step


def current_wish(seen: Seen) -> Wish | Undecided | None:
    """The newest wish. Raises Refused when it cannot be carried out."""
    if seen.node is None or seen.reading is None:
        return None
    wish = wishes.of(seen.node, seen.policy.default_mode, seen.reading.host_support)
    if isinstance(wish, Wish):
        wishes.wanted(wish, seen.reading)
    return wish


def is_satisfied(seen: Seen) -> bool:
    """True when there is a wish, and every device is where it wants it."""
    wish = _wish_or_none(seen)
    return wish is not None and seen.reading is not None and wishes.satisfied(wish, seen.reading)


# --- while no run is at work ------------------------------------------------------------------------------------------


def _reading_is_due(seen: Seen) -> bool:
    """A wish that is being carried out goes before a reading; one that failed and waits does not."""
    if seen.reading is None or seen.reading_due_at is None or seen.reading_due_at > seen.now:
        return False
    _status, wish = standing(seen)
    return wish is None or (seen.failure is not None and seen.failure.wish == wish)


def _first_reading_is_due(seen: Seen) -> bool:
    failure = seen.failure
    if failure is None or failure.wish is not None:
        return True
    return failure.retry_at is not None and failure.retry_at <= seen.now


def _idle(seen: Seen, node: Node) -> Step:
    status, wish = standing(seen)
    if wish is None:
        return _tell(seen, node, status)
    failure = seen.failure
    if failure is not None and failure.wish == wish:
        settled = publish.settled(node, status)
        if settled:
            return Settle(status, settled)
        if failure.retry_at is None or failure.retry_at > seen.now:
            return Wait(_earliest(failure.retry_at, seen.reading_due_at))
    return _begin(seen, node, wish)


def standing(seen: Seen) -> tuple[Status, Wish | None]:
    """What to tell while nothing is being changed, and the wish that is still to be carried out."""
    reading, failure = seen.reading, seen.failure
    if reading is None:
        return Status(FAILED, failure.reason if failure else ""), None
    try:
        wish = current_wish(seen)
        if isinstance(wish, Undecided):
            return publish.as_read(reading, wish.reason), None
        if wish is None or (reading.devices and wishes.satisfied(wish, reading)):
            return publish.as_read(reading), None
    except Refused as refused:
        return Status(FAILED, str(refused), reading), None
    if not reading.devices:
        return publish.as_read(reading), None
    if failure is not None and failure.wish == wish:
        return Status(FAILED, failure.reason, reading), wish
    status = publish.as_read(reading)
    if seen.achieved == wish and not seen.policy.repair:
        drifted = f"The devices left the mode {wish.words} after it had been set. Set the label anew to repair it."
        return (status if status.is_failure else publish.as_read(reading, drifted)), None
    return status, wish


def _tell(seen: Seen, node: Node, status: Status) -> Step:
    patch = publish.settled(node, status)
    if patch:
        return Settle(status, patch)
    if seen.reading is None:
        return Wait(seen.failure.retry_at if seen.failure else None)
    return Wait(seen.reading_due_at)


def _begin(seen: Seen, node: Node, wish: Wish) -> Step:
    users = _users_first(seen, wish)
    if users is not None:
        return users
    if seen.evict_first:
        step = _make_free(seen, node, wish)
        if step is not None:
            return step
    failure = seen.failure if seen.failure and seen.failure.wish == wish else None
    known_in_use = seen.reading is not None and any(one.in_use or one.problem for one in seen.reading.devices)
    look_first = not seen.evict_first and (failure.look_first if failure else known_in_use)
    waits = failure is not None and failure.wait_for_users
    return StartChange(wish, look_first, seen.policy.busy_timeout_s if waits else 0)


def _users_first(seen: Seen, wish: Wish) -> Step | None:
    """None when no pod that can be seen holds GPUs of this node."""
    everywhere = seen.everywhere
    if everywhere is None:
        return FindUsers()
    if everywhere.denied:  # what the process cannot see here, the run sees by the devices' files
        return None
    if everywhere.pods is None:
        return Wait()
    users = components.users(everywhere.pods)
    if not users:
        return None
    deadline = everywhere.since + seen.policy.busy_timeout_s
    if seen.policy.busy == REFUSE or seen.now >= deadline:
        waited = "" if seen.policy.busy == REFUSE else f" after {seen.policy.busy_timeout_s:g} s"
        return Fail(wish, _in_use(users, waited), "DeviceBusy")
    if seen.policy.busy == DRAIN:
        remaining = tuple(pod for pod in users if not pod.deleting)
        if remaining and (seen.drained_at is None or seen.now >= seen.drained_at + DRAIN_AGAIN_S):
            return Drain(remaining)
        return Wait(_earliest(deadline, (seen.drained_at or seen.now) + DRAIN_AGAIN_S if remaining else None))
    return Wait(deadline)


def _in_use(users: list[Pod], waited: str = "") -> str:
    return f"GPUs of this node are in use{waited} by {', '.join(pod.words for pod in users)}. Stop these pods."


# An eviction that a disruption budget refuses is asked for again.
DRAIN_AGAIN_S = 5.0


# --- while a run is at work -------------------------------------------------------------------------------------------


def _reading(seen: Seen, run: Run) -> Step:
    deadline = run.since + RUN_TIMEOUT_S
    return Kill() if seen.now >= deadline else Wait(deadline)


def _changing(seen: Seen, run: Run, node: Node) -> Step:
    if run.abandoned_at is not None:
        ends = run.abandoned_at + ABANDONED_S
        return Kill() if seen.now >= ends else Wait(ends)
    deadline = run.since + RUN_TIMEOUT_S + run.waits_s + seen.policy.eviction_timeout_s
    if seen.now >= deadline:
        return Kill()
    if run.opened:
        return Wait(deadline)
    if run.wish is None or _wish_or_none(seen) != run.wish:
        return Abandon("there is another wish")
    users = components.users((seen.everywhere.pods if seen.everywhere else None) or ())
    if users:  # they came after the run was started
        return Fail(run.wish, _in_use(users), "DeviceBusy")
    if run.look_first and not run.planned:
        return Wait(deadline)
    step = _make_free(seen, node, run.wish)
    if step is not None:
        return step
    if not run.planned:
        return Wait(deadline)
    return OpenGate()


def _wish_or_none(seen: Seen) -> Wish | None:
    try:
        wish = current_wish(seen)
    except Refused:
        return None
    return wish if isinstance(wish, Wish) else None


def _make_free(seen: Seen, node: Node, wish: Wish) -> Step | None:
    """What is left to do before devices may be written to: mark, journal, pause, wait. None when nothing is."""
    evict = seen.policy.evict
    pods = seen.pods
    if evict and pods is None:
        return WatchPods()
    if evict and pods is not None and pods.denied:
        return Fail(wish, f"The components' pods cannot be seen: {pods.denied}", "Forbidden")
    if evict and (pods is None or pods.pods is None):
        return Wait()
    mark = publish.changing(node, wish.words, with_components=evict)
    if mark:
        return Mark(mark)
    if not evict or pods is None or pods.pods is None:
        return None
    pause = dict.fromkeys(components.running(node.labels), PAUSED)
    if pause:
        return Pause(Patch(pause))
    elsewhere = (seen.everywhere.pods if seen.everywhere else None) or ()  # the namespace may have been set wrongly
    left = sorted({pod.words for pod in components.in_the_way([*pods.pods, *elsewhere])})
    if not left:
        return None
    since = seen.now if seen.paused_at is None else seen.paused_at
    deadline = since + seen.policy.eviction_timeout_s
    if seen.now >= deadline:
        names = ", ".join(left)
        return Fail(
            wish,
            f"After {seen.policy.eviction_timeout_s:g} s these pods of paused components are not gone: {names}. "
            "See why they do not end (kubectl describe pod).",
            "EvictionTimeout",
        )
    return Wait(deadline)


# --- the end ----------------------------------------------------------------------------------------------------------


def _stopping(seen: Seen, since: float) -> Step:
    run = seen.run
    left_at = since + STOP_S
    if run is not None and run.abandoned_at is None and not run.opened:
        return Abandon("the operand stops")
    if run is not None and seen.now < left_at:
        return Wait(left_at)
    node = seen.node
    if node is None or not (CHANGING_ANNOTATION in node.annotations or components.paused(node.labels)):
        return Stop()
    status, wish = standing(seen)
    if run is not None or (wish is not None and not status.is_failure):
        status = Status(FAILED, "The operand was stopped during a change. It goes on when it is started.", None)
    patch = publish.settled(node, status)
    return Settle(status, patch) if patch else Stop()


def _earliest(*moments: float | None) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return min(known, default=None)
