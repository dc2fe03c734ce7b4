# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Asks the kubelet who has what: when somebody reads the metrics, and while something waits to be collected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .kubelet import PodResources
from .metrics import PluginMetrics
from .source import Source

EVERY_S = 30.0


class Collector:
    """There is no Deallocate: what Allocate made is collected by looking who has it. At rest nothing is asked."""

    def __init__(
        self,
        pod_resources: PodResources,
        metrics: PluginMetrics,
        source: Callable[[], Source | None],
        names: Callable[[], list[str]],
        every_s: float = EVERY_S,
    ) -> None:
        self._pod_resources = pod_resources
        self._metrics = metrics
        self._source = source
        self._names = names
        self._every_s = every_s
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Something was made, perhaps."""
        self._wake.set()

    async def refresh(self) -> None:
        """Ask, show it, and let the source collect."""
        held = await self._pod_resources.held()
        if held is None:
            self._metrics.held_unknown.inc()
        elif (source := self._source()) is not None:
            source.collect(held)
        self._metrics.show_held(self._names(), held)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._wake.clear()
            source = self._source()
            if source is None or not source.collects:
                await self._wake.wait()
                continue
            await self.refresh()
            await asyncio.sleep(self._every_s)
