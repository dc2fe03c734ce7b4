# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is done again, when, and when no more: attempts, successes that do not last, writes that others undo.

Pure: no clock, no chance, no API. Nothing is ever done again without a pause that grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .desired import Desired
from .names import RETRY_ANNOTATION
from .node import Patch

SHORTEST_S = 1.0  # also where the setting says 0
LONGEST_S = 300.0
# What was done longer ago than this is no part of a row.
QUIET_S = 900.0
# Errors that another attempt cannot mend.
FINAL = ("InvalidRequest", "Unsupported", "FirmwareTooOld")
# Errors that end when somebody else does something: they are tried for ever, as long as nothing was touched. A retry
# looks first and pauses nothing.
PATIENT = ("DeviceBusy", "RunInProgress", "NotPermitted", "Forbidden")
# So many equal writes of a key in a row, and somebody else undoes them.
FOUGHT = 3
# A change does not go on against somebody who undoes what it needs.
FIGHT_MAX = 5
# The kind of failure that this is.
FIGHT = "Fight"


@dataclass(frozen=True)
class Rules:
    """``limit``: attempts; ``delay_s``: before the first retry."""

    limit: int = 8
    delay_s: float = 10.0


def delay_s(times: int, first_s: float, jitter: float) -> float:
    """Seconds to wait after so many times in a row: doubled each time. ``jitter`` is a factor of 0.75 to 1."""
    return min(LONGEST_S, max(SHORTEST_S, first_s) * 2.0 ** min(max(times, 1) - 1, 20)) * jitter


# --- attempts ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """Why the last attempt failed. ``desired`` None: a reading. ``asked``: the retry annotation at that moment."""

    desired: Desired | None
    asked: str
    kind: str
    reason: str
    attempts: int
    retry_at: float | None  # None: given up
    waits: bool = False  # for the devices' users, as the setting says
    waits_s: float = 0.0  # in the next attempt

    @property
    def given_up(self) -> bool:
        """True when nothing happens before something changes."""
        return self.retry_at is None

    def text(self, node: str) -> str:
        """For people; the same after each attempt that fails for the same reason."""
        if self.given_up:
            return f"{self.reason} Given up. {try_again(node)}"
        if self.waits:
            return f"{self.reason} Waiting for that to end."
        return f"{self.reason} It is tried again."


def try_again(node: str) -> str:
    """What a user can do."""
    return f'To try again: kubectl annotate node {node} --overwrite {RETRY_ANNOTATION}="$(date)"'


def failed(
    before: Failure | None,
    now: Failure,
    rules: Rules,
    at: float,
    jitter: float,
    touched: bool,
) -> Failure:
    """A failed attempt after those before it. of ``now`` desired, asked, kind, reason, waits and waits_s are taken."""
    in_a_row = before is not None and (before.desired, before.asked) == (now.desired, now.asked)
    attempts = before.attempts + 1 if before is not None and in_a_row else 1
    if now.waits_s:
        return replace(now, attempts=attempts, retry_at=at + SHORTEST_S)
    patient = now.kind in PATIENT and not touched
    given_up = now.desired is not None and (now.kind in FINAL or (attempts >= rules.limit and not patient))
    return replace(now, attempts=attempts, retry_at=None if given_up else at + delay_s(attempts, rules.delay_s, jitter))


@dataclass(frozen=True)
class Done:
    """A request that was carried out. ``times``: how often in a row, because the devices did not stay; 0: found so."""

    desired: Desired
    asked: str
    times: int
    at: float

    def repairable_at(self, rules: Rules) -> float | None:
        """When it may be carried out again; None: it was, too often."""
        if not self.times:
            return self.at
        return None if self.times >= rules.limit else self.at + delay_s(self.times, rules.delay_s, 1.0)


def done(before: Done | None, desired: Desired, asked: str, at: float) -> Done:
    """A success, after one that did not last or not."""
    in_a_row = before is not None and (before.desired, before.asked) == (desired, asked) and at < before.at + QUIET_S
    return Done(desired, asked, before.times + 1 if before is not None and in_a_row else 1, at)


