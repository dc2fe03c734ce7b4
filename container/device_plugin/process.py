# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The process: everything put together."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kube import log, signals
from kube.pages import Pages
from kube.settings import BadSetting

from . import messages, settings
from .collector import Collector
from .engine import Engine, FolderGone
from .inotify import Watcher
from .kubelet import Kubelet, PodResources
from .machine import Machine
from .metrics import Metrics
from .port import Server
from .refusal import BadConfig
from .settings import Settings
from .source import Source
from .sources import SOURCES

LOG = logging.getLogger(__package__)


class Process:
    """Made within the event loop. ``run`` until ``stop``."""

    def __init__(self, chosen: Settings) -> None:
        self._settings = chosen
        self._make = SOURCES[chosen.source]
        self._watcher = Watcher()
        self._machine = Machine(chosen.host_root, chosen.sys, self._watcher, chosen.sees_nodes, chosen.register)
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._good: str | None = None  # the text that is in force
        self._bad: str | None = None  # the last one that was refused
        self._refused = ""
        self._source: Source | None = None
        self.metrics = Metrics()
        self.engine = Engine(Kubelet(chosen.plugins_folder), self._watcher, self.metrics, chosen.register)
        self.port = 0

    def stop(self) -> None:
        """Ask for the end."""
        self._stop.set()

    async def run(self) -> None:
        """Offer what the configuration says. Raises BadConfig and BadSetting before anything is offered."""
        try:
            if self._settings.register:
                _check_folder(self._settings.plugins_folder)
            self._source = self._first_source()
            await self._work(self._source)
        finally:
            if self._source is not None:
                self._source.stop()
            await self.engine.stop()
            self._watcher.close()

    def _first_source(self) -> Source:
        self._watcher.watch(self._settings.config.parent, self._changed.set, writes=True)
        text = self._read()
        source = self._made(text)
        source.start(self._changed.set)
        self._good = text
        return source

    async def _work(self, source: Source) -> None:
        resources = PodResources(self._settings.pod_resources, self._settings.pod)
        collector = Collector(resources, self.metrics, lambda: self._source or source, lambda: self.engine.names)
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
        """Why this is not ready; empty: it is. A file that was refused later is no reason: the last good one works."""
        if self._source is None:
            return ["the configuration was not read yet"]
        present = [one.name for one in self._source.resources() if one.is_present]
        missing = [f"{name}: it is not offered yet" for name in present if name not in self.engine.names]
        return [*filter(None, [self._source.problem]), *missing, *self.engine.problems]

    # --- what changes -------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        """Offer what there is, and again after each change of devices or of the configuration."""
        while True:
            self._changed.clear()
            self._reload()
            assert self._source is not None
            await self.engine.offer(self._source.resources())
            await self._changed.wait()

    def _reload(self) -> None:
        """Take the configuration of the file, if it is another and a good one."""
        text = None
        try:
            text = self._read()
            if text not in (self._good, self._bad):
                self._take(text)
        except BadConfig as error:
            self._refuse(text, str(error))
        if text == self._good and self._refused:
            self._refused, self._bad = "", None
            self.metrics.config_refused.set(0)
            LOG.info("%s is what is offered.", self._settings.config)

    def _take(self, text: str) -> None:
        """Raises BadConfig, and then the source before it goes on."""
        source = self._made(text)
        source.start(self._changed.set)
        assert self._source is not None
        self._source.stop()
        self._source, self._good = source, text
        LOG.info("%s: another configuration is in force.", self._settings.config)

    def _refuse(self, text: str | None, reason: str) -> None:
        self._bad = text
        if reason != self._refused:
            self._refused = reason
            self.metrics.config_errors.inc()
            self.metrics.config_refused.set(1)
            LOG.error("%s The last good configuration stays in force.", reason)

    def _read(self) -> str:
        file = self._settings.config
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "is no UTF-8"
            raise BadConfig(
                str(file), "", f"cannot be read: {reason}", "Mount it, or set DEVICE_PLUGIN_CONFIG."
            ) from error

    def _made(self, text: str) -> Source:
        """Raises BadConfig, also for what a kubelet would not show."""
        file = str(self._settings.config)
        source = self._make(text, file, self._machine)
        try:
            Engine.check(source.resources())
        except (messages.TooMany, messages.BadId) as error:
            raise BadConfig(file, "resources", str(error).rstrip("."), "Give fewer, or shorter names.") from error
        return source


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


async def work(chosen: Settings) -> None:
    """Until a signal asks for the end."""
    process = Process(chosen)
    for one in signals.STOPS:
        asyncio.get_running_loop().add_signal_handler(one, process.stop)
    await process.run()


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the plugin; the exit status: 2 for what is refused at the start."""
    try:
        chosen = settings.parse(arguments, environment, tuple(SOURCES))
        log.configure(str(__package__), chosen.log_json, chosen.debug, errors_of=["grpclib"])
        what = "Offering" if chosen.register else "Counting, and not offering,"
        LOG.info("%s devices of the source %s, as %s says.", what, chosen.source, chosen.config)
        asyncio.run(work(chosen))
    except (BadSetting, BadConfig) as error:
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
