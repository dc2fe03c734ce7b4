# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One resource as a gRPC service: what the kubelet asks, and the stream on which it is told of changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from . import messages
from .api import deviceplugin_pb2 as api
from .api.deviceplugin_grpc import DevicePluginBase
from .metrics import PluginMetrics
from .source import Device, Refused, Resource

LOG = logging.getLogger(__name__)


class Service(DevicePluginBase):
    """Serves one resource; ``ended`` is called when the stream of the newest watcher ends."""

    def __init__(self, resource: Resource, metrics: PluginMetrics, ended: Callable[[], None]) -> None:
        self._metrics = metrics
        self._ended = ended
        self._changed = asyncio.Event()
        self._opening = asyncio.Event()
        self._offered: tuple[Device, ...] | None = None
        self._message = api.ListAndWatchResponse()
        self._by_id: dict[str, Device] = {}
        self._held = ""
        self.opened = 0  # streams, ever
        self._newest = 0  # which of them is the one that counts; 0: none is open
        self.allocated: Callable[[], None] = lambda: None
        self.use(resource)

    # --- what is offered ----------------------------------------------------------------------------------------------

    def use(self, resource: Resource) -> None:
        """From now on this one, of the same name."""
        self._resource = resource
        self.name = resource.name
        self.look()

    def hold(self, reason: str) -> None:
        """Give no device to anybody, because of this; empty: as their own health says."""
        if reason != self._held:
            self._held = reason
            self.look()

    def look(self) -> None:
        """Tell the kubelet, if any device is another than it was told."""
        offered = tuple(self._resource.devices())
        if self._held:
            offered = tuple(one._replace(healthy=False) for one in offered)
        if offered != self._offered:
            message = messages.devices(offered)
            if message.ByteSize() > messages.MAX_BYTES:
                return  # the engine has said so
            self._offered, self._message = offered, message
            self._by_id = {one.id: one for one in offered}
            self._changed = _renewed(self._changed)
            self._metrics.show_devices(self._resource.name, offered)

    @property
    def is_told(self) -> bool:
        """True while a kubelet listens."""
        return self._newest != 0

    async def is_heard(self, before: int) -> bool:
        """Wait for another stream than the first ``before``; whether it is open still."""
        while self.opened == before:
            await self._opening.wait()
        return self.is_told

    @property
    def options(self) -> api.DevicePluginOptions:
        """What the kubelet is to ask beside allocations."""
        return api.DevicePluginOptions(get_preferred_allocation_available=self._resource.prefers)

    # --- what the kubelet asks ----------------------------------------------------------------------------------------

    async def GetDevicePluginOptions(self, stream: Stream[api.Empty, api.DevicePluginOptions]) -> None:  # noqa: N802
        """While it registers us."""
        if await stream.recv_message() is not None:
            await stream.send_message(self.options)

    async def ListAndWatch(self, stream: Stream[api.Empty, api.ListAndWatchResponse]) -> None:  # noqa: N802
        """All devices now, and again after each change, until one of both sides ends."""
        if await stream.recv_message() is None:
            return
        self.opened += 1
        number = self._newest = self.opened
        self._opening = _renewed(self._opening)
        try:
            while True:
                changed = self._changed
                await stream.send_message(self._message)
                await changed.wait()
        finally:
            if number == self._newest:
                self._newest = 0
                self._ended()

    async def Allocate(self, stream: Stream[api.AllocateRequest, api.AllocateResponse]) -> None:  # noqa: N802
        """For the containers of one pod."""
        request = await stream.recv_message()
        if request is None:
            return
        response = api.AllocateResponse()
        for one in request.container_requests:
            response.container_responses.append(self._allocated(list(one.devices_ids)))
        await stream.send_message(response)
        self.allocated()

    def _allocated(self, ids: list[str]) -> api.ContainerAllocateResponse:
        name = self._resource.name
        try:
            for one in ids:
                if one not in self._by_id:
                    raise Refused("unknown", f"there is no device {one!r}")
                if self._held:
                    raise Refused("withheld", self._held)
                if not self._by_id[one].healthy:
                    raise Refused("unhealthy", f"the device {one!r} is not healthy")
            answer = self._resource.allocate(ids)
        except Refused as refused:
            raise self._error(refused.reason, str(refused)) from refused
        except OSError as error:
            raise self._error("system", str(error)) from error
        self._metrics.allocations.labels(name).inc()
        LOG.info("%s: a container gets %s.", name, ", ".join(ids))
        return messages.answer(answer)

    def _error(self, reason: str, text: str) -> GRPCError:
        self._metrics.allocation_errors.labels(self._resource.name, reason).inc()
        LOG.error("%s: a container does not get its devices: %s", self._resource.name, text)
        return GRPCError(Status.FAILED_PRECONDITION, f"{self._resource.name}: {text}")

    async def GetPreferredAllocation(  # noqa: N802
        self, stream: Stream[api.PreferredAllocationRequest, api.PreferredAllocationResponse]
    ) -> None:
        """Which of the free devices a container had better get."""
        request = await stream.recv_message()
        if request is None:
            return
        response = api.PreferredAllocationResponse()
        for one in request.container_requests:
            available, must = list(one.available_deviceIDs), list(one.must_include_deviceIDs)
            chosen = self._resource.prefer(available, must, one.allocation_size)
            response.container_responses.add(deviceIDs=chosen)
        await stream.send_message(response)

    async def PreStartContainer(  # noqa: N802
        self, stream: Stream[api.PreStartContainerRequest, api.PreStartContainerResponse]
    ) -> None:
        """Never asked for, and answered all the same."""
        if await stream.recv_message() is not None:
            await stream.send_message(api.PreStartContainerResponse())


def _renewed(event: asyncio.Event) -> asyncio.Event:
    """Wake all that wait, and have the next ones wait for the next time."""
    event.set()
    return asyncio.Event()
