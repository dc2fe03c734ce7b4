# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""All resources that are offered, each with its own registration; what the probes ask."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from . import messages
from .inotify import Watcher
from .kubelet import Kubelet
from .metrics import PluginMetrics
from .plugin import Plugin
from .sockets import sweep
from .source import Device, Resource

LOG = logging.getLogger(__name__)


class FolderGone(Exception):
    """The kubelet's folder itself was removed: only another process helps."""


class Engine:
    """Between a source and the kubelet. In one event loop, in one thread.

    Without ``register`` the kubelet is told nothing, and its folder is not looked at: there are metrics only.
    """

    def __init__(self, kubelet: Kubelet, watcher: Watcher, metrics: PluginMetrics, register: bool = True) -> None:
        self._kubelet = kubelet
        self._register = register
        self._watcher = watcher
        self._metrics = metrics
        self._plugins: dict[str, Plugin] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held = ""
        self._fitting: dict[str, Sequence[Device]] = {}  # the devices that were found to fit into a message
        self._too_many: dict[str, str] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.allocated: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Sweep away what a killed process left, and watch the kubelet's folder."""
        if not self._register:
            return
        for name in sweep(self._kubelet.folder):
            LOG.info("Removed %s, on which nobody listened.", name)
        self._watcher.watch(self._kubelet.folder, self._look)

    def _look(self) -> None:
        for plugin in self._plugins.values():
            plugin.look()
        if not self._kubelet.folder.is_dir() and not self.failed.done():
            # A mount shows the folder that was there when the container began.
            gone = f"{self._kubelet.folder} was removed; only another container sees a new one."
            self.failed.set_exception(FolderGone(gone))

    @staticmethod
    def check(resources: Sequence[Resource]) -> None:
        """Raises messages.TooMany or messages.BadId for what a kubelet would not show."""
        for one in resources:
            messages.check(one.name, one.devices())

    async def offer(self, resources: Sequence[Resource]) -> None:
        """These and no others, from now on."""
        self._too_many = {one.name: why for one in resources if (why := self._why_not(one))}
        # What is at the kubelet already stays as it was told last.
        fit = [one for one in resources if one.name in self._plugins or one.name not in self._too_many]
        wanted = {one.name: one for one in fit if one.is_present}
        for name in [one for one in self._plugins if one not in wanted]:
            await self._withdraw(name)
        for name, resource in wanted.items():
            if name in self._plugins:
                self._plugins[name].service.use(resource)
            else:
                self._begin(resource)

    def _why_not(self, resource: Resource) -> str:
        """Why a kubelet would not show it; empty: it fits."""
        devices = resource.devices()
        if self._fitting.get(resource.name) is devices:
            return ""
        try:
            messages.check(resource.name, devices)
        except (messages.TooMany, messages.BadId) as error:
            if str(error) != self._too_many.get(resource.name):
                LOG.error("%s None of this is told.", error)
            return str(error)
        self._fitting[resource.name] = devices
        return ""

    def hold(self, reason: str) -> None:
        """Give no device to anybody, because of this; empty: as each one's own health says."""
        self._held = reason
        for plugin in self._plugins.values():
            plugin.service.hold(reason)

    def _begin(self, resource: Resource) -> None:
        plugin = self._plugins[resource.name] = Plugin(resource, self._kubelet, self._metrics)
        plugin.service.hold(self._held)
        if not self._register:
            return
        plugin.service.allocated = self._allocated
        self._metrics.registered.labels(plugin.name).set_function(lambda: float(plugin.is_registered))
        task = self._tasks[plugin.name] = asyncio.create_task(plugin.run(), name=plugin.name)
        task.add_done_callback(self._ended)

    def _allocated(self) -> None:
        self.allocated()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def _withdraw(self, name: str) -> None:
        LOG.info("%s: offered no longer.", name)
        del self._plugins[name]
        if (task := self._tasks.pop(name, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._metrics.forget(name)

    async def stop(self) -> None:
        """Withdraw everything, at once."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks, self._plugins = {}, {}

    @property
    def names(self) -> list[str]:
        """What is offered."""
        return list(self._plugins)

    @property
    def problems(self) -> list[str]:
        """Why what is offered is not at the kubelet."""
        missing = [one for one in self._plugins.values() if self._register and not one.is_registered]
        return [*self._too_many.values(), *(f"{one.name}: {one.problem or 'the stream is broken'}" for one in missing)]
