# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The GPU Operator's components on this node: which to pause, how to put them back, whose pods are in the way.

Nothing here reaches the API. A component is paused by the value of its label; the DaemonSet's controller then removes
its pod. A label that is absent is never created, and one that the user has set to something else meanwhile stays.
Any value with our word for a pause in it is ours to mend: this one's, another version's, NVIDIA's k8s-cc-manager's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .journal import Journal, is_original
from .names import COMPONENT_LABELS, PAUSED
from .pod import Pod

# The value that the DaemonSets' node selectors ask for; so it is what a paused label was if no journal tells.
RUNNING = "true"


def running(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of the components that run on the node and can be paused, with their values.

    Any other value keeps the pods away as well as ours does, and is somebody's: the user's, or that of another program
    that pauses components (paused-for-driver-upgrade), which knows its own value again and no other.
    """
    return {key: RUNNING for key in COMPONENT_LABELS if labels.get(key) == RUNNING}


def paused(labels: Mapping[str, str]) -> list[str]:
    """The labels that are paused."""
    return [key for key in COMPONENT_LABELS if PAUSED in labels.get(key, "")]


def taken_down(labels: Mapping[str, str], journal: Journal | None) -> Journal:
    """The journal for pausing what runs now; what was paused before keeps its original."""
    return Journal({**restored(labels, journal), **running(labels)})


def restored(labels: Mapping[str, str], journal: Journal | None) -> dict[str, str]:
    """The labels that are still paused, with the values to put back."""
    originals = journal.originals if journal else {}
    return {key: _named_in(labels[key]) or originals.get(key, RUNNING) for key in paused(labels)}


def _named_in(value: str) -> str:
    """The original in a value of NVIDIA's k8s-cc-manager, <value>_paused-for-cc-mode-change; empty if there is none."""
    before, found, _after = value.partition("_" + PAUSED)
    return before if found and is_original(before) else ""


def in_the_way(pods: Iterable[Pod]) -> list[Pod]:
    """The pods of components, in whatever phase they are: gone means deleted.

    A component's pod is owned by its DaemonSet, and carries the DaemonSet's node selector; pod labels differ between
    releases of the GPU Operator.
    """
    names = {name for names in COMPONENT_LABELS.values() for name in names}
    return [
        pod
        for pod in pods
        if pod.daemon_set and (pod.daemon_set in names or any(key in pod.node_selector for key in COMPONENT_LABELS))
    ]


def users(pods: Iterable[Pod]) -> list[Pod]:
    """The pods that hold GPUs and are no component's."""
    every = list(pods)
    components = {pod.identity for pod in in_the_way(every)}
    return [pod for pod in every if pod.holds_gpus and (pod.identity) not in components]