# --- writes to the node -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """What was last written to a key, how often in a row, and when."""

    value: str | None
    times: int
    at: float


@dataclass(frozen=True)
class Writes:
    """Key of a label or annotation to what was last written there by this process, since ``asked``.

    ``asked`` is the retry annotation: who asks for another attempt has looked who else writes.
    """

    by_key: Mapping[str, Write] = field(default_factory=dict)
    asked: str = ""

    def since(self, asked: str) -> Writes:
        """Those since that retry annotation."""
        return self if asked == self.asked else Writes(asked=asked)

    def after(self, patch: Patch, at: float) -> Writes:
        """With the keys of a patch that was carried out."""
        new = {}
        for key, value in patch.items():
            before = self._in_a_row(key, value, at)
            new[key] = Write(value, before.times + 1 if before else 1, at)
        return replace(self, by_key={**self.by_key, **new})

    def due_at(self, key: str, value: str | None, at: float) -> float:
        """When this may be written: the first repetition at once, then later and later."""
        before = self._in_a_row(key, value, at)
        if before is None or before.times < 2:
            return at
        return max(at, before.at + delay_s(before.times - 1, SHORTEST_S, 1.0))

    def all_due_at(self, patch: Patch, at: float) -> float:
        """When all of a patch may be written."""
        return max((self.due_at(key, value, at) for key, value in patch.items()), default=at)

    def due(self, patch: Patch, at: float) -> Patch:
        """What of a patch may be written now."""
        labels = {key: value for key, value in patch.labels.items() if self.due_at(key, value, at) <= at}
        annotations = {key: value for key, value in patch.annotations.items() if self.due_at(key, value, at) <= at}
        return Patch(labels, annotations, patch.unschedulable if labels or annotations else None)

    def times(self, patch: Patch, at: float) -> int:
        """How often the same was written to one of the keys, in a row."""
        found = (self._in_a_row(key, value, at) for key, value in patch.items())
        return max((before.times for before in found if before), default=0)

    def fought(self, at: float) -> tuple[str, ...]:
        """The keys that somebody else keeps changing."""
        every = self.by_key.items()
        return tuple(sorted(key for key, one in every if one.times >= FOUGHT and at < one.at + QUIET_S))

    def fought_in(self, patch: Patch, at: float) -> tuple[str, ...]:
        """Those of them that a patch is to write."""
        keys = {key for key, _value in patch.items()}
        return tuple(key for key in self.fought(at) if key in keys)

    def quiet_at(self, at: float) -> float | None:
        """When the next of the fought keys counts as quiet."""
        return min((self.by_key[key].at + QUIET_S for key in self.fought(at)), default=None)

    def _in_a_row(self, key: str, value: str | None, at: float) -> Write | None:
        before = self.by_key.get(key)
        return before if before and before.value == value and at < before.at + QUIET_S else None


@dataclass(frozen=True)
class Refusal:
    """The API refuses a patch for what it says (400, 403, 413, 422), not for a moment's trouble.

    ``until``: when the whole is tried again. ``keys``: those that were refused alone meanwhile.
    """

    text: str
    times: int
    until: float
    keys: frozenset[str] = frozenset()

    def after(self, patch: Patch, at: float, jitter: float) -> Refusal:
        """With another refusal."""
        keys = [key for key, _value in patch.items()]
        alone = frozenset(keys if len(keys) == 1 else ())
        if at < self.until:
            return replace(self, keys=self.keys | alone)
        return Refusal(self.text, self.times + 1, at + delay_s(self.times + 1, 10.0, jitter), alone)

    def allows(self, patch: Patch, at: float) -> Patch:
        """The whole, when it is time; until then labels one by one, each once; empty when none is left."""
        if at >= self.until:
            return patch
        parts = (Patch({key: value}) for key, value in patch.labels.items() if key not in self.keys)
        return next(parts, Patch())
