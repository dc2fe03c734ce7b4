# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes that are not ready: is the machine off, or is the instance gone? Only a proof deletes a node.

A list without the instance, or a record that says Terminated, makes a suspect. Each suspect is asked for by its id;
what counts as a proof stands in _bmm/existence.py. Whatever else is answered changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from kube.client import ApiError
from kube.delay import Delay

from . import changes
from .cap import Cap
from .cloud import OF_ONE, CloudError
from .initialise import Context
from .instance import Instance
from .names import ZONE
from .node import Node
from .ours import instances_of
from .provider_id import ProviderId
from .recorder import NORMAL, WARNING

LOG = logging.getLogger(__name__)
# Asked for by id in one round; the others' turn comes in the next ones.
SUSPECTS_MAX = 20
LONGEST_S = 60.0
Pair = tuple[Node, ProviderId]


class Lifecycle:
    """``round`` each ``period_s`` seconds, in one thread."""

    def __init__(self, context: Context, cap: Cap, period_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._all = context
        self._cap = cap
        self._period_s = period_s
        self._now = now
        self._delay = Delay(period_s, max(period_s, LONGEST_S))
        self._not_before = float("-inf")
        self._asked_at: dict[str, float] = {}  # suspects, so that each has its turn
        self._ours: set[str] = set()  # instances that were seen here

    def round(self) -> None:
        """Look at all nodes once. Raises Lost when this process leads no longer."""
        began = self._now()
        ours = instances_of(self._all.nodes.all(), self._all.cloud.config)
        self._all.metrics.nodes.set(len(ours))
        for node, _said in ours:
            if node.is_ready and node.has_shutdown_taint:
                self._taint(node, changes.without_shutdown_taint(node))
        lost = [(node, said) for node, said in ours if not node.is_ready]
        if lost and began >= self._not_before:
            try:
                self._look(lost, len(ours))
            except CloudError as error:
                self._failed(error)
            else:
                self._all.problems.over("lifecycle")
                self._delay.reset()
        if not lost:
            self._all.problems.over("deletions")
        self._all.metrics.monitor.observe(self._now() - began)

    def _failed(self, error: CloudError) -> None:
        self._all.problems.report("lifecycle", error.reason, str(error))
        self._not_before = self._now() + self._delay.next()

    def _look(self, lost: Sequence[Pair], count: int) -> None:
        """Raises CloudError."""
        found = self._all.cloud.some([said.instance for _node, said in lost], (), self._period_s * 0.8)
        instances = {one.id: one for one in found}
        self._ours.update(instances)
        suspects = []
        for node, said in lost:
            instance = instances.get(said.instance)
            if instance is None or instance.is_terminated:
                suspects.append((node, said))
            else:
                self._exists(node, instance)
        self._prove(suspects, count)

    def _exists(self, node: Node, instance: Instance) -> None:
        if instance.is_shut_down and not node.has_shutdown_taint:
            self._taint(node, changes.with_shutdown_taint(node))

    def _taint(self, node: Node, operations: changes.Operations) -> None:
        try:
            self._all.nodes.wrote(self._all.cluster.patch(node, operations))
            self._all.metrics.writes.labels("shutdown").inc()
        except ApiError as error:  # the next round comes soon
            LOG.info("The shutdown taint of node %s stays as it is: %s", node.name, error)

    # --- gone? --------------------------------------------------------------------------------------------------------

    def _prove(self, suspects: Sequence[Pair], count: int) -> None:
        """Raises CloudError, when something cannot be told of any, or as the last thing when of one of them."""
        names = {node.name for node, _said in suspects}
        self._asked_at = {name: at for name, at in self._asked_at.items() if name in names}
        turn = sorted(suspects, key=lambda pair: self._asked_at.get(pair[0].name, float("-inf")))
        is_held = False
        problem: CloudError | None = None
        for node, said in turn[:SUSPECTS_MAX]:
            if not self._is_told_ours(node, said):
                continue
            self._asked_at[node.name] = self._now()
            try:
                proof = self._all.cloud.proof(said.instance)
            except CloudError as error:
                if error.reason not in OF_ONE:
                    raise
                problem = error
                continue
            if proof.is_gone:
                is_held |= not self._delete(node, proof.why, count)
            elif proof.instance is not None:
                self._exists(node, proof.instance)
        if not is_held:
            self._all.problems.over("deletions")
        if problem is not None:
            raise problem

    def _is_told_ours(self, node: Node, said: ProviderId) -> bool:
        """An id that names no site may be of any: then the node has our zone, or its instance was seen."""
        if said.site or said.instance in self._ours:
            return True
        if node.labels.get(ZONE) == self._all.cloud.place().zone:
            return True
        self._all.recorder.once(
            node,
            "CloudInstanceUnknown",
            f"Its provider id {node.provider_id} names no site, it has no label of ours, and no instance here has that "
            "id. It is left alone.",
        )
        return False

    def _delete(self, node: Node, why: str, count: int) -> bool:
        """False when the cap holds it back."""
        recorder, deletions = self._all.recorder, self._all.metrics.deletions
        if self._all.nodes.get(node.name) != node:
            deletions.labels("changed").inc()
            return True
        if not self._cap.allows(count):
            deletions.labels("held").inc()
            text = f"Of {count} nodes no more than {self._cap.limit(count)} are deleted within the window"
            self._all.problems.report("deletions", "NodeDeletionsHeld", f"{text}; others wait.")
            recorder.once(node, "DeletionHeld", f"It is gone ({why}), and stays: {text}.")
            return False
        LOG.warning("Deleting node %s: %s.", node.name, why)
        recorder.of_node(
            node, NORMAL, "DeletingNode", f"Deleting node {node.name} because it does not exist in the cloud provider"
        )
        try:
            self._all.cluster.delete(node)
        except ApiError as error:
            self._not_deleted(node, error)
        else:
            self._cap.count()
            deletions.labels("deleted").inc()
            self._all.nodes.gone(node.name, node.uid)
        return True

    def _not_deleted(self, node: Node, error: ApiError) -> None:
        if error.status == 404:
            return
        result = "changed" if error.is_conflict else "failed"
        self._all.metrics.deletions.labels(result).inc()
        LOG.warning("Node %s is not deleted: %s", node.name, error)
        if not error.is_conflict:
            if error.status == 0:
                self._cap.count()  # it may have been carried out
            self._all.recorder.of_node(
                node, WARNING, "DeletingNodeFailed", f"Failed deleting node {node.name}: {error}"
            )
