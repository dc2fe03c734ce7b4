# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kubelet's messages: made from what is written, with its names and numbers; and how many devices fit into one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from device_plugin import messages
from device_plugin.api import deviceplugin_pb2 as api
from device_plugin.source import Answer, Device, Mount, Node

FOLDER = Path(api.__file__).parent
# Message to its fields with their numbers, as the kubelet has them.
FIELDS = {
    "DevicePluginOptions": {"pre_start_required": 1, "get_preferred_allocation_available": 2},
    "RegisterRequest": {"version": 1, "endpoint": 2, "resource_name": 3, "options": 4},
    "ListAndWatchResponse": {"devices": 1},
    "Device": {"ID": 1, "health": 2, "topology": 3},
    "TopologyInfo": {"nodes": 1},
    "NUMANode": {"ID": 1},
    "PreStartContainerRequest": {"devices_ids": 1},
    "PreferredAllocationRequest": {"container_requests": 1},
    "ContainerPreferredAllocationRequest": {
        "available_deviceIDs": 1,
        "must_include_deviceIDs": 2,
        "allocation_size": 3,
    },
    "PreferredAllocationResponse": {"container_responses": 1},
    "ContainerPreferredAllocationResponse": {"deviceIDs": 1},
    "AllocateRequest": {"container_requests": 1},
    "ContainerAllocateRequest": {"devices_ids": 1},
    "AllocateResponse": {"container_responses": 1},
    "ContainerAllocateResponse": {"envs": 1, "mounts": 2, "devices": 3, "annotations": 4, "cdi_devices": 5},
    "Mount": {"container_path": 1, "host_path": 2, "read_only": 3},
    "DeviceSpec": {"container_path": 1, "host_path": 2, "permissions": 3},
    "CDIDevice": {"name": 1},
    "Empty": {},
    "PreStartContainerResponse": {},
}


@pytest.mark.parametrize("proto", sorted(FOLDER.glob("*.proto")), ids=lambda path: path.stem)
def test_what_was_made_is_of_the_text_as_it_is(proto: Path) -> None:
    digest = hashlib.sha256(proto.read_bytes()).hexdigest()
    for kind in ("_pb2.py", "_pb2.pyi", "_grpc.py"):
        assert digest in proto.with_name(proto.stem + kind).read_text(), "run make api"


def test_names_and_numbers_are_the_kubelets() -> None:
    made = {
        name: {field.name: field.number for field in message.fields}
        for name, message in api.DESCRIPTOR.message_types_by_name.items()
    }
    assert made == FIELDS
    assert api.DESCRIPTOR.package == "v1beta1"


def test_devices_with_their_health_and_nodes() -> None:
    told = messages.devices([Device("a"), Device("b", healthy=False, numa=(0, 1))])
    assert [(one.ID, one.health) for one in told.devices] == [("a", "Healthy"), ("b", "Unhealthy")]
    assert [node.ID for node in told.devices[1].topology.nodes] == [0, 1]
    assert not told.devices[0].HasField("topology")


def test_everything_that_a_container_can_get() -> None:
    told = messages.answer(
        Answer({"A": "1"}, [Mount("/in", "/out", True)], [Node("/dev/x", "/dev/y", "r")], {"k": "v"}, ["a/b=c"])
    )
    assert dict(told.envs) == {"A": "1"}
    assert (told.mounts[0].container_path, told.mounts[0].host_path, told.mounts[0].read_only) == ("/in", "/out", True)
    device = told.devices[0]
    assert (device.container_path, device.host_path, device.permissions) == ("/dev/x", "/dev/y", "r")
    assert dict(told.annotations) == {"k": "v"}
    assert [one.name for one in told.cdi_devices] == ["a/b=c"]


def test_the_number_that_fits_into_a_message_fits_and_one_more_does_not() -> None:
    devices = [Device(f"tdx-guest-{number}") for number in range(160_000)]
    with pytest.raises(messages.TooMany) as refused:
        messages.check("a.example/b", devices)
    fits = int(str(refused.value).split("At most ")[1].split()[0])
    assert "160000 devices" in str(refused.value)
    messages.check("a.example/b", devices[:fits])
    sick = [one._replace(healthy=False) for one in devices]
    assert messages.devices(sick[:fits]).ByteSize() <= messages.MAX_BYTES
    assert messages.devices(sick[: fits + 1]).ByteSize() > messages.MAX_BYTES


@pytest.mark.parametrize("ids", [["a" * 64], [""], ["a", "a"]])
def test_ids_that_a_kubelet_does_not_take(ids: list[str]) -> None:
    with pytest.raises(messages.BadId, match="a.example/b"):
        messages.check("a.example/b", [Device(one) for one in ids])


@pytest.mark.parametrize(("prefix", "numa"), [("tdx-guest-", ()), ("GPU-00000000-0000-4000-8000-000000000001::", (1,))])
def test_how_many_fit_is_known_without_making_them(prefix: str, numa: tuple[int, ...]) -> None:
    fits = messages.most(prefix, numa)
    messages.check("x/y", [Device(f"{prefix}{number}", True, numa) for number in range(fits)])
    with pytest.raises(messages.TooMany, match=f"At most {fits} "):
        messages.check("x/y", [Device(f"{prefix}{number}", True, numa) for number in range(fits + 1)])
