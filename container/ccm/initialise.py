# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""New nodes: each gets its provider id, labels and addresses, then its taint goes away.

One step takes all nodes that wait, so that a hundred new ones cost one request to the bare-metal manager.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kube.client import ApiError
from kube.delay import Delay

from . import changes, provider_id
from .changes import NotPossible
from .cloud import Cloud, CloudError
from .cluster import Cluster
from .instance import Instance, Place
from .known import Nodes
from .metrics import Metrics
from .names import INTERNAL_IP
from .node import Node
from .ours import identified, instances_of
from .problems import Problems
from .provider_id import NotOurs, ProviderId
from .recorder import NORMAL, Recorder

LOG = logging.getLogger(__name__)
# What is known of an instance may be so old: addresses that have changed meanwhile come with the next round.
MAX_AGE_S = 30.0
FIRST_S, LONGEST_S = 1.0, 60.0
# The node has changed between the look at it and the patch.
CHANGED = (409, 422)


@dataclass(frozen=True)
class Context:
    """What all controllers work with."""

    nodes: Nodes
    cloud: Cloud
    cluster: Cluster
    recorder: Recorder
    problems: Problems
    metrics: Metrics


class Initialiser:
    """``run`` in a thread until the nodes are closed. ``beat`` is called before each step."""

    def __init__(self, context: Context, workers: int, wall: Callable[[], float] = time.time) -> None:
        self._all = context
        self._wall = wall
        self._pool = ThreadPoolExecutor(workers, "nodes")
        self._delays: dict[str, Delay] = {}

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def step(self, batch: Sequence[Node]) -> None:
        """Look at these nodes. Raises Lost when this process leads no longer."""
        new = []
        for node in batch:
            if node.is_uninitialized:
                new.append(node)
            else:
                self._delays.pop(node.name, None)
        self._initialise(new)
        self._follow_labels([one for one in batch if not one.is_uninitialized])

    def _initialise(self, batch: Sequence[Node]) -> None:
        known = [(node, said) for node in batch for said in self._said(node)]
        if not known:
            return
        cloud = self._all.cloud
        try:
            place = cloud.place()
            ids = {said.instance for _node, said in known if said is not None}
            names = {node.name for node, said in known if said is None}
            found = cloud.some(ids, names, MAX_AGE_S)
        except CloudError as error:
            self._all.problems.report("new nodes", error.reason, str(error))
            for node, _said in known:
                self._later(node)
            return
        self._all.problems.over("new nodes")
        by_id = {one.id: one for one in found}
        taken = {said.instance for _node, said in instances_of(self._all.nodes.all(), cloud.config)} if names else set()
        jobs = [
            self._pool.submit(self._one, node, self._instance(node, said, by_id, taken), place) for node, said in known
        ]
        for job in jobs:
            job.result()

    def _said(self, node: Node) -> list[ProviderId | None]:
        """What its provider id says, None for a node without one; nothing for a node that is not ours."""
        try:
            return [identified(node, self._all.cloud.config)]
        except NotOurs as error:
            if error.is_broken:
                self._all.recorder.once(node, "ProviderIDNotValid", f"The node keeps its taint: {error}.")
            return []

    def _instance(
        self, node: Node, said: ProviderId | None, by_id: dict[str, Instance], taken: Collection[str]
    ) -> Instance | NotPossible:
        if said is not None:
            instance = by_id.get(said.instance)
            refusal = self._all.cloud.refusal(said.instance)
            if refusal is not None:
                return NotPossible(refusal.reason, str(refusal))
            if instance is None:
                return NotPossible("CloudInstanceNotFound", f"There is no instance {said.instance} at this site.")
            if instance.is_terminated:
                return NotPossible("CloudInstanceTerminated", f"The instance {said.instance} is terminated.")
            return instance
        named = [one for one in by_id.values() if one.name == node.name]
        if not named:
            return NotPossible(
                "CloudInstanceNotFound",
                "The node has no provider id, and no instance has its name. Give the kubelet --provider-id.",
            )
        if len(named) > 1 or named[0].id in taken:
            return NotPossible(
                "CloudInstanceNotUnique",
                "The node has no provider id, and the instance of its name is another node's, or there are several. "
                "Give the kubelet --provider-id.",
            )
        return named[0]

    # --- in the pool --------------------------------------------------------------------------------------------------

    def _one(self, node: Node, instance: Instance | NotPossible, place: Place) -> None:
        try:
            if isinstance(instance, NotPossible):
                raise instance
            self._write(node, instance, place)
        except NotPossible as error:
            self._all.recorder.once(node, error.reason, f"{error} The node keeps its taint; this is tried again.")
            self._later(node)
        except ApiError as error:
            if error.status == 404:
                return
            if error.status not in CHANGED:
                LOG.warning("Node %s is not initialised: %s", node.name, error)
            self._later(node)

    def _write(self, node: Node, instance: Instance, place: Place) -> None:
        wanted = changes.changed_addresses(node, instance)
        _check_addresses(node, instance)
        if node.provided_ip:
            changes.wanted_addresses(node, instance)
        config, cluster = self._all.cloud.config, self._all.cluster
        try:
            about = ProviderId(instance.id, config.org, config.tenant, config.site)
            new_id = provider_id.write(config.form, about)
        except ValueError as error:
            raise NotPossible("ProviderIDNotValid", f"{error}.") from None
        if wanted is not None:
            # Before the taint goes: pods that come then find the addresses.
            self._all.nodes.wrote(cluster.set_addresses(node, wanted))
        self._all.nodes.wrote(cluster.patch(node, changes.initialised(node, new_id, instance, place)))
        self._delays.pop(node.name, None)
        metrics = self._all.metrics
        metrics.writes.labels("initialised").inc()
        if node.created:
            delay_s = max(0.0, self._wall() - node.created)
            metrics.taint_removal.observe(delay_s)
            metrics.initial_sync.observe(delay_s)
        LOG.info("Node %s is initialised: instance %s.", node.name, instance.id)
        self._all.recorder.of_node(node, NORMAL, "Synced", "Node synced successfully")

    def _later(self, node: Node) -> None:
        self._all.nodes.later(node.name, self._delays.setdefault(node.name, Delay(FIRST_S, LONGEST_S)).next())

    # --- nodes that are initialised -----------------------------------------------------------------------------------

    def _follow_labels(self, batch: Sequence[Node]) -> None:
        """What Kubernetes' own controller does when somebody changes a label of ours."""
        for node, _said in instances_of(batch, self._all.cloud.config):
            operations = changes.followed_labels(node)
            if not operations:
                continue
            try:
                self._all.nodes.wrote(self._all.cluster.patch(node, operations))
                self._all.metrics.writes.labels("labels").inc()
            except ApiError as error:
                if error.status not in (404, *CHANGED):
                    LOG.warning("The labels of node %s are not made equal: %s", node.name, error)
                    self._later(node)


def _check_addresses(node: Node, instance: Instance) -> None:
    """Raises NotPossible: while the API's database fails, instances have no interfaces."""
    told = instance.addresses or instance.has_own_network
    if not told and not any(one.type == INTERNAL_IP for one in node.addresses):
        raise NotPossible("NoAddresses", f"The instance {instance.id} has no address, and the node has none.")
