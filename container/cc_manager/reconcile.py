# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From what is seen to the next step. Pure: nothing here reaches the API, a device or a clock.

Level-triggered: each call looks at everything that is known now (the request, the journal on the node, the devices, the
run at work) and names one step. Whatever happens meanwhile - another request, a lost pod, a restart - the next call
sees it, so there is no state to get out of step with.

A change goes: validate - see who uses the devices - start the run, which reads and plans and then waits at its gate -
mark the node and journal the component labels - pause - wait until the components' pods are gone - ask for node and
pods once more - open the gate (the run writes, resets and verifies) - put back - tell.
"""

from __future__ import annotations

from . import components, publish
from . import desired as desired_modes
from .desired import Desired, HostUnknown, Refused
from .names import CHANGING_ANNOTATION, CORDONED_ANNOTATION, FAILED, JOURNAL_ANNOTATION, PAUSED
from .node import Node, Patch
from .pod import Pod
from .publish import Status
from .retry import FIGHT, FIGHT_MAX, Done, try_again
from .seen import READ, Pods, Policy, Run, Seen
from .settings import DRAIN, REFUSE
from .steps import (
    Abandon,
    Cordon,
    Drain,
    Fail,
    FindUsers,
    Forget,
    Kill,
    Look,
    Mark,
    OpenGate,
    Pause,
    Restore,
    StartChange,
    StartReading,
    Step,
    Stop,
    TakeBack,
    Tell,
    Wait,
    WatchPods,
)

# What a run may take beside its waiting for firmware, users and pods; then something hangs, and it is ended.
RUN_S = 120.0
# A change waits for firmware before it reads, after its reset, and after an undo that resets once more.
BOOTS = 3
# A run whose gate was closed ends by itself, unless it hangs before the gate.
ABANDONED_S = 15.0
# From the end of a run's processes to its last word; ansible-runner looks every 5 s whether it shall end.
KILLED_S = 15.0
# An API that gives no list of pods for so long does not get a change to wait for it with components paused.
LISTED_S = 60.0
# From the mark of a change to the last look at who uses the devices: who offers them to pods (docs/device-plugins.md)
# has heard of it by then, and taken them away. Whoever got one before that is among the pods that are looked at.
NOTICED_S = 1.0
# An eviction that a disruption budget refuses is asked for again.
DRAIN_AGAIN_S = 5.0
# From a stop to the moment at which a change that is still at work is ended, to that at which its end is waited for no
# longer, and to that at which the process ends whatever is left; kubelet kills after 30 s.
STOP_S, PUT_BACK_S, LEAVE_S = 18.0, 23.0, 25.0


def next_step(seen: Seen) -> Step:
    """The one thing to do now."""
    if seen.stopping_since is not None:
        return _stopping(seen, seen.stopping_since)
    if seen.run is not None:
        return _running(seen, seen.run)
    if seen.node is None:
        return Wait()
    if seen.reading is None and _first_reading_is_due(seen):
        return _take_back(seen, seen.node) or StartReading()
    step = _idle(seen, seen.node)
    return StartReading() if isinstance(step, Wait) and _reading_is_due(seen) else step


def standing(seen: Seen) -> tuple[Status, Desired | None]:
    """What to tell while nothing is being changed, and the request that is still to be carried out."""
    reading, node = seen.reading, seen.node.name if seen.node else ""
    if reading is None:
        return Status(FAILED, seen.failure.text(node) if seen.failure else ""), None
    try:
        desired = seen.desired()
    except Refused as refused:
        return Status(FAILED, str(refused), reading), None
    if isinstance(desired, HostUnknown):
        return publish.as_read(reading, desired.reason), None
    if desired is None or not reading.devices or desired_modes.satisfied(desired, reading):
        return publish.as_read(reading, desired=desired), None
    failure, done = seen.failure_of(desired), seen.done_of(desired)
    if failure is not None:
        return Status(FAILED, failure.text(node), reading), desired
    why_not = _not_repaired(seen, done) if done else ""
    return publish.as_read(reading, why_not, desired), None if why_not else desired


def _not_repaired(seen: Seen, done: Done) -> str:
    """Why devices that left their mode are not set again now; empty when they are."""
    node = seen.node.name if seen.node else ""
    left = f"The devices left the mode {done.desired.words} after it had been set."
    if not seen.policy.repair:
        return f"{left} {try_again(node)}"
    again_at = done.repairable_at(seen.policy.retry)
    if again_at is None:
        return (
            f"{left} It was set again, and they left it each time: find what changes them. Given up. {try_again(node)}"
        )
    return f"{left} It is set again." if again_at > seen.now else ""


def rests(seen: Seen) -> bool:
    """True when nothing is being changed, or waited for to be changed."""
    if seen.run is not None or seen.node is None or seen.stopping_since is not None:
        return False
    _status, desired = standing(seen)
    return desired is None or not _is_due(seen, desired)


def _is_due(seen: Seen, desired: Desired) -> bool:
    """False while an attempt at a request has failed, and it is too early for the next."""
    failure = seen.failure_of(desired)
    return failure is None or (failure.retry_at is not None and failure.retry_at <= seen.now)


# --- while no run is at work ------------------------------------------------------------------------------------------


def _first_reading_is_due(seen: Seen) -> bool:
    failure = seen.failure_of(None)
    return failure is None or (failure.retry_at is not None and failure.retry_at <= seen.now)


def _take_back(seen: Seen, node: Node) -> Step | None:
    """Tried once; then a reading replaces what was told, or tells why it cannot."""
    patch = publish.outdated(node, seen.boot)
    if not patch or seen.failure is not None or seen.told_refused is not None or seen.writes.times(patch, seen.now) > 1:
        return None
    return TakeBack(patch)


def _reading_is_due(seen: Seen) -> bool:
    """A request that is being carried out goes before a reading; one that failed and waits does not."""
    if seen.reading is None or not rests(seen):
        return False
    due_at = seen.reading_due_at
    return seen.read_when_asked != seen.asked or (due_at is not None and due_at <= seen.now)


def _idle(seen: Seen, node: Node) -> Step:
    status, desired = standing(seen)
    if desired is None or not _is_due(seen, desired):
        return _settle(seen, node, status)
    return _begin(seen, node, desired)


def _settle(seen: Seen, node: Node, status: Status) -> Step:
    """Components back, pods back, the status told: each for itself, so that no refusal of one keeps another back."""
    step = _put_back(seen, node) or _uncordon(seen, node)
    if step is not None:
        return step
    fought = seen.writes.fought(seen.now)
    if fought and not (seen.failure is not None and seen.failure.kind == FIGHT):  # which says so itself
        status = status.and_also(_fight(node, fought))
    if components.paused(node.labels) and seen.restore_refused is not None:
        status = status.and_also(f"Components stay paused: {seen.restore_refused.text}")
    patch = _allowed(seen, _status_patch(seen, node, status), told=True)
    return Tell(status, patch) if patch else Wait(_wakes_at(seen, node, status))


def _status_patch(seen: Seen, node: Node, status: Status) -> Patch:
    return publish.told(node, status, audited=seen.audited, answered=seen.answered)


def _put_back(seen: Seen, node: Node) -> Step | None:
    patch = _allowed(seen, publish.restored(node), told=False)
    return Restore(patch) if patch else None


def _uncordon(seen: Seen, node: Node) -> Step | None:
    patch = _allowed(seen, publish.uncordoned(node), told=False)
    return Restore(patch) if patch else None


def _allowed(seen: Seen, patch: Patch, told: bool) -> Patch:
    """What of a patch may be written now: not what was just refused, nor what somebody else keeps changing back."""
    refusal = seen.told_refused if told else seen.restore_refused
    return seen.writes.due(refusal.allows(patch, seen.now) if refusal else patch, seen.now)


def _fight(node: Node, keys: tuple[str, ...]) -> str:
    look = f"kubectl get node {node.name} -o yaml --show-managed-fields"
    return f"Something else keeps changing {', '.join(keys)}. Find it: {look}"


def _wakes_at(seen: Seen, node: Node, status: Status) -> float | None:
    """The next moment at which there may be something to do though nothing is seen."""
    desired = seen.possible_desired()
    failure = seen.failure_of(desired) if seen.reading is not None else seen.failure_of(None)
    done = seen.done_of(desired) if desired else None
    left = [publish.restored(node), publish.uncordoned(node), _status_patch(seen, node, status)]
    return _earliest(
        seen.reading_due_at if seen.reading is not None else None,
        failure.retry_at if failure else None,
        _later(done.repairable_at(seen.policy.retry), seen.now) if done else None,
        seen.writes.quiet_at(seen.now),
        *(_later(refusal.until, seen.now) for refusal in (seen.restore_refused, seen.told_refused) if refusal),
        *(_later(seen.writes.due_at(key, value, seen.now), seen.now) for one in left for key, value in one.items()),
    )


def _later(moment: float | None, now: float) -> float | None:
    return moment if moment is not None and moment > now else None


def _begin(seen: Seen, node: Node, desired: Desired) -> Step:
    users = _users_first(seen, node, desired)
    if users is not None:
        return users
    if seen.evict_first:
        step = _make_free(seen, node, desired)
        if step is not None:
            return step
    failure = seen.failure_of(desired)
    known_in_use = seen.reading is not None and any(one.in_use or one.problem for one in seen.reading.devices)
    look_first = not seen.evict_first and (failure is not None or known_in_use)
    return StartChange(desired, look_first, failure.waits_s if failure else 0)


# --- who uses the devices ---------------------------------------------------------------------------------------------


def _users_first(seen: Seen, node: Node, desired: Desired) -> Step | None:
    """None when no pod that can be seen holds GPUs of this node."""
    everywhere = seen.everywhere
    if everywhere is None:
        return FindUsers()
    if everywhere.lost:
        return _lost(desired, everywhere)
    if everywhere.denied:  # who uses them is not known here: the run asks the devices, and refuses what it cannot know
        return None
    if everywhere.pods is None:
        return _listed(seen, desired, everywhere.since)
    users = components.users(everywhere.pods)
    if not users:
        return None
    deadline = everywhere.since + seen.policy.busy_timeout_s
    if seen.policy.busy == REFUSE or seen.now >= deadline:
        waited = "" if seen.policy.busy == REFUSE else f" after {seen.policy.busy_timeout_s:g} s"
        return Fail(desired, _in_use(users, waited), _busy_kind(seen))
    return (
        _put_back(seen, node)  # nothing stays paused while somebody is waited for
        or (_drain(seen, node, desired, users) if seen.policy.busy == DRAIN else None)
        or Wait(deadline)
    )


def _lost(desired: Desired, everywhere: Pods) -> Step:
    """Who cannot be seen may have come since. An attempt that has not the right from its start asks the devices."""
    return Fail(desired, f"This node's pods were seen, and cannot be seen any more: {everywhere.denied}", "Forbidden")


def _listed(seen: Seen, desired: Desired, since: float) -> Step:
    if seen.now < since + LISTED_S:
        return Wait(since + LISTED_S)
    return Fail(desired, f"The API gave no list of this node's pods within {LISTED_S:g} s.", "NoList")


def _busy_kind(seen: Seen) -> str:
    """A node is not drained for ever; without a drain, to look whether it has become free costs nobody anything."""
    return "DrainFailed" if seen.policy.busy == DRAIN else "DeviceBusy"


def _in_use(users: list[Pod], waited: str = "") -> str:
    return f"GPUs of this node are in use{waited} by {_names(users)}. Stop these pods."


def _names(pods: list[Pod]) -> str:
    return ", ".join(sorted(pod.words for pod in pods))


def _drain(seen: Seen, node: Node, desired: Desired, users: list[Pod]) -> Step | None:
    """Cordon, then evict those that are there, once more those that may not go yet; nobody who comes later."""
    remaining = [pod for pod in users if not pod.deleting]
    unclear = [pod for pod in remaining if not pod.surely_holds_gpus]
    if unclear:
        words = f"{_names(unclear)} may have GPUs, and is not evicted for that. Stop what may use them yourself."
        return Fail(desired, f"GPUs of this node may be in use: {words}", "DrainFailed")
    kept = [pod for pod in remaining if pod.daemon_set]
    if kept:
        words = f"{_names(kept)} belong to DaemonSets, which make them again. Keep them off this node first."
        return Fail(desired, f"GPUs of this node are in use: {words}", "DrainFailed")
    drained = seen.drained
    if drained is not None:
        came = [pod for pod in remaining if pod.identity not in drained.uids]
        if came:
            words = f"{_names(came)} came while this node was being drained. Stop what makes them."
            return Fail(desired, f"GPUs of this node are in use: {words}", "DrainFailed")
        if remaining and seen.now < drained.at + DRAIN_AGAIN_S:
            return Wait(drained.at + DRAIN_AGAIN_S)
    if not remaining:
        return None
    if not seen.looked:
        return Look()
    if CORDONED_ANNOTATION not in node.annotations and not node.unschedulable:
        return _unfought(seen, desired, publish.cordoned()) or Cordon(publish.cordoned())
    return Drain(tuple(remaining))


# --- while a run is at work -------------------------------------------------------------------------------------------


def ends_at(policy: Policy, run: Run) -> float:
    """When a run that has not ended hangs."""
    if run.abandoned_at is not None:
        return run.abandoned_at + ABANDONED_S
    if run.opened_at is not None:
        return run.opened_at + RUN_S + BOOTS * policy.boot_timeout_s
    whole = run.since + RUN_S + policy.boot_timeout_s
    return whole if run.kind == READ else whole + run.waits_s + policy.eviction_timeout_s


def _running(seen: Seen, run: Run) -> Step:
    if run.killed_at is not None:
        ends = run.killed_at + KILLED_S
        return Forget() if seen.now >= ends else Wait(ends)
    ends = ends_at(seen.policy, run)
    if seen.now >= ends:
        return Kill()
    if run.kind == READ or run.opened or run.abandoned_at is not None:
        return Wait(ends)
    if seen.node is None:
        return Abandon("the node is gone")
    step = _before_the_gate(seen, run, seen.node)
    return Wait(_earliest(step.until, ends)) if isinstance(step, Wait) else step


def _before_the_gate(seen: Seen, run: Run, node: Node) -> Step:
    desired = seen.possible_desired()
    if desired is None or desired != run.desired:
        return Abandon("there is another request")
    if seen.everywhere is not None and seen.everywhere.lost:
        return _lost(desired, seen.everywhere)
    users = components.users((seen.everywhere.pods if seen.everywhere else None) or ())
    if users:  # they came after the run was started
        return Fail(desired, _in_use(users), _busy_kind(seen))
    if run.look_first and not run.planned:
        return Wait()
    step = _make_free(seen, node, desired)
    if step is not None:
        return step
    if not run.planned:
        return Wait()
    if seen.marked_at is not None and seen.now < seen.marked_at + NOTICED_S:
        return Wait(seen.marked_at + NOTICED_S)
    return OpenGate() if seen.looked else Look()


def _make_free(seen: Seen, node: Node, desired: Desired) -> Step | None:
    """What is left to do before devices may be written to: mark, journal, pause, wait. None when nothing is."""
    evict, pods, known = seen.policy.evict, seen.pods, seen.reading
    if evict and pods is None:
        return WatchPods()
    if evict and pods is not None and pods.denied:
        return Fail(desired, f"The components' pods cannot be seen: {pods.denied}", "Forbidden")
    if evict and pods is not None and pods.pods is None:
        return _listed(seen, desired, pods.since)
    mark = publish.changing(node, known, desired.words, with_components=evict) if known is not None else Patch()
    if mark:
        return _unfought(seen, desired, mark) or Mark(mark)
    if not evict or pods is None or pods.pods is None:
        return None
    pause = Patch(dict.fromkeys(components.running(node.labels), PAUSED))
    if pause:
        return _unfought(seen, desired, pause) or Pause(pause)
    elsewhere = (seen.everywhere.pods if seen.everywhere else None) or ()  # the namespace may have been set wrongly
    left = sorted({pod.words for pod in components.in_the_way([*pods.pods, *elsewhere])})
    return (
        _gone_in_time(seen, desired, left, pods.since if seen.paused_at is None else seen.paused_at) if left else None
    )


def _unfought(seen: Seen, desired: Desired, patch: Patch) -> Step | None:
    """None when the patch may be written now: a change does not go on against somebody who undoes it.

    A later attempt writes once more, when it is time: whoever it was may have stopped.
    """
    due_at = seen.writes.all_due_at(patch, seen.now)
    if due_at <= seen.now:
        return None
    if seen.writes.times(patch, seen.now) < FIGHT_MAX or seen.node is None:
        return Wait(due_at)
    return Fail(desired, _fight(seen.node, seen.writes.fought_in(patch, seen.now)), FIGHT)


def _gone_in_time(seen: Seen, desired: Desired, left: list[str], since: float) -> Step:
    deadline = since + seen.policy.eviction_timeout_s
    if seen.now < deadline:
        return Wait(deadline)
    return Fail(
        desired,
        f"After {seen.policy.eviction_timeout_s:g} s these pods of paused components are not gone: {', '.join(left)}. "
        "See why they do not end (kubectl describe pod).",
        "EvictionTimeout",
    )


# --- the end ----------------------------------------------------------------------------------------------------------


def _stopping(seen: Seen, since: float) -> Step:
    run, node = seen.run, seen.node
    if seen.now >= since + LEAVE_S:
        return Stop(late=True)
    if run is not None and not run.opened and run.abandoned_at is None and run.killed_at is None:
        return Abandon("the CC manager stops")
    if run is not None and run.killed_at is None:
        return Kill() if seen.now >= since + STOP_S else Wait(since + STOP_S)
    if run is not None and seen.now < since + PUT_BACK_S:
        return Wait(since + PUT_BACK_S)
    if node is None:
        return Stop()
    step = _put_back(seen, node) or _uncordon(seen, node)
    if step is not None:
        return step
    if not {CHANGING_ANNOTATION, JOURNAL_ANNOTATION} & node.annotations.keys():
        return Stop()
    status, desired = standing(seen)
    if run is not None or (desired is not None and seen.failure_of(desired) is None):
        status = Status(FAILED, "The CC manager was stopped during a change. It goes on when it is started.", None)
    patch = _allowed(seen, _status_patch(seen, node, status), told=True)
    return Tell(status, patch) if patch else Stop()


def _earliest(*moments: float | None) -> float | None:
    known = [moment for moment in moments if moment is not None]
    return min(known, default=None)
