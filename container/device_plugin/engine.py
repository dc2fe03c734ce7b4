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
from .metrics import Metrics
from .plugin import Plugin
from .sockets import sweep
from .source import Resource

LOG = logging.getLogger(__name__)


class FolderGone(Exception):
    """The kubelet's folder itself was removed: only another process helps."""


class Engine:
    """Between a source and the kubelet. In one event loop, in one thread.

    Without ``register`` the kubelet is told nothing, and its folder is not looked at: there are metrics only.
    """

    def __init__(self, kubelet: Kubelet, watcher: Watcher, metrics: Metrics, register: bool = True) -> None:
        self._kubelet = kubelet
        self._register = register
        self._watcher = watcher
        self._metrics = metrics
        self._plugins: dict[str, Plugin] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
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
        wanted = {one.name: one for one in resources if one.is_present}
        for name in [one for one in self._plugins if one not in wanted]:
            await self._withdraw(name)
        for name, resource in wanted.items():
            if name in self._plugins:
                self._plugins[name].service.use(resource)
            else:
                self._begin(resource)

    def _begin(self, resource: Resource) -> None:
        plugin = self._plugins[resource.name] = Plugin(resource, self._kubelet, self._metrics)
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
        every = self._plugins.values() if self._register else ()
        return [f"{one.name}: {one.problem or 'the stream is broken'}" for one in every if not one.is_registered]
