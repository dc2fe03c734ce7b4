# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The process: everything put together."""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kube import connection, log, signals
from kube.client import ApiError, Kube
from kube.connection import NoConnection
from kube.events import Events, Subject
from kube.health import STALE_S
from kube.lease import GROUP, Elector, Lost
from kube.pages import Pages
from kube.port import Server
from kube.settings import BadSetting
from kube.watch import Kept, Watch

from . import config as configs
from . import flags
from .addresses import Addresses
from .cap import Cap
from .cloud import Cloud
from .cluster import ALL_NODES, Cluster, Pace
from .config import Call, Client, Config
from .flags import Settings
from .initialise import Context, Initialiser
from .known import Nodes
from .lifecycle import Lifecycle
from .loops import Loop
from .metrics import Metrics
from .names import COMPONENT
from .node import Node
from .problems import Problems, reason_of
from .recorder import WARNING, Recorder
from .secure import Certificate, Guard

LOG = logging.getLogger(__package__)
STOP, BEGAN, ENDED = "stop", "began", "ended"
# How often the watch and the cloud config's file are looked after.
LOOK_AFTER_S = 5.0
# The kubelet kills 30 s after it asked for the end.
EVENTS_S, WRITES_S = 1.0, 4.0
# Without leader election a write may take so long.
ALONE_S = 10.0
ADDRESSES_TICK_S = 1.0
LEASE_RIGHTS = "get, create and update leases"


class Process:
    """Made of settings and connections; ``run`` until ``stop``. ``read`` reads the cloud config. Raises BadSetting."""

    def __init__(
        self,
        chosen: Settings,
        kube: Kube,
        read: Callable[[], Config],
        connect: Callable[[Config, Callable[[Call], None]], Client] = Config.client,
        look_after_s: float = LOOK_AFTER_S,
    ) -> None:
        self._settings = chosen
        self._kube = kube
        self._read = read
        self._look_after_s = look_after_s
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._identity = f"{socket.gethostname()}_{uuid.uuid4()}"
        self.metrics = Metrics()
        self.nodes = Nodes()
        self._problems = Problems(
            self._tell_problem, lambda key, reason: self.metrics.problems.labels(key, reason).inc()
        )
        self._cluster = Cluster(kube, self._identity, self._leads, self._problems, Pace(chosen.qps, chosen.burst))
        self._elector = self._new_elector() if chosen.leader_elect else None
        self._certificate = Certificate(chosen.certificate, chosen.key) if chosen.port else None
        self._cloud = Cloud(read(), lambda config: connect(config, self._called))
        self._alone = Events(kube, COMPONENT, self._identity)
        self._recorder = Recorder(self._tell_event, self.metrics.events_lost.inc)
        self._loops: list[Loop] = []
        self._initialiser: Initialiser | None = None
        self._watch: Kept | None = None
        self.port = 0

    # --- who leads ----------------------------------------------------------------------------------------------------

    def _new_elector(self) -> Elector:
        chosen = self._settings
        leading = self.metrics.leading.labels(chosen.lease_name)
        leading.set_function(lambda: int(self._elector is not None and self._elector.is_leading))
        return Elector(
            self._kube,
            chosen.lease_namespace,
            chosen.lease_name,
            self._identity,
            lambda: self._inbox.put(BEGAN),
            lambda: self._inbox.put(ENDED),
            chosen.times,
        )

    def _leads(self) -> float:
        return ALONE_S if self._elector is None else self._elector.check()

    # --- the life of it -----------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Until a stop is asked for; False when it was not asked for. Raises BadSetting."""
        self._serve()
        watch = self._watch = Kept(self._new_watch)
        if self._elector is None:
            self._inbox.put(BEGAN)
        else:
            self._elector.start()
        try:
            return self._work()
        finally:
            self._end(watch)

    def stop(self) -> None:
        """Ask for the end."""
        self._inbox.put(STOP)

    def stop_signalled(self) -> None:
        """The handler of SIGTERM."""
        self.stop()

    def _work(self) -> bool:
        while True:
            try:
                message = self._inbox.get(timeout=self._look_after_s)
            except queue.Empty:
                message = ""
            if message == BEGAN:
                self._begin()
            elif message:
                return message == STOP
            self._look_after()

    def _begin(self) -> None:
        """What only a leader does."""
        chosen = self._settings
        context = Context(self.nodes, self._cloud, self._cluster, self._recorder, self._problems, self.metrics)
        if "node" in chosen.controllers:
            self._initialiser = Initialiser(context, chosen.workers)
            addresses = Addresses(context, chosen.update_period_s)
            new = Loop("new nodes", lambda: self._step(new), 0.0)
            self._loops += [new, Loop("addresses", self._once_told(addresses.round), ADDRESSES_TICK_S)]
        if "lifecycle" in chosen.controllers:
            cap = Cap(chosen.deletion_share, chosen.deletion_window_s)
            lifecycle = Lifecycle(context, cap, chosen.monitor_period_s)
            self._loops.append(Loop("lifecycle", self._once_told(lifecycle.round), chosen.monitor_period_s))
        for one in self._loops:
            one.start()
        self._problems.tell_again()

    def _step(self, loop: Loop) -> None:
        loop.busy(False)
        batch = self.nodes.take()
        loop.busy(True)
        self.metrics.waiting.labels("nodes").set(self.nodes.waiting)
        if batch and self._initialiser is not None:
            self._initialiser.step(batch)

    def _once_told(self, work: Callable[[], None]) -> Callable[[], None]:
        """Nothing before the nodes are known."""
        return lambda: work() if self.nodes.is_told else None

    def _end(self, watch: Kept) -> None:
        for one in self._loops:
            one.end()
        self.nodes.close()
        if self._initialiser is not None:
            self._initialiser.close()
        watch.end()
        self._recorder.close(EVENTS_S)
        if self._cluster.close(WRITES_S) and self._elector is not None:
            self._elector.end()
        # Otherwise a write is under way still: the Lease runs out by itself.
        self._cloud.close()
        self._kube.close()

    # --- what is looked after -----------------------------------------------------------------------------------------

    def _look_after(self) -> None:
        if self._watch is not None and self._watch.revive():
            LOG.error("The watch of nodes hung or died, and is begun again.")
        if self._elector is not None:
            problem = self._elector.problem
            if problem is None:
                self._problems.over("the Lease")
            elif problem.is_denied:
                self._problems.refused(LEASE_RIGHTS, problem, "the Lease")
            else:
                self._problems.report("the Lease", "LeaseNotHad", str(problem))
        self._reload()

    def _reload(self) -> None:
        try:
            found = self._read()
            if found != self._cloud.config:
                self._cloud.use(found)
                LOG.info("Another cloud config is in force: %r.", found)
        except BadSetting as error:
            self.metrics.config_refused.set(1)
            self._problems.report("cloud config", "CloudConfigRefused", f"{error} The last good one stays in force.")
        else:
            self.metrics.config_refused.set(0)
            self._problems.over("cloud config")

    def _tell_problem(self, reason: str, message: str) -> None:
        """On the Lease, which every cluster has that runs this."""
        chosen = self._settings
        about = Subject("Lease", chosen.lease_name, "", chosen.lease_namespace, GROUP)
        if reason != "MayNotCreateEvents":
            self._recorder.event(about, WARNING, reason, message)

    def _tell_event(self, about: Subject, kind: str, reason: str, message: str) -> None:
        """Only a leader makes Events; but who may not have the Lease never leads, and nothing else would say why."""
        events = self._alone if reason == reason_of(LEASE_RIGHTS) else self._cluster
        events.tell(about, kind, reason, message)

    def _called(self, call: Call) -> None:
        self.metrics.calls.labels(call.method, call.resource, str(call.status)).inc()
        self.metrics.call_seconds.labels(call.resource).observe(call.seconds)

    def _new_watch(self, _kept: Kept) -> Watch:
        def told(objects: list[dict[str, object]], _fresh: bool) -> None:
            self._problems.over("list and watch nodes")
            self.nodes.told(map(Node.of, objects))

        def each(kind: str, found: dict[str, object]) -> None:
            node = Node.of(found)
            if kind == "DELETED":
                self.nodes.gone(node.name, node.uid)
            else:
                self.nodes.put(node)

        def failed(error: ApiError) -> None:
            LOG.warning("The watch of nodes: %s", error)
            self._problems.refused("list and watch nodes", error)

        return Watch(self._kube, ALL_NODES, told, failed, each=each)

    # --- the port -----------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        chosen = self._settings
        if self._certificate is None:
            return
        pages = Pages(self.metrics.registry, self._is_alive, self.problems)
        guard = Guard(self._kube, self._problems)
        try:
            server = Server(chosen.port, pages, chosen.bind_address, self._certificate, guard)
        except OSError as error:
            raise BadSetting(f"--secure-port {chosen.port}: {error.strerror}. Give another, or 0 for none.") from error
        server.start()
        self.port = server.port

    def _is_alive(self) -> bool:
        watch = self._watch
        return (watch is None or watch.is_alive) and all(one.is_alive for one in self._loops)

    def problems(self) -> list[str]:
        """Why this is not ready; a process that waits for its turn to lead is."""
        watch = self._watch
        silent = watch is not None and not watch.has_ended and time.monotonic() - watch.heard_at >= STALE_S
        return [
            *([] if self.nodes.is_told else ["The nodes are not known yet."]),
            *(["Nothing was heard of the nodes for long."] if silent else []),
            *self._problems.sentences(),
        ]


