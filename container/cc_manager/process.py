# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The process: everything put together."""

from __future__ import annotations

import logging
import queue
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kube import connection, log, signals
from kube.client import ApiError, Kube
from kube.connection import NoConnection
from kube.delay import Delay
from kube.health import Health
from kube.pages import Pages
from kube.port import Server
from kube.settings import BadSetting
from kube.watch import FORBIDDEN_S, Kept, Watch

from . import controller, settings
from .alone import Alone
from .audit import Audit
from .cluster import COMPONENT, Cluster
from .controller import Controller
from .messages import LockTaken, Message, NodeSeen, PodsSeen, StopAsked, WatchFailed
from .metrics import CCManagerMetrics
from .node import Node
from .pod import Pod, Witness
from .readiness import ReadinessFile
from .run import Runner
from .settings import Settings

LOG = logging.getLogger(__package__)
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NODE, PODS, PODS_EVERYWHERE = "node", "pods", "pods of all namespaces"
# How often the watches are looked after.
LOOK_AFTER_S = 30.0
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
        look_after_s: float = LOOK_AFTER_S,
    ) -> None:
        self._settings = chosen
        self._make_runner = make_runner
        self._boot = boot
        self._alone = alone
        self._look_after_s = look_after_s
        self._kube = kube
        self._cluster = Cluster(kube, chosen.node_name, chosen.operator_namespace, _witness(chosen))
        self._readiness: ReadinessFile | None = None  # until this process works alone it is the other one's
        self._stopping = False
        self._watches: dict[str, Kept] = {}
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self.metrics = CCManagerMetrics()
        self.health = Health((NODE,))

    def run(self) -> None:
        """Until a stop is asked for."""
        if self._settings.metrics_port:
            Server(self._settings.metrics_port, self._pages()).start()
        try:
            if self._is_alone():
                self._run_alone()
        finally:
            if self._alone is not None:
                self._alone.release()

    def _pages(self) -> Pages:
        return Pages(self.metrics.registry, lambda: self.health.is_alive, self.health.problems)

    def _is_alone(self) -> bool:
        """Wait until no other CC manager works on this node; False when a stop was asked for meanwhile."""
        if self._alone is None:
            return True
        self._alone.take(lambda: self.inbox.put(LockTaken()))
        return isinstance(self.inbox.get(), LockTaken)  # nothing but that and a stop can come yet

    def _run_alone(self) -> None:
        readiness = self._readiness = ReadinessFile(self._settings.readiness_file)
        if self._stopping:
            readiness.close()
        self._keep(NODE, self._watch_node)
        try:
            self._work(self._new_controller(readiness))
        finally:
            readiness.close()
            for watch in self._watches.values():
                watch.end()

    def _new_controller(self, readiness: ReadinessFile) -> Controller:
        return Controller(
            self._settings,
            self._cluster,
            self._make_runner(self.inbox.put),
            self.watch_pods,
            readiness,
            self.metrics,
            time.monotonic,
            self._boot,
            audit=self._audit(),
        )

    def _audit(self) -> Audit | None:
        chosen = self._settings
        return Audit(chosen.audit_folder, chosen.node_name, self._boot) if chosen.audit_folder else None

    def _work(self, work: Controller) -> None:
        while True:
            self.health.busy()
            delay_s = work.act()
            self.health.ready = work.settled
            self.health.idle()
            if work.stopped:
                return
            message = self._next_message(delay_s)
            if message is not None:
                work.handle(message)

    def _next_message(self, delay_s: float | None) -> Message | None:
        """None when the delay is over. The watches are looked after meanwhile."""
        ends = None if delay_s is None else time.monotonic() + delay_s
        while True:
            self._look_after_watches()
            left_s = self._look_after_s if ends is None else min(self._look_after_s, ends - time.monotonic())
            try:
                return self.inbox.get(timeout=max(0.0, left_s))
            except queue.Empty:
                if ends is not None and time.monotonic() >= ends:
                    return None

    # --- stops --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for the end. From now on the node is not ready."""
        self._stopping = True
        if self._readiness is not None:
            self._readiness.close()
        self.inbox.put(StopAsked(time.monotonic()))

    def stop_signalled(self) -> None:
        """The handler of SIGTERM: whatever the main thread waits for, it hears of it now."""
        self.stop()
        self._kube.interrupt()

    # --- watches ------------------------------------------------------------------------------------------------------

    def _keep(self, name: str, make: Callable[[Kept], Watch]) -> Kept:
        watch = self._watches[name] = Kept(make)
        self.health.follow(name, watch)
        self.metrics.watch_silence.labels(name).set_function(lambda: self.health.silence_s(name))
        return watch

    def _look_after_watches(self) -> None:
        for name, watch in self._watches.items():
            if watch.revive():
                LOG.error("The watch of %s hung or died, and is begun again.", name)
                self.metrics.watch_restarts.labels(name).inc()

    def _watch_node(self, _kept: Kept) -> Watch:
        def told(objects: list[dict[str, Any]], fresh: bool) -> None:
            self.inbox.put(NodeSeen(Node.of(objects[0]) if objects else None, fresh))

        def failed(error: ApiError) -> None:
            self.inbox.put(WatchFailed(NODE, str(error)))

        return Watch(self._kube, self._cluster.this_node(), told, failed)

    def watch_pods(self, everywhere: bool) -> Kept:
        """Begin to watch the pods on the node, of the components' namespace or of all: the inbox gets PodsSeen."""
        name = PODS_EVERYWHERE if everywhere else PODS
        namespace = None if everywhere else self._settings.operator_namespace

        def make(kept: Kept) -> Watch:
            def told(objects: list[dict[str, Any]], _fresh: bool) -> None:
                pods = tuple(Pod.of(one) for one in objects)
                doubt = self._cluster.doubt(namespace, pods)
                self.inbox.put(PodsSeen(kept, everywhere, () if doubt else pods, denied=doubt))

            def failed(error: ApiError) -> None:
                if error.is_denied:
                    self.inbox.put(PodsSeen(kept, everywhere, denied=str(error)))
                else:
                    self.inbox.put(WatchFailed(name, str(error)))

            forbidden = Delay(*FORBIDDEN_S) if everywhere else None  # the GPU Operator does not give that right
            return Watch(self._kube, self._cluster.pods_resource(namespace), told, failed, forbidden=forbidden)

        return self._keep(name, make)


