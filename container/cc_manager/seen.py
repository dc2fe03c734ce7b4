# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Everything that is known now. ``reconcile`` names the next step from it, ``outcome`` what is known after one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from . import desired as desired_modes
from .desired import Desired, HostUnknown, Refused
from .names import RETRY_ANNOTATION
from .node import Node
from .pod import Pod
from .reading import Reading
from .retry import Done, Failure, Refusal, Rules, Writes
from .settings import REFUSE

READ, CHANGE = "read", "change"


@dataclass(frozen=True)
class Policy:
    """The settings that decide what is done. Times in seconds."""

    default_mode: str = ""
    evict: bool = True
    busy: str = REFUSE
    busy_timeout_s: float = 300
    eviction_timeout_s: float = 300
    boot_timeout_s: float = 30
    drift_interval_s: float = 300
    repair: bool = False
    retry: Rules = field(default_factory=Rules)


@dataclass(frozen=True)
class Run:
    """The Ansible run at work."""

    kind: str
    since: float
    desired: Desired | None = None
    asked: tuple[tuple[str, str], ...] = ()  # of a change: address and mode of each device that it is about
    look_first: bool = False  # nothing is paused until its plan is there
    planned: bool = False
    asked_before: str = ""  # the retry annotation when it began
    opened_at: float | None = None  # the gate: from here on it may write
    abandoned_at: float | None = None
    killed_at: float | None = None
    waits_s: float = 0  # how long it may wait for the devices' users itself

    @property
    def opened(self) -> bool:
        """True when it may have written."""
        return self.opened_at is not None


@dataclass(frozen=True)
class Pods:
    """The pods that are watched, once a list is there. ``denied``: why they are not known, which is not none."""

    since: float
    pods: tuple[Pod, ...] | None = None
    denied: str = ""
    lost: bool = False  # they were seen, and then denied

    def are(self, pods: tuple[Pod, ...]) -> Pods:
        """The same, with the pods that there are."""
        return replace(self, pods=pods, denied="", lost=False)

    def are_denied(self, why: str) -> Pods:
        """The same, not known any more."""
        return replace(self, pods=None, denied=why, lost=self.lost or self.pods is not None)


@dataclass(frozen=True)
class Drained:
    """The pods whose eviction was asked for in this attempt, by uid, and when that was last."""

    at: float
    uids: frozenset[str]


@dataclass(frozen=True)
class Seen:
    """Everything that is known now. Times are seconds of one clock."""

    now: float
    policy: Policy = field(default_factory=Policy)
    boot: str = ""  # of the host
    node: Node | None = None
    looked: bool = False  # node and pods were asked for just now, and nothing was heard since
    reading: Reading | None = None
    reading_due_at: float | None = None
    read_when_asked: str = ""  # the retry annotation before the last reading
    answered: str = ""  # the retry annotation before the last reading, or change, that succeeded
    run: Run | None = None
    pods: Pods | None = None  # of the components' namespace
    marked_at: float | None = None  # the node says since then that a change is under way
    paused_at: float | None = None
    everywhere: Pods | None = None  # of all namespaces: who uses GPUs
    drained: Drained | None = None
    noticed: Desired | HostUnknown | str | None = None  # the request, or why it is none, that the rest is about
    failure: Failure | None = None
    evict_first: bool = False  # the devices are in use by what is being evicted
    done: Done | None = None
    written: Writes = field(default_factory=Writes)
    restore_refused: Refusal | None = None
    told_refused: Refusal | None = None
    stopping_since: float | None = None
    audited: str = ""  # number and hash of the last audit record; empty: none are written

    @property
    def asked(self) -> str:
        """The value of the retry annotation; another one than before asks for another attempt."""
        return self.node.annotations.get(RETRY_ANNOTATION, "") if self.node else ""

    @property
    def writes(self) -> Writes:
        """What this process has written since the user asked for another attempt."""
        return self.written.since(self.asked)

    def desired(self) -> Desired | HostUnknown | None:
        """The newest request. Raises Refused when it cannot be carried out."""
        if self.node is None or self.reading is None:
            return None
        desired = desired_modes.of(self.node, self.policy.default_mode, self.reading.host_support)
        if isinstance(desired, Desired):
            desired_modes.wanted(desired, self.reading)
        return desired

    def possible_desired(self) -> Desired | None:
        """The newest request if it can be carried out."""
        try:
            desired = self.desired()
        except Refused:
            return None
        return desired if isinstance(desired, Desired) else None

    def failure_of(self, desired: Desired | None) -> Failure | None:
        """The failure, if it was of this request, and the user has not asked for another attempt since."""
        failure = self.failure
        return failure if failure and (failure.desired, failure.asked) == (desired, self.asked) else None

    def done_of(self, desired: Desired) -> Done | None:
        """The success, if it was of this request, and the user has not asked for another attempt since."""
        done = self.done
        return done if done and (done.desired, done.asked) == (desired, self.asked) else None

    @property
    def is_satisfied(self) -> bool:
        """True when there is a request, and every device is where it wants it."""
        desired = self.possible_desired()
        if desired is None or self.reading is None or not self.reading.devices:
            return False
        return desired_modes.satisfied(desired, self.reading)
