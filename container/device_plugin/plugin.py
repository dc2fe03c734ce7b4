# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One resource at the kubelet: served on a socket, registered, and registered again whenever that was undone.

Undone it is when the kubelet starts again (its socket is another one, and it has removed ours), when somebody empties
the folder, and when the kubelet ends the stream. Up to 1.36 it closes the connection of the *new* instance when the
stream of the old one ends, in an update with a surge; it shows no device then until somebody registers again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from kube.delay import Delay

from .kubelet import SOCKET, Kubelet, Mark, NotRegistered
from .metrics import PluginMetrics
from .service import Service
from .sockets import Listening
from .source import Resource

LOG = logging.getLogger(__name__)
# From the answer to Register to the stream.
STREAM_S = 10.0
# A stream that lived as long as this has been good: what ended it is news, and no row of failures.
GOOD_S = 5.0
# Before the first and the last of a row of attempts. Two plugins that disturb each other do not stay in step.
PAUSE_S = (0.05, 5.0)


class Plugin:
    """One resource. ``run`` it until it is cancelled."""

    def __init__(
        self, resource: Resource, kubelet: Kubelet, metrics: PluginMetrics, stream_s: float = STREAM_S
    ) -> None:
        self.name = resource.name
        self.service = Service(resource, metrics, self._stream_ended)
        self._kubelet = kubelet
        self._metrics = metrics
        self._stream_s = stream_s
        self._wake = asyncio.Event()
        self._pause = Delay(*PAUSE_S)
        self._socket: Listening | None = None
        self._seen: Mark | None = None  # of the kubelet's socket, when it was last looked at
        self._registered: Mark | None = None  # the kubelet that knows us
        self._since = 0.0
        self._hasty = False  # the last stream ended soon after its begin
        self._stopping = False
        self.problem = "it is not registered yet"

    @property
    def is_registered(self) -> bool:
        """True while a kubelet listens to what is offered."""
        return self._registered is not None and self.service.is_told

    def look(self) -> None:
        """Something in the kubelet's folder may be different."""
        seen = self._kubelet.mark()
        if seen != self._seen:
            self._seen = seen
            self._pause.reset()
            self._wake.set()
        elif self._socket is not None and not self._socket.is_there:
            self._wake.set()

    def _stream_ended(self) -> None:
        if not self._stopping:
            self._metrics.stream_breaks.labels(self.name).inc()
            LOG.warning("%s: the kubelet ended the stream.", self.name)
            if time.monotonic() - self._since >= GOOD_S:
                self._pause.reset()
            else:
                self._hasty = True
            self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled; then nothing of it is left in the folder."""
        try:
            while True:
                self._wake.clear()
                seen = self._kubelet.mark()
                delay_s = None
                if seen is None:
                    # A kubelet whose folder was emptied may listen to us all the same: what is served goes on.
                    self._say(f"there is no {SOCKET} in {self._kubelet.folder}")
                elif not self._is_known_to(seen) and self._hasty:
                    self._hasty = False
                    delay_s = self._pause.next()
                elif not self._is_known_to(seen):
                    delay_s = await self._introduce(seen)
                    if delay_s is None:
                        continue  # it may be undone by now
                await self._woken(delay_s)
        finally:
            self._stopping = True
            await self._close()

    async def _woken(self, delay_s: float | None) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _is_known_to(self, seen: Mark) -> bool:
        return self._registered == seen and self.service.is_told and self._is_served

    @property
    def _is_served(self) -> bool:
        return self._socket is not None and self._socket.is_there

    async def _introduce(self, seen: Mark) -> float | None:
        """Serve and register; None: done, else seconds until it is to be tried again."""
        try:
            await self._serve()
            await self._register(seen)
        except (NotRegistered, OSError) as error:
            reason = error.reason if isinstance(error, NotRegistered) else "socket"
            self._metrics.registration_failures.labels(self.name, reason).inc()
            self._say(f"not registered: {error}")
            return self._pause.next()
        self.problem = ""
        return None

    async def _serve(self) -> None:
        if not self._is_served:
            # The old one first: up to 1.36 its end, when it comes later, would take the new one's connection.
            await self._close()
            self._socket = Listening(self._kubelet.folder, self.name, [self.service])
            await self._socket.start()

    async def _register(self, seen: Mark) -> None:
        """Register with the kubelet of this mark, unless another comes meanwhile. Raises NotRegistered."""
        assert self._socket is not None
        name = self._socket.path.name
        work = asyncio.ensure_future(self._registered_and_heard(name))
        try:
            while not work.done():
                await self._either(work)
                if not work.done() and (self._kubelet.mark() != seen or not self._is_served):
                    raise NotRegistered("replaced", "the kubelet went while it was asked")
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        self._registered, self._since = seen, time.monotonic()
        self._metrics.registrations.labels(self.name).inc()
        LOG.info("%s: registered with the kubelet, on %s.", self.name, name)

    async def _either(self, work: asyncio.Future[None]) -> None:
        """Until the work is done, or something happens."""
        waker: asyncio.Future[bool] = asyncio.ensure_future(self._wake.wait())
        either: set[asyncio.Future[Any]] = {work, waker}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waker.cancel()
        self._wake.clear()

    async def _registered_and_heard(self, name: str) -> None:
        """Register, and wait for the stream, which a kubelet opens then."""
        before = self.service.opened
        await self._kubelet.register(name, self.name, self.service.options)
        try:
            async with asyncio.timeout(self._stream_s):
                if not await self.service.is_heard(before):
                    raise NotRegistered("broken", "the kubelet ended the stream at once")
        except TimeoutError:
            raise NotRegistered("unheard", f"the kubelet did not open the stream for {self._stream_s:g} s") from None

    def _say(self, problem: str) -> None:
        """Once for each cause."""
        if problem != self.problem:
            self.problem = problem
            LOG.warning("%s: %s. It is tried again.", self.name, problem)

    async def _close(self) -> None:
        if self._socket is not None:
            closing, self._socket = self._socket, None
            self._registered = None
            stopping, self._stopping = self._stopping, True
            try:
                await closing.close()
            finally:
                self._stopping = stopping
