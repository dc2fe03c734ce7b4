# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""python -m operand: the process."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import connection, controller, log, settings
from .alone import Alone
from .cluster import Cluster
from .connection import NoConnection
from .controller import Controller
from .health import Health, Server
from .kube import ApiError, Kube
from .messages import LockTaken, Message, NodeSeen, PodsSeen, StopAsked, WatchFailed
from .metrics import Metrics
from .node import Node, Pod
from .readiness import ReadinessFile
from .run import Runner
from .settings import BadSetting, Settings
from .watch import FORBIDDEN_S, Delay, Watch

LOG = logging.getLogger(__package__)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
Tell = Callable[[Message], None]


class Process:
    """Everything put together."""

    def __init__(
        self,
        chosen: Settings,
        kube: Kube,
        make_runner: Callable[[Tell], controller.Runner],
        boot: str = "",
        alone: Alone | None = None,
    ) -> None:
        self._settings = chosen
        self._make_runner = make_runner
        self._boot = boot
        self._alone = alone
        self._kube = kube
        self._cluster = Cluster(kube, chosen.node_name)
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.metrics = Metrics()
        self.health = Health(time.monotonic)

    def run(self) -> None:
        """Until a stop is asked for."""
        if self._settings.metrics_port:
            Server(self._settings.metrics_port, self.health, self.metrics.registry).start()
        if not self._is_alone():
            return
        watch = Watch(self._kube, self._cluster.this_node(), self._node_told, self._failed("node"))
        watch.start()
        try:
            self._work(self._new_controller())
        finally:
            watch.end()
            if self._alone is not None:
                self._alone.release()

    def _is_alone(self) -> bool:
        """Wait until no other operand works on this node; False when a stop was asked for meanwhile."""
        if self._alone is None:
            return True
        self._alone.take(lambda: self.inbox.put(LockTaken()))
        return isinstance(self.inbox.get(), LockTaken)  # nothing but that and a stop can come yet

    def _new_controller(self) -> Controller:
        return Controller(
            self._settings,
            self._cluster,
            self._make_runner(self.inbox.put),
            self._watch_pods,
            ReadinessFile(self._settings.readiness_file),
            self.metrics,
            time.monotonic,
            self._boot,
        )

    def _work(self, work: Controller) -> None:
        while True:
            self.health.busy()
            delay_s = work.act()
            self.health.ready = work.settled
            self.health.idle()
            if work.stopped:
                return
            try:
                message = self.inbox.get(timeout=delay_s)
            except queue.Empty:
                continue
            work.handle(message)

    def stop(self, *_signal: object) -> None:
        """Ask for the end; may be called from a signal handler."""
        self.inbox.put(StopAsked(time.monotonic()))

    def _node_told(self, objects: list[dict[str, Any]]) -> None:
        self.inbox.put(NodeSeen(Node.of(objects[0]) if objects else None))

    def _failed(self, what: str) -> Callable[[ApiError], None]:
        return lambda error: self.inbox.put(WatchFailed(what, str(error)))

    def _watch_pods(self, everywhere: bool) -> Watch:
        name = "pods of all namespaces" if everywhere else "pods"

        def told(objects: list[dict[str, Any]]) -> None:
            self.inbox.put(PodsSeen(watch, everywhere, tuple(Pod.of(one) for one in objects)))

        def failed(error: ApiError) -> None:
            if error.is_forbidden:
                self.inbox.put(PodsSeen(watch, everywhere, denied=str(error)))
            else:
                self.inbox.put(WatchFailed(name, str(error)))

        namespace = None if everywhere else self._settings.operator_namespace
        forbidden = Delay(*FORBIDDEN_S) if everywhere else None  # the GPU Operator does not give that right
        watch = Watch(self._kube, self._cluster.pods(namespace), told, failed, forbidden=forbidden)
        watch.start()
        return watch


def _boot_id() -> str:
    """One boot of the host has one; where it cannot be read, this process has one of its own."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the operand; the exit status."""
    try:
        chosen = settings.parse(arguments, environment)
        log.configure(chosen.log_json, chosen.debug)
        where = connection.of_file(chosen.kubeconfig) if chosen.kubeconfig else connection.of_pod(environment)
    except (BadSetting, NoConnection) as error:
        print(f"k8s-cc-manager: {error}", file=sys.stderr)
        return 2
    process = Process(
        chosen,
        Kube(where),
        lambda tell: Runner(chosen.bus, chosen.state_folder, chosen.boot_timeout_s, tell),
        _boot_id(),
        Alone(chosen.lock_folder),
    )
    signal.signal(signal.SIGTERM, process.stop)
    signal.signal(signal.SIGINT, process.stop)
    LOG.info("Looking after the node %s, devices on %s.", chosen.node_name, chosen.bus)
    try:
        process.run()
    except Exception:  # the last line is to be of the same form as all others, whatever it is about
        LOG.exception("The operand ends: nobody has thought of this.")
        return 1
    LOG.info("Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
