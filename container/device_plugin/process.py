# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The process: everything put together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kube import connection, log, signals
from kube.client import Kube
from kube.connection import NoConnection
from kube.pages import Pages
from kube.settings import BadSetting

from . import messages, named, settings
from .collector import Collector
from .engine import Engine, FolderGone
from .inotify import Watcher
from .kubelet import Kubelet, PodResources
from .machine import Machine
from .metrics import PluginMetrics
from .own_node import OwnNode
from .port import Server
from .refusal import BadConfig
from .settings import Settings
from .source import Source
from .sources import SOURCES

LOG = logging.getLogger(__package__)


class Process:
    """Made within the event loop. ``run`` until ``stop``. ``node``: None where no API server is asked."""

    def __init__(self, chosen: Settings, node: OwnNode | None = None) -> None:
        self._settings = chosen
        self._make = SOURCES[chosen.source]
        self._watcher = Watcher()
        self._machine = Machine(chosen.host_root, chosen.sys, self._watcher, chosen.sees_nodes, chosen.register)
        self._node = node
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._good: tuple[Path, str] | None = None  # the file and its text that are in force
        self._bad: tuple[Path, str] | None = None  # the last ones that were refused
        self._refused = ""
        self.held = ""  # why nothing is given to anybody
        self._source: Source | None = None
        self.metrics = PluginMetrics()
        self.engine = Engine(Kubelet(chosen.plugins_folder), self._watcher, self.metrics, chosen.register)
        self.port = 0

    def stop(self) -> None:
        """Ask for the end."""
        self._stop.set()

    async def run(self) -> None:
        """Offer what the configuration says. Raises BadConfig and BadSetting before anything is offered.

        Where a label of the node chooses the configuration, a bad one is waited for: it is mended without a restart.
        """
        try:
            if self._settings.register:
                _check_folder(self._settings.plugins_folder)
            folder = self._settings.configs or self._settings.config.parent
            self._watcher.watch(folder, self._changed.set, writes=True)
            if self._settings.configs is None:
                self._take(*self._read())
            if self._node is not None:
                self._node.errors = lambda status: self.metrics.node_errors.labels(str(status)).inc()
                self._node.events_lost = self.metrics.events_lost.inc
                self._node.start(self._changed.set)
            await self._work()
        finally:
            if self._node is not None:
                self._node.stop()
            if self._source is not None:
                self._source.stop()
            await self.engine.stop()
            self._watcher.close()

    async def _work(self) -> None:
        resources = PodResources(self._settings.pod_resources, self._settings.pod)
        collector = Collector(resources, self.metrics, lambda: self._source, lambda: self.engine.names)
        self.engine.allocated = collector.wake
        self.engine.start()
        server = self._server(collector)
        if server is not None:
            await server.start()
        tasks = [asyncio.create_task(one) for one in (collector.run(), self._follow(), self._stopped())]
        every: list[asyncio.Future[None]] = [*tasks, self.engine.failed]
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            for one in every:
                if one.done():
                    one.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if server is not None:
                await server.close()

    async def _stopped(self) -> None:
        await self._stop.wait()

    def _server(self, collector: Collector) -> Server | None:
        if not self._settings.metrics_port:
            return None
        try:
            pages = Pages(self.metrics.registry, lambda: True, self.problems)
            server = Server(self._settings.metrics_port, pages, collector.refresh)
        except OSError as error:
            raise BadSetting(
                f"DEVICE_PLUGIN_METRICS_PORT is {self._settings.metrics_port}: {error.strerror}. Give another, or 0."
            ) from error
        self.port = server.port
        return server

    def problems(self) -> list[str]:
        """Why this is not ready; empty: it is. A file that was refused later is no reason: the last good one works.

        A mode that is being changed is none either: the plugin does what it is for.
        """
        unknown = list(filter(None, [self._node.problem if self._node is not None else ""]))
        if self._source is None:
            return unknown or [self._refused or "the configuration was not read yet"]
        present = [one.name for one in self._source.resources() if one.is_present]
        missing = [f"{name}: it is not offered yet" for name in present if name not in self.engine.names]
        return [*unknown, *filter(None, [self._source.problem]), *missing, *self.engine.problems]

    # --- what changes -------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Offer what there is, and again after each change of devices, of the node or of the configuration."""
        while True:
            self._changed.clear()
            look_s = self._node.look() if self._node is not None else None
            self._hold()  # before all else: somebody may wait for that
            if self._node is None or self._node.was_seen:
                self._reload()
                self._hold()
            if self._source is not None:
                await self.engine.offer(self._source.resources())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_s):
                    await self._changed.wait()

    def _hold(self) -> None:
        """Take away what is offered while the node says so, or is not known; give it back after that."""
        reason = ""
        if self._node is not None:
            reason = self._node.problem
            if not reason and self._source is not None:
                reason = self._source.withheld(self._node.labels, self._node.annotations)
        if reason != self.held:
            self.held = reason
            self.metrics.withheld.set(1 if reason else 0)
            if reason:
                LOG.warning("No device is given to anybody: %s.", reason)
            else:
                LOG.info("Devices are given again, each as its own health says.")
        self.engine.hold(reason)

    def _reload(self) -> None:
        """Take the configuration that holds, if it is another and a good one."""
        found = None
        try:
            found = self._read()
            if found not in (self._good, self._bad):
                self._take(*found)
        except BadConfig as error:
            self._refuse(found, str(error))
        if found is not None and found == self._good and self._refused:
            self._refused, self._bad = "", None
            self.metrics.config_refused.set(0)
            LOG.info("%s is what is offered.", found[0])

    def _take(self, file: Path, text: str) -> None:
        """Raises BadConfig, and then the source before it goes on."""
        source = self._make(text, str(file), self._machine)
        _check_sizes(source, str(file))
        source.start(self._changed.set)
        try:
            _check_sizes(source, str(file))  # of devices that were known before
        except BadConfig:
            source.stop()
            raise
        before, self._source, self._good = self._source, source, (file, text)
        if before is not None:
            before.stop()
            LOG.info("%s: another configuration is in force.", file)
            self._tell("Normal", "DevicePluginConfig", f"{file.name}: another configuration is in force.")

    def _refuse(self, found: tuple[Path, str] | None, reason: str) -> None:
        self._bad = found
        if reason != self._refused:
            self._refused = reason
            self.metrics.config_errors.inc()
            self.metrics.config_refused.set(1)
            rest = "The last good configuration stays in force." if self._source is not None else "Nothing is offered."
            LOG.error("%s %s", reason, rest)
            self._tell("Warning", "DevicePluginConfigRefused", f"{reason} {rest}")

    def _tell(self, kind: str, reason: str, message: str) -> None:
        if self._node is not None:
            self._node.tell(kind, reason, message)

    @property
    def _file(self) -> Path:
        """The configuration file that holds. Raises BadConfig."""
        folder = self._settings.configs
        if folder is None or self._node is None:
            return self._settings.config
        return named.chosen(folder, self._node.labels, self._settings.default_config)

    def _read(self) -> tuple[Path, str]:
        file = self._file
        try:
            return file, file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is no UTF-8"
            raise BadConfig(
                str(file), "", f"cannot be read: {reason}", "Mount it, or set DEVICE_PLUGIN_CONFIG."
            ) from error


