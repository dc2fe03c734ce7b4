# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The steps: everything that the CC manager does. ``reconcile`` names one, ``controller`` carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from .desired import Desired
from .node import Patch
from .pod import Pod
from .publish import Status


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

    desired: Desired
    look_first: bool = False
    waits_s: float = 0


@dataclass(frozen=True)
class FindUsers:
    """Watch the pods of all namespaces on this node."""


@dataclass(frozen=True)
class WatchPods:
    """Watch the pods of the components' namespace on this node."""


@dataclass(frozen=True)
class Look:
    """Ask for the node and its pods: what watches told before decides nothing that cannot be undone."""


@dataclass(frozen=True)
class Cordon:
    """Let no new pods come; the patch holds only for the node as it was seen."""

    patch: Patch


@dataclass(frozen=True)
class Drain:
    """Evict pods that hold GPUs."""

    pods: tuple[Pod, ...]


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
class Forget:
    """Wait no longer for the end of a run that was ended."""


@dataclass(frozen=True)
class Fail:
    """Give this attempt up."""

    desired: Desired
    reason: str
    kind: str


@dataclass(frozen=True)
class Restore:
    """Put components back, or let pods come again; the patch holds only for the node as it was seen."""

    patch: Patch


@dataclass(frozen=True)
class Tell:
    """Tell the status."""

    status: Status
    patch: Patch


@dataclass(frozen=True)
class Stop:
    """End the process. ``late``: with things left undone."""

    late: bool = False


Step = (
    Wait
    | StartReading
    | TakeBack
    | StartChange
    | FindUsers
    | WatchPods
    | Look
    | Cordon
    | Drain
    | Mark
    | Pause
    | OpenGate
    | Abandon
    | Kill
    | Forget
    | Fail
    | Restore
    | Tell
    | Stop
)
# Steps that write to the node.
Patching = TakeBack | Cordon | Mark | Pause | Restore | Tell