def _witness(chosen: Settings) -> Witness | None:
    """The pod that this process runs in; None where it is in none, or asks another cluster than its own."""
    if chosen.kubeconfig or not chosen.own_namespace:
        return None
    return Witness(chosen.own_namespace, chosen.pod_name)


def _boot_id() -> str:
    """One boot of the host has one; where it cannot be read, this process has one of its own."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the CC manager; the exit status."""
    try:
        chosen = settings.parse(arguments, environment)
        log.configure(str(__package__), chosen.log_json, chosen.debug)
        where = connection.of_file(chosen.kubeconfig) if chosen.kubeconfig else connection.of_pod(environment)
    except (BadSetting, NoConnection) as error:
        print(f"{COMPONENT}: {error}", file=sys.stderr)
        return 2
    process = Process(
        chosen,
        Kube(where, agent=COMPONENT),
        lambda tell: Runner(chosen.bus, chosen.state_folder, chosen.boot_timeout_s, tell),
        _boot_id(),
        Alone(chosen.lock_folder),
    )
    LOG.info("Looking after the node %s, devices on %s.", chosen.node_name, chosen.bus)
    try:
        with signals.heard(signals.STOPS, process.stop_signalled):
            process.run()
    except Exception:  # the last line is to be of the same form as all others, whatever it is about
        LOG.exception("The CC manager ends: nobody has thought of this.")
        return 1
    LOG.info("Stopped.")
    return 0
