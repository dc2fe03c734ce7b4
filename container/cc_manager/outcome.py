# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known after something has happened: a run ended, a patch was made or refused, an attempt failed. Pure.

``jitter``: a factor of 0.75 to 1 for what is done again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from . import reading as readings
from . import retry
from .desired import Desired, HostUnknown, Refused
from .node import Node
from .reading import BadAnswer, Reading
from .retry import Done, Failure, Refusal
from .seen import READ, Run, Seen
from .settings import WAIT
from .steps import Mark, Patching, Pause, Restore, TakeBack, Tell

if TYPE_CHECKING:
    from .answers import Problem

# A reading that leaves something open (no device, a host that does not say what it can do, a change that was cut off)
# is done again earlier.
SOON_S = 60.0
# Answers of the API that are about what was asked; the same again gets the same.
REFUSALS = (400, 403, 413, 422)


def noticed(seen: Seen) -> Seen:
    """Another request has nothing to do with the attempts at the one before."""
    if seen.node is None or seen.reading is None:
        return seen
    try:
        desired: Desired | HostUnknown | str | None = seen.desired()
    except Refused as refused:
        desired = str(refused)
    if desired == seen.noticed:
        return seen
    found = replace(seen, noticed=desired, failure=None, done=None, evict_first=False, everywhere=None, drained=None)
    return replace(found, reading_due_at=_next_reading_at(found)) if isinstance(desired, HostUnknown) else found


def rested(seen: Seen) -> Seen:
    """Nothing is being changed: nobody's pods matter, and what is as wanted counts as done."""
    found = replace(seen, everywhere=None, pods=None, marked_at=None, paused_at=None, drained=None)
    desired = found.possible_desired()
    if desired is None or not found.is_satisfied or found.done_of(desired):
        return found
    return replace(found, done=Done(desired, found.asked, 0, found.now))


def failed(seen: Seen, desired: Desired | None, kind: str, reason: str, jitter: float, run: Run | None = None) -> Seen:
    """An attempt failed; ``run``: the one that did, if it was a run that ended."""
    opened = run is not None and run.opened
    waits = kind == "DeviceBusy" and seen.policy.busy == WAIT and not opened
    waits_s = seen.policy.busy_timeout_s if waits and run is not None and not run.waits_s else 0.0
    failure = Failure(desired, seen.asked, kind, reason, 0, None, waits, waits_s)
    failure = retry.failed(seen.failure, failure, seen.policy.retry, seen.now, jitter, touched=opened)
    cleared = replace(seen, evict_first=False, everywhere=None, pods=None, marked_at=None, paused_at=None, drained=None)
    return replace(cleared, failure=failure)


# --- runs -------------------------------------------------------------------------------------------------------------


def run_ended(seen: Seen, result: Mapping[str, Any], has_failed: bool, jitter: float) -> Seen:
    """The run at work has an answer, or there will be none."""
    run = seen.run
    if run is None:
        return seen
    if has_failed and run.killed_at is not None:
        result = {"devices": readings.entries_of(result), "msg": HUNG, "error": {"kind": "Hung"}}
    ended = replace(seen, run=None)
    if run.kind == READ:
        return _reading_ended(replace(ended, read_when_asked=run.asked_before), run, result, has_failed, jitter)
    return _change_ended(ended, run, result, has_failed, jitter)


HUNG = "It hung: the run gave no answer in time and was ended."


def _reading_ended(seen: Seen, run: Run, result: Mapping[str, Any], has_failed: bool, jitter: float) -> Seen:
    before, annotations = seen.reading, seen.node.annotations if seen.node else {}
    try:
        if has_failed:
            raise BadAnswer(reason_of(result))
        reading = readings.read(result, seen.boot)
    except BadAnswer as bad:
        after = replace(seen, reading_due_at=_next_reading_at(seen))
        return after if before is not None else failed(after, None, kind_of(result), str(bad), jitter)
    if before is not None:
        reading = reading.knowing(before.modes()).after(before.addresses)
    else:
        published = readings.published_modes(annotations, seen.boot)
        reading = reading.knowing(published).after(readings.published_addresses(annotations, seen.boot))
    after = replace(seen, reading=reading, answered=run.asked_before)
    is_over = after.is_satisfied or (after.failure is not None and after.failure.desired is None)
    return replace(after, failure=None if is_over else after.failure, reading_due_at=_next_reading_at(after))


