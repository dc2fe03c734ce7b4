# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kubelet: whether it is the same as before, registering with it, and what it says of who has which device."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

from grpclib.client import Channel
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from .api import deviceplugin_pb2 as api
from .api import podresources_pb2
from .api.deviceplugin_grpc import RegistrationStub
from .api.podresources_grpc import PodResourcesListerStub
from .messages import VERSION
from .source import Held

SOCKET = "kubelet.sock"
# Inside Register the kubelet dials back, for ten seconds at most.
REGISTER_S = 10.0
LIST_S = 2.0
# What one socket file is known by: device, inode, and when it was made, for inode numbers come again.
Mark = tuple[int, int, int]


class NotRegistered(Exception):
    """``reason``: a word for the metric."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def mark(path: Path) -> Mark | None:
    """What distinguishes this socket from one that takes its place; None: there is no socket."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if stat.S_ISSOCK(found.st_mode) else None


class Kubelet:
    """The one whose folder this is."""

    def __init__(self, folder: Path, register_s: float = REGISTER_S) -> None:
        self.folder = folder
        self._register_s = register_s

    def mark(self) -> Mark | None:
        """Of its socket; None: it is not there."""
        return mark(self.folder / SOCKET)

    async def register(self, endpoint: str, name: str, options: api.DevicePluginOptions) -> None:
        """Raises NotRegistered. ``endpoint``: the file name of a socket in the folder, on which is being served."""
        request = api.RegisterRequest(version=VERSION, endpoint=endpoint, resource_name=name, options=options)
        channel = Channel(path=str(self.folder / SOCKET))
        try:
            async with asyncio.timeout(self._register_s):
                await RegistrationStub(channel).Register(request)
        except TimeoutError:
            raise NotRegistered("silent", f"the kubelet did not answer for {self._register_s:g} s") from None
        except GRPCError as error:
            raise NotRegistered("rejected", f"the kubelet says {error.status.name}: {error.message}") from error
        except (OSError, ProtocolError, StreamTerminatedError) as error:
            raise NotRegistered(
                "unreachable", f"the kubelet cannot be reached: {error or type(error).__name__}"
            ) from error
        finally:
            channel.close()


class PodResources:
    """Who has what, asked over the kubelet's other socket.

    ``witness``: namespace and name of the pod that this process is in, which the kubelet knows of as soon as of any pod
    of the API server. Right after its start it knows none: a list without the witness is not believed. None: there is
    no such pod.
    """

    def __init__(self, path: Path, witness: tuple[str, str] | None = None, list_s: float = LIST_S) -> None:
        self._path = path
        self._witness = witness
        self._list_s = list_s

    async def held(self) -> Held | None:
        """The ids of devices that containers have, by resource; None: it is not known."""
        channel = Channel(path=str(self._path))
        try:
            async with asyncio.timeout(self._list_s):
                listed = await PodResourcesListerStub(channel).List(podresources_pb2.ListPodResourcesRequest())
        except (TimeoutError, GRPCError, OSError, ProtocolError, StreamTerminatedError):
            return None
        finally:
            channel.close()
        if self._witness is not None and self._witness not in {
            (one.namespace, one.name) for one in listed.pod_resources
        }:
            return None
        held: dict[str, set[str]] = {}
        for pod in listed.pod_resources:
            for container in pod.containers:
                for devices in container.devices:
                    held.setdefault(devices.resource_name, set()).update(devices.device_ids)
        return {name: frozenset(ids) for name, ids in held.items()}
