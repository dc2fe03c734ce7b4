# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a source gives, as the kubelet's messages; and how many devices fit into one."""

from __future__ import annotations

from collections.abc import Sequence

from .api import deviceplugin_pb2 as api
from .source import Answer, Device

VERSION = "v1beta1"
HEALTHY, UNHEALTHY = "Healthy", "Unhealthy"
# The kubelet's gRPC takes no larger message; it breaks the stream then, which only its own log tells.
MAX_BYTES = 4 << 20
MAX_ID = 63


class TooMany(Exception):
    """More devices than one message holds; the text has the number that fits."""


class BadId(Exception):
    """A device's id that the kubelet does not take."""


def devices(offered: Sequence[Device]) -> api.ListAndWatchResponse:
    """All devices of a resource."""
    response = api.ListAndWatchResponse()
    for one in offered:
        device = response.devices.add(ID=one.id, health=HEALTHY if one.healthy else UNHEALTHY)
        for node in one.numa:
            device.topology.nodes.add(ID=node)
    return response


def most(prefix: str, numa: tuple[int, ...] = ()) -> int:
    """How many devices with ids of this prefix and a number from 0 on fit into one message."""
    left, count, digits = MAX_BYTES, 0, 1
    while True:
        size = devices([Device(prefix + "9" * digits, False, numa)]).ByteSize()
        of_length = 10**digits - count
        if of_length * size > left:
            return count + left // size
        left, count, digits = left - of_length * size, count + of_length, digits + 1


def check(name: str, offered: Sequence[Device]) -> None:
    """Raises TooMany or BadId. Each device counts as unhealthy, which is the longer word: it may become so."""
    ids = {one.id for one in offered}
    if len(ids) != len(offered):
        raise BadId(f"{name}: two of its {len(offered)} devices have one id.")
    for one in ids:
        if not 1 <= len(one) <= MAX_ID:
            raise BadId(f"{name}: the device id {one!r} has {len(one)} characters; the kubelet takes 1 to {MAX_ID}.")
    total, fits = 0, 0
    sizes: dict[tuple[int, tuple[int, ...]], int] = {}  # of few kinds there are many
    for device in offered:
        kind = (len(device.id.encode()), device.numa)
        if kind not in sizes:
            sizes[kind] = devices([device._replace(healthy=False)]).ByteSize()
        total += sizes[kind]
        fits += total <= MAX_BYTES
    if total > MAX_BYTES:
        raise TooMany(
            f"{name}: {len(offered)} devices are {total} bytes in one message, and the kubelet takes {MAX_BYTES}; "
            f"it would show none of them. At most {fits} of these fit."
        )


def answer(given: Answer) -> api.ContainerAllocateResponse:
    """What one container gets."""
    response = api.ContainerAllocateResponse(envs=given.environment, annotations=given.annotations)
    for mount in given.mounts:
        response.mounts.add(container_path=mount.container_path, host_path=mount.host_path, read_only=mount.read_only)
    for node in given.nodes:
        response.devices.add(container_path=node.container_path, host_path=node.host_path, permissions=node.permissions)
    for name in given.cdi:
        response.cdi_devices.add(name=name)
    return response