def _change_ended(seen: Seen, run: Run, result: Mapping[str, Any], has_failed: bool, jitter: float) -> Seen:
    entries, asked = readings.entries_of(result), dict(run.asked)
    before = seen.reading or Reading(boot=seen.boot)
    after = replace(seen, reading=readings.changed(before, entries, asked, run.opened, done=not has_failed))
    if after.reading is not None and after.reading.is_unread:
        after = replace(after, reading_due_at=seen.now)
    kind, reason = kind_of(result), reason_of(result)
    answers = readings.answers(entries)
    wrong = sorted(address for address, mode in asked.items() if answers.get(address) != mode)
    if not has_failed and wrong:
        has_failed, kind = True, "NoAnswer"
        reason = f"The run ended well, and its answer does not show {', '.join(wrong)} in the mode that was asked for."
    if not has_failed and run.desired is not None:
        done = retry.done(seen.done_of(run.desired), run.desired, seen.asked, seen.now)
        due_at = _next_reading_at(after)
        retry_before = run.asked_before
        cleared = replace(after, evict_first=False, marked_at=None, paused_at=None)
        return replace(
            cleared, failure=None, done=done, reading_due_at=due_at, read_when_asked=retry_before, answered=retry_before
        )
    if run.abandoned_at is not None or seen.stopping_since is not None:  # why it was called off is known already
        return after
    if kind == "DeviceBusy" and not run.opened and not seen.evict_first and not run.look_first:
        # What is being evicted may be what uses them: let it go first, and then start again.
        return replace(after, evict_first=True)
    return failed(after, run.desired, kind, reason, jitter, run)


def _next_reading_at(seen: Seen) -> float | None:
    interval = seen.policy.drift_interval_s
    if seen.reading is not None and (not seen.reading.devices or seen.reading.is_unread or _waits_for_host(seen)):
        interval = min(interval or SOON_S, SOON_S)
    return seen.now + interval if interval else None


def _waits_for_host(seen: Seen) -> bool:
    """True when the request depends on what the host does not say yet."""
    try:
        return isinstance(seen.desired(), HostUnknown)
    except Refused:
        return False


def reason_of(result: Mapping[str, Any]) -> str:
    """What a run that failed has said."""
    return str(result.get("msg") or "The run failed without a word.")


def kind_of(result: Mapping[str, Any]) -> str:
    """The kind of its error; of several of one kind, theirs."""
    error = result.get("error")
    if not isinstance(error, Mapping):
        return "Run"
    problem = cast("Problem", error)
    seen = problem.get("seen")
    several = seen.get("errors") if isinstance(seen, Mapping) else None
    kinds = {str(one.get("kind")) for one in several or [] if isinstance(one, Mapping)}
    return kinds.pop() if len(kinds) == 1 else str(problem.get("kind", "Run"))


# --- patches ----------------------------------------------------------------------------------------------------------


def wrote(seen: Seen, step: Patching, node: Node) -> Seen:
    """A patch was made, and this is the node's answer."""
    after = replace(seen, node=node, written=seen.writes.after(step.patch, seen.now), looked=False)
    if isinstance(step, Mark):
        return replace(after, marked_at=seen.now)
    if isinstance(step, Pause) and after.paused_at is None:
        return replace(after, paused_at=seen.now)
    if isinstance(step, Restore) and after.restore_refused is not None and seen.now >= after.restore_refused.until:
        return replace(after, restore_refused=None)
    if isinstance(step, Tell) and after.told_refused is not None and seen.now >= after.told_refused.until:
        return replace(after, told_refused=None)
    return after


def refused(seen: Seen, step: Patching, status: int, text: str, jitter: float) -> Seen:
    """The API refuses a patch for good."""
    if isinstance(step, Restore):
        before = seen.restore_refused or Refusal(text, 0, seen.now)
        return replace(seen, restore_refused=before.after(step.patch, seen.now, jitter))
    if isinstance(step, Tell | TakeBack):
        before = seen.told_refused or Refusal(text, 0, seen.now)
        return replace(seen, told_refused=before.after(step.patch, seen.now, jitter))
    what = "marked" if isinstance(step, Mark) else "changed as a change of the mode needs it"
    desired = seen.run.desired if seen.run else seen.possible_desired()
    reason = f"The API does not let the node be {what}: {text}"
    return called_off(seen, desired, "Forbidden" if status == 403 else "Refused", reason, jitter)


def called_off(seen: Seen, desired: Desired | None, kind: str, reason: str, jitter: float) -> Seen:
    """An attempt is given up; a run that waits at its gate is not let through."""
    run = replace(seen.run, abandoned_at=seen.now) if seen.run else None
    return replace(failed(seen, desired, kind, reason, jitter), run=run)


def run_opened(seen: Seen) -> Seen:
    """The run may write: its devices' modes are not known any more."""
    return replace(seen, run=replace(seen.run, opened_at=seen.now) if seen.run else None, looked=False)
