# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics. Those without the prefix bmm_ have the names and meanings of Kubernetes' own controllers."""

from __future__ import annotations

from pathlib import Path

from kube.metrics import Made, version_of

SECONDS = (0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 30, 60, 300, 1000)
CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """Everything that is counted."""

    def __init__(self) -> None:
        made = Made("", "the cloud controller manager", version_of(Path(__file__).with_name("VERSION")))
        self.registry = made.registry
        counter, gauge = made.counter, made.gauge
        self.taint_removal = made.seconds(
            "node_controller_cloud_provider_taint_removal_delay_seconds", "from a node's creation on", SECONDS
        )
        self.initial_sync = made.seconds(
            "node_controller_initial_node_sync_delay_seconds", "from a node's creation on", SECONDS
        )
        self.monitor = made.seconds(
            "cloud_node_lifecycle_controller_monitor_nodes_duration_seconds", "a round over the nodes", SECONDS
        )
        self.leading = gauge("leader_election_master_status", "1 while this process leads", "name")
        self.waiting = gauge("workqueue_depth", "nodes that are to be looked at", "name")
        self.calls = counter(
            "bmm_requests", "requests to the bare-metal manager; status 0: no answer", "method", "resource", "status"
        )
        self.call_seconds = made.seconds("bmm_request_duration_seconds", "of such a request", CALL_SECONDS, "resource")
        self.instances = gauge("bmm_instances", "instances of the last list")
        self.nodes = gauge("bmm_nodes", "nodes on such instances")
        self.problems = counter("bmm_problems", "what went wrong, by its kind", "about", "reason")
        self.deletions = counter("bmm_node_deletions", "by result: deleted, failed, changed, held", "result")
        self.writes = counter("bmm_node_writes", "changes of nodes, by what was changed", "what")
        self.events_lost = counter("bmm_events_lost", "Events that the API server did not take")
        self.config_refused = gauge("bmm_config_refused", "1 while the cloud config's file is not the one in force")
        for result in ("deleted", "failed", "changed", "held"):
            self.deletions.labels(result)
        for what in ("initialised", "addresses", "labels", "shutdown"):
            self.writes.labels(what)
