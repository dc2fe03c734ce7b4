# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes that are initialised: their addresses follow those of their instances."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from kube.client import ApiError
from kube.delay import Delay

from . import changes
from .changes import NotPossible
from .cloud import CloudError
from .initialise import Context
from .instance import Instance
from .node import Address, Node
from .ours import instances_of

LOG = logging.getLogger(__name__)
# A list can be stale, so what it changes is asked for by id; so many in one round.
CONFIRMED_MAX = 50
FIRST_S = 5.0


class Addresses:
    """``round`` as often as wanted, in one thread; it does something each ``period_s`` seconds."""

    def __init__(self, context: Context, period_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._all = context
        self._period_s = period_s
        self._now = now
        self._delay = Delay(min(FIRST_S, period_s), period_s)
        self._due_at = float("-inf")

    def round(self) -> None:
        """Look at all nodes, if it is time. Raises Lost when this process leads no longer."""
        if self._now() < self._due_at:
            return
        self._due_at = self._now() + self._period_s
        nodes = [one for one in self._all.nodes.all() if not one.is_uninitialized]
        ours = instances_of(nodes, self._all.cloud.config)
        if not ours:
            return
        try:
            instances = self._all.cloud.all(self._period_s / 2)
            self._all.metrics.instances.set(self._all.cloud.count)
            differing = [
                (node, said.instance)
                for node, said in ours
                if said.instance in instances and self._wanted(node, instances[said.instance]) is not None
            ]
            for node, instance_id in differing[:CONFIRMED_MAX]:
                self._follow(node, instance_id)
        except CloudError as error:
            self._all.problems.report("addresses", error.reason, str(error))
            self._due_at = self._now() + self._delay.next()
            return
        self._all.problems.over("addresses")
        self._delay.reset()

    def _wanted(self, node: Node, instance: Instance) -> tuple[Address, ...] | None:
        if instance.is_terminated:
            return None
        try:
            found = changes.changed_addresses(node, instance)
        except NotPossible as error:
            self._all.recorder.once(node, error.reason, f"{error} The node's addresses stay as they are.")
            return None
        self._all.recorder.over(node, "ProvidedNodeIPNotValid")
        return found

    def _follow(self, node: Node, instance_id: str) -> None:
        proof = self._all.cloud.proof(instance_id)
        wanted = self._wanted(node, proof.instance) if proof.instance is not None else None
        if wanted is None:
            return
        try:
            self._all.nodes.wrote(self._all.cluster.set_addresses(node, wanted))
            self._all.metrics.writes.labels("addresses").inc()
            LOG.info("Node %s: its addresses are %s.", node.name, ", ".join(one.address for one in wanted))
        except ApiError as error:
            if error.status not in (404, 409, 422):
                LOG.warning("The addresses of node %s stay as they are: %s", node.name, error)