def reader(file: str, environment: Mapping[str, str]) -> Callable[[], Config]:
    """Reads the cloud config, again when the file has changed."""
    known: list[tuple[str, Config]] = []

    def read() -> Config:
        try:
            text = Path(file).read_text(encoding="utf-8") if file else ""
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is no UTF-8"
            raise BadSetting(f"--cloud-config {file} cannot be read: {reason}. Mount it.") from None
        if not known or known[0][0] != text:
            found = configs.read(text, environment)
            known[:] = [(text, found)]
        return known[0][1]

    return read


def connect(config: Config, observe: Callable[[Call], None]) -> Client:
    """A client of the bare-metal manager."""
    return config.client(observe)


def main(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Run the controller manager; the exit status: 2 for what is refused at the start."""
    try:
        chosen = flags.parse(arguments)
        log.configure(str(__package__), chosen.log_json, chosen.debug)
        where = connection.of_file(chosen.kubeconfig) if chosen.kubeconfig else connection.of_pod(environment)
        process = Process(chosen, Kube(where, agent=COMPONENT), reader(chosen.cloud_config, environment), connect)
        with signals.heard(signals.STOPS, process.stop_signalled):
            if not process.run():
                LOG.error("Ending: another process leads, or may.")
                return 1
    except (BadSetting, NoConnection) as error:
        print(f"{COMPONENT}: {error}", file=sys.stderr)
        return 2
    except Exception:  # the last line is to be of the same form as all others, whatever it is about
        LOG.exception("The controller manager ends: nobody has thought of this.")
        return 1
    LOG.info("Stopped.")
    return 0


__all__ = ["Lost", "Process", "main", "reader"]