def _check_sizes(source: Source, file: str) -> None:
    """Raises BadConfig for what a kubelet would not show."""
    try:
        Engine.check(source.resources())
    except (messages.TooMany, messages.BadId) as error:
        raise BadConfig(file, "resources", str(error).rstrip("."), "Give fewer, or shorter names.") from error


def _check_folder(folder: Path) -> None:
    """Raises BadSetting where no socket can be made."""
    if not folder.is_dir():
        raise BadSetting(
            f"DEVICE_PLUGIN_FOLDER: there is no folder {folder}. Mount the kubelet's device-plugins there."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise BadSetting(
            f"DEVICE_PLUGIN_FOLDER: no socket can be made in {folder} by user {os.geteuid()}. "
            "It is root's with mode 0755: run as user 0, which needs no capability."
        )


def _own_node(chosen: Settings, environment: Mapping[str, str]) -> OwnNode | None:
    """Raises NoConnection."""
    if not chosen.node:
        return None
    where = connection.of_file(chosen.kubeconfig) if chosen.kubeconfig else connection.of_pod(environment)
    return OwnNode(Kube(where, agent=settings.PROGRAM), chosen.node)


async def work(chosen: Settings, environment: Mapping[str, str]) -> None:
    """Until a signal asks for the end."""
    process = Process(chosen, _own_node(chosen, environment))
    for one in signals.STOPS:
        asyncio.get_running_loop().add_signal_handler(one, process.stop)
    await process.run()


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the plugin; the exit status: 2 for what is refused at the start."""
    try:
        chosen = settings.parse(arguments, environment, tuple(SOURCES))
        log.configure(str(__package__), chosen.log_json, chosen.debug, errors_of=["grpclib"])
        what = "Offering" if chosen.register else "Counting, and not offering,"
        where = f"of {chosen.configs} the one that {named.LABEL} names" if chosen.configs else chosen.config
        LOG.info("%s devices of the source %s, as %s says.", what, chosen.source, where)
        asyncio.run(work(chosen, environment))
    except (BadSetting, BadConfig, NoConnection) as error:
        print(f"{settings.PROGRAM}: {error}", file=sys.stderr)
        return 2
    except FolderGone as error:
        LOG.error("%s", error)
        return 1
    except Exception:  # the last line is to be of the same form as all others, whatever it is about
        LOG.exception("The device plugin ends: nobody has thought of this.")
        return 1
    LOG.info("Stopped.")
    return 0
