# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The steps of a rollout, one at a time; and the patches of a node that carry them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cc_manager.names import MODE_LABEL, RETRY_ANNOTATION

from .claim import Claim
from .names import ROLLOUT_ANNOTATION
from .node import Node
from .record import Pause


@dataclass(frozen=True)
class Take:
    """Set the label, cordon, and note both on the node. ``asked``: what its CC manager repeats when it has answered."""

    node: Node
    claim: Claim
    asked: str


@dataclass(frozen=True)
class Hold:
    """Cordon it, and wait until its pods have ended."""

    node: Node
    claim: Claim


@dataclass(frozen=True)
class Release:
    """Let it go: uncordon it, if the rollout has cordoned it. ``claim``: the note that stays; None: none.

    ``unlabel``: take the label away, which it did not have before.
    """

    node: Node
    claim: Claim | None
    unlabel: bool = False


@dataclass(frozen=True)
class Look:
    """See which pods hold its GPUs."""

    node: Node


@dataclass(frozen=True)
class RunGate:
    """Let a wave be examined."""

    wave: int


@dataclass(frozen=True)
class Pass:
    """Note that so many waves have passed."""

    waves: int


@dataclass(frozen=True)
class Halt:
    """Note that nothing more is to be begun, and why."""

    pause: Pause


@dataclass(frozen=True)
class Finish:
    """Note that nothing is left to do."""

    phase: str


@dataclass(frozen=True)
class Wait:
    """Until something is seen to have changed, or until ``until``, in seconds since the epoch.

    ``stuck``: what is waited for, when nothing that the rollout does will bring it about.
    """

    until: float | None = None
    stuck: str = ""


@dataclass(frozen=True)
class Rest:
    """It is paused or over, and all that was begun has come to its end."""


Change = Take | Hold | Release
Step = Change | Look | RunGate | Pass | Halt | Finish | Wait | Rest


def patch(step: Change) -> dict[str, Any]:
    """The merge patch of the node, which only holds for the version that was seen: no other change is undone."""
    annotations: dict[str, str | None] = {ROLLOUT_ANNOTATION: step.claim.text() if step.claim else None}
    metadata: dict[str, Any] = {"resourceVersion": step.node.version, "annotations": annotations}
    body: dict[str, Any] = {"metadata": metadata}
    if isinstance(step, Take):
        metadata["labels"] = {MODE_LABEL: step.claim.mode}
        annotations[RETRY_ANNOTATION] = step.asked
    if isinstance(step, Release):
        if step.unlabel:
            metadata["labels"] = {MODE_LABEL: None}
        if step.node.claim is not None and step.node.claim.cordoned:
            body["spec"] = {"unschedulable": None}
    elif step.claim.cordoned and not step.node.unschedulable:
        body["spec"] = {"unschedulable": True}
    return body
