# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kubelet's device manager as plugins meet it.

What was seen of real ones: at its start it removes every socket of its folder; inside Register it dials back and asks
for options; it takes messages up to 4 MiB; and up to 1.36 it keeps connections by the resource's name, so that the
end of an old instance's stream closes the connection of the new one and leaves nothing allocatable. From 1.37 on it
keeps them by path.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from device_plugin.api import deviceplugin_pb2 as api
from device_plugin.api import podresources_pb2 as v1
from device_plugin.api.deviceplugin_grpc import DevicePluginStub, RegistrationBase
from device_plugin.api.podresources_grpc import PodResourcesListerBase
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

CHECKPOINT = "kubelet_internal_checkpoint"
MAX_BYTES = 4 << 20
DIAL_S = 10.0
BROKEN = (GRPCError, StreamTerminatedError, ProtocolError, OSError, TimeoutError)


@dataclass(eq=False)
class Client:
    """A plugin that has registered."""

    name: str
    path: str
    channel: Channel
    options: api.DevicePluginOptions
    devices: dict[str, api.Device] = field(default_factory=dict)
    stopped: bool = False
    lists: int = 0  # how often it told


class FakeKubelet:
    """One life of a kubelet after another. Its clients are of the same event loop."""

    def __init__(self, folder: Path, pod_resources: Path | None = None, release: tuple[int, int] = (1, 36)) -> None:
        self.folder = folder
        self._pod_resources = pod_resources
        self._release = release
        self._servers: list[_Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._connections: dict[str, Client] = {}  # by name, or from 1.37 on by path
        self.endpoints: dict[str, Client] = {}  # by resource
        self.held: dict[str, dict[str, list[str]]] = {}  # pod to resource to ids
        self.registered: list[tuple[float, str, str]] = []  # when, resource, endpoint
        self.refusals: list[str] = []  # what was said instead of yes
        self.asked = 0  # requests to register, also those that came to nothing
        self.lists = 0  # requests who has what
        self.reject = ""  # what Register says instead
        self.silent = False  # Register never answers
        self.die = False  # inside Register
        self.slow_s = 0.0
        self.drops = False  # each stream, after its first message

    # --- its life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Empty the folder but for the checkpoint, and listen."""
        for path in self.folder.iterdir():
            if path.name != CHECKPOINT:
                path.unlink()
        self._servers.append(await _serving(self.folder / "kubelet.sock", _Registration(self)))
        if self._pod_resources is not None:
            self._pod_resources.unlink(missing_ok=True)
            self._servers.append(await _serving(self._pod_resources, _Lister(self)))
        self._tell()

    async def kill(self) -> None:
        """As by SIGKILL: connections break, and the sockets' files stay."""
        for task in self._tasks:
            task.cancel()
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
            server.cut()
        for client in {*self._connections.values(), *self.endpoints.values()}:
            client.channel.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for server in servers:
            await server.wait_closed()
        self._connections, self.endpoints = {}, {}
        self._tell()

    async def restart(self) -> None:
        """Killed, and started again."""
        await self.kill()
        await self.start()

    # --- what tests look at -------------------------------------------------------------------------------------------

    def allocatable(self, name: str) -> int:
        """Healthy devices of a resource."""
        client = self.endpoints.get(name)
        if client is None or client.stopped:
            return 0
        return sum(one.health == "Healthy" for one in client.devices.values())

    def capacity(self, name: str) -> int:
        """All devices of a resource that has a plugin."""
        client = self.endpoints.get(name)
        return len(client.devices) if client is not None and not client.stopped else 0

    async def until(self, what: Callable[[], bool], within_s: float = 5.0) -> float:
        """Wait for something that this kubelet sees; the seconds that it took. Raises TimeoutError."""
        began = time.monotonic()
        async with asyncio.timeout(within_s):
            while not what():
                await self._changed.wait()
        return time.monotonic() - began

    async def allocate(self, name: str, count: int, pod: str) -> api.ContainerAllocateResponse:
        """Admit a pod with so many devices. Raises GRPCError, or LookupError when there are not enough."""
        client = self.endpoints[name]
        taken = {one for pods in self.held.values() for one in pods.get(name, ())}
        free = [one.ID for one in client.devices.values() if one.health == "Healthy" and one.ID not in taken]
        if len(free) < count or client.stopped:
            raise LookupError(f"{len(free)} of {name}")
        request = api.AllocateRequest()
        request.container_requests.add(devices_ids=free[:count])
        response = await DevicePluginStub(client.channel).Allocate(request)
        self.held[pod] = {name: free[:count]}
        return response.container_responses[0]

    # --- what it does -------------------------------------------------------------------------------------------------

    async def register(self, request: api.RegisterRequest) -> None:
        """Raises GRPCError."""
        self.asked += 1
        self._tell()
        if self.die:
            self.die = False
            self._spawn(self.kill())
            await asyncio.Event().wait()
        if self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(self.slow_s)
        if self.reject or request.version != "v1beta1" or "/" not in request.resource_name:
            self.refusals.append(self.reject or "bad request")
            raise GRPCError(Status.INVALID_ARGUMENT, self.refusals[-1])
        channel = Channel(path=str(self.folder / request.endpoint))
        try:
            async with asyncio.timeout(DIAL_S):
                options = await DevicePluginStub(channel).GetDevicePluginOptions(api.Empty())
        except BROKEN as error:
            channel.close()
            self.refusals.append(f"could not dial back: {error!r}")
            raise GRPCError(Status.UNAVAILABLE, self.refusals[-1]) from error
        client = Client(request.resource_name, request.endpoint, channel, options)
        self._connections[self._key(client)] = client
        self.endpoints[client.name] = client
        self.registered.append((time.monotonic(), client.name, client.path))
        self._spawn(self._listen(client))
        self._tell()

    def _key(self, client: Client) -> str:
        return client.path if self._release >= (1, 37) else client.name

    async def _listen(self, client: Client) -> None:
        try:
            async with DevicePluginStub(client.channel).ListAndWatch.open() as stream:
                await stream.send_message(api.Empty(), end=True)
                while (message := await stream.recv_message()) is not None:
                    if message.ByteSize() > MAX_BYTES:
                        self.refusals.append("message too large")
                        await stream.cancel()
                        break
                    client.devices = {one.ID: one for one in message.devices}
                    client.lists += 1
                    self._tell()
                    if self.drops:
                        await stream.cancel()
                        break
        except BROKEN:
            pass
        finally:
            self._disconnected(client)

    def _disconnected(self, client: Client) -> None:
        """Up to 1.36 whoever has the name by now loses its connection."""
        client.channel.close()
        whoever = self._connections.pop(self._key(client), None)
        if whoever is not None:
            whoever.channel.close()
        endpoint = self.endpoints.get(client.name)
        if endpoint is not None and (self._release < (1, 37) or endpoint is client):
            endpoint.stopped = True
        self._tell()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        if task is not None and getattr(work, "__name__", "") != "kill":
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class _Registration(RegistrationBase):
    def __init__(self, kubelet: FakeKubelet) -> None:
        self._kubelet = kubelet

    async def Register(self, stream: Stream[api.RegisterRequest, api.Empty]) -> None:  # noqa: N802
        request = await stream.recv_message()
        if request is not None:
            await self._kubelet.register(request)
            await stream.send_message(api.Empty())


class _Lister(PodResourcesListerBase):
    def __init__(self, kubelet: FakeKubelet) -> None:
        self._kubelet = kubelet

    async def List(  # noqa: N802
        self, stream: Stream[v1.ListPodResourcesRequest, v1.ListPodResourcesResponse]
    ) -> None:
        await stream.recv_message()
        self._kubelet.lists += 1
        response = v1.ListPodResourcesResponse()
        for pod, resources in self._kubelet.held.items():
            container = response.pod_resources.add(name=pod, namespace="default").containers.add(name="main")
            for name, ids in resources.items():
                container.devices.add(resource_name=name, device_ids=ids)
        await stream.send_message(response)


class _Server(Server):
    """One whose connections break with it, as those of a process that is killed."""

    def __init__(self, handlers: list[object]) -> None:
        self._protocols: list[H2Protocol] = []
        super().__init__(handlers)  # type: ignore[arg-type]

    def _protocol_factory(self) -> H2Protocol:
        self._protocols.append(super()._protocol_factory())
        return self._protocols[-1]

    def cut(self) -> None:
        for one in self._protocols:
            with contextlib.suppress(AttributeError):  # no byte came yet
                one.connection.close()


async def _serving(path: Path, handler: object) -> _Server:
    # A socket of our own making: Python 3.13 takes the files of its own away when they are closed.
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    server = _Server([handler])
    await server.start(sock=made)
    return server
