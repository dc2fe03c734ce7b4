# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a node is not ready: one cause, what shows it, and what to do. Pure: from the node and its pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cc_manager import components
from cc_manager.names import CORDONED_ANNOTATION, FAILED, MIXED, MODE_LABEL, MODES, RETRY_ANNOTATION
from cc_manager.pod import Pod

from . import moment
from .node import Node

# In the name of the CC manager's DaemonSet: nvidia-cc-manager of the GPU Operator, RELEASE-cc-manager of the chart.
CC_MANAGER = "cc-manager"
GPU_OPERATORS_LABEL = "nvidia.com/gpu.deploy.cc-manager"
SHOWN = 8


@dataclass(frozen=True)
class Answer:
    """``ready``: nothing is the matter. ``evidence``: what was seen, a line each. ``remedy``: what to do."""

    ready: bool
    cause: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""

    def lines(self, name: str) -> list[str]:
        """For people."""
        found = [f"node:     {name}", f"cause:    {self.cause}"]
        found += [f"{'evidence:' if number == 0 else '':9} {line}" for number, line in enumerate(self.evidence)]
        return [*found, f"remedy:   {self.remedy or 'none is needed'}"]


def explain(node: Node, pods: Sequence[Pod] | None, now: float) -> Answer:
    """The first cause in the order in which things depend on each other. ``pods``: None where there is no right."""
    for rule in (_kubelet, _cc_manager, _label, _busy, _failure, _change, _mixed, _behind, _cordon):
        answer = rule(node, pods, now)
        if answer is not None:
            return answer
    return Answer(True, f"{node.name} is in mode {node.observed} and takes pods", _state(node, now))


def _kubelet(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    if not node.kubelet:
        return None
    remedy = f"See that the host and its kubelet run: kubectl describe node {node.name}"
    return Answer(False, f"the node is not ready: {node.kubelet}", _state(node, now), remedy)


def _cc_manager(node: Node, pods: Sequence[Pod] | None, now: float) -> Answer | None:
    """A state is as good as the CC manager that publishes it."""
    if pods is None or (node.observed and node.follows and not node.has_failed):
        return None
    ours = [pod for pod in pods if CC_MANAGER in pod.daemon_set]
    if not ours:
        label = f"label {GPU_OPERATORS_LABEL}={node.labels.get(GPU_OPERATORS_LABEL, '(absent)')}"
        remedy = (
            "Install the CC manager, or let its DaemonSet choose this node: with the GPU Operator "
            f"kubectl label node {node.name} {GPU_OPERATORS_LABEL}=true --overwrite"
        )
        sought = f"no pod of a DaemonSet with {CC_MANAGER} in its name; {label}"
        return Answer(False, "no pod of the CC manager is on the node", (sought, *_state(node, now)), remedy)
    dead = [pod for pod in ours if not pod.running]
    if len(dead) < len(ours):
        return None
    seen = tuple(f"pod {pod.words}: {pod.phase or 'no phase'}, no container runs" for pod in dead)
    remedy = f"kubectl describe pod -n {dead[0].namespace} {dead[0].name}"
    return Answer(False, "the CC manager does not run", (*seen, *_state(node, now)), remedy)


def _label(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    if not node.desired or node.desired in MODES:
        return None
    remedy = f"kubectl label node {node.name} {MODE_LABEL}=on --overwrite (or one of {', '.join(MODES)})"
    return Answer(False, f"the label asks for {node.desired!r}, which is no mode", _state(node, now), remedy)


def _busy(node: Node, pods: Sequence[Pod] | None, now: float) -> Answer | None:
    users = components.users(pods or ())
    if not users or not (node.has_failed or (node.desired and node.observed != node.desired)):
        return None
    seen = tuple(f"pod {pod.words} has {', '.join((*pod.resources, *pod.unclear))}" for pod in users[:SHOWN])
    remedy = "Stop these pods, or let the CC manager drain the node (CC_MANAGER_BUSY=drain). It looks again by itself."
    return Answer(False, "its GPUs are in use, and are not touched", (*seen, *_state(node, now)), remedy)


def _failure(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    if node.observed != FAILED:
        return None
    cause, seen = node.reason or "the CC manager reports failed without a reason", _devices(node)
    again = (
        f'kubectl cc retry {node.name} (or: kubectl annotate node {node.name} --overwrite {RETRY_ANNOTATION}="$(date)")'
    )
    return Answer(False, cause, (*seen, *_state(node, now)), f"Do what the cause says, then: {again}")


def _change(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    paused = tuple(f"paused: {key}" for key in components.paused(node.labels))
    if node.changing:
        cause = f"its CC manager works on {node.changing}"
        return Answer(False, cause, (*paused, *_state(node, now)), f"Wait: kubectl cc wait {node.name}")
    if not node.observed:
        cause = "its CC manager has read no mode yet, or reads them again after a boot"
        return Answer(False, cause, (*paused, *_state(node, now)), f"Wait: kubectl cc wait {node.name}")
    return None


def _mixed(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    if node.observed != MIXED:
        return None
    remedy = f"Ask for one mode for all: kubectl label node {node.name} {MODE_LABEL}=on --overwrite"
    if node.wanted:
        remedy = "Modes are requested for single devices (annotation nvidia.com/cc.mode.devices-wanted): change those."
    return Answer(False, "its devices are in different modes", (*_devices(node), *_state(node, now)), remedy)


def _behind(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    if node.follows:
        return None
    cause = (
        f"the label asks for {node.desired}, its devices are in mode {node.observed}, and its CC manager has not begun"
    )
    remedy = f"See its CC manager's log, or ask again: kubectl cc retry {node.name}"
    return Answer(False, cause, _state(node, now), remedy)


def _cordon(node: Node, _pods: Sequence[Pod] | None, now: float) -> Answer | None:
    claim = node.claim
    if not node.unschedulable:
        return None
    if claim is not None and claim.is_open and claim.cordoned:
        cause = f"the rollout {claim.id} has it cordoned ({claim.stage}, since {moment.text(claim.at)})"
        return Answer(False, cause, _state(node, now), "See: kubectl cc rollout status")
    if CORDONED_ANNOTATION in node.annotations:
        cause = "its CC manager has cordoned it to drain it"
        return Answer(False, cause, _state(node, now), f"Wait: kubectl cc wait {node.name}")
    remedy = f"kubectl uncordon {node.name}, when the cordon is no longer needed"
    return Answer(False, "it is cordoned", _state(node, now), remedy)


def _state(node: Node, now: float) -> tuple[str, ...]:
    since = f" since {moment.age(node.since, now)}" if node.since else ""
    said = f"label {MODE_LABEL}={node.desired or '(absent)'}; observed {node.observed or '(nothing)'}{since}"
    return (said, f"reason: {node.reason}") if node.reason and node.observed != FAILED else (said,)


def _devices(node: Node) -> tuple[str, ...]:
    """What is said of each device that has a problem, or of each mode."""
    try:
        found = dict(json.loads(node.devices or "{}"))
        lines = [
            f"{address}: {about.get('mode') or 'mode not known'}"
            + (f", {about['problem']}" if about.get("problem") else "")
            for address, about in sorted(found.items())
            if isinstance(about, dict)
        ]
    except (ValueError, TypeError, RecursionError, AttributeError):
        return ()
    bad = [line for line in lines if ", " in line or "not known" in line]
    return tuple((bad or lines)[:SHOWN])
