# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The vfio-user side: what any client may ask, and what a broken one gets."""

from __future__ import annotations

import array
import errno
import os
import socket
import struct
from collections.abc import Callable

import pytest
from emulator import Emulator
from emulator_node import HOPPER, SWITCH
from vfio_client import BAR0, CONFIG, Client, Refused

Connect = Callable[..., Client]


def test_version_offers_capabilities(connect: Connect) -> None:
    client = connect()
    assert struct.unpack("<HH", client.greeting[:4]) == (0, 0)
    assert client.greeted_with()["capabilities"]["max_data_xfer_size"] == 65536


def test_another_major_version_is_refused(connect: Connect) -> None:
    client = connect(greet=False)
    with pytest.raises(Refused):
        client.call(1, struct.pack("<HH", 1, 0) + b"{}\0")


def test_device_and_region_info(connect: Connect) -> None:
    client = connect(SWITCH)
    assert struct.unpack("<IIII", client.call(4, struct.pack("<IIII", 16, 0, 0, 0))) == (16, 3, 9, 5)
    sizes = {}
    for index in range(9):
        body = client.call(5, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
        _, flags, got, _, size, _ = struct.unpack("<IIIIQQ", body)
        assert got == index
        assert flags == (3 if size else 0)
        sizes[index] = size
    assert {index: size for index, size in sizes.items() if size} == {0: 32 << 20, 2: 256 << 20, 7: 4096}
    assert struct.unpack("<IIII", client.call(7, struct.pack("<IIII", 16, 0, 1, 0))) == (16, 0, 1, 0)
    with pytest.raises(Refused):
        client.call(5, struct.pack("<IIIIQQ", 32, 0, 9, 0, 0, 0))


def test_dma_and_irqs_are_accepted_and_descriptors_let_go(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    before = len(os.listdir(f"/proc/{emulator.pid}/fd"))
    body = struct.pack("<IIQQQ", 32, 3, 0, 0, 4096)
    handle = os.memfd_create("guest")
    packet = struct.pack("<HHIII", 9, 2, 16 + len(body), 0, 0) + body
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [handle]))]
    client.socket.sendmsg([packet], rights)
    os.close(handle)
    assert client.receive()[:2] == (9, 2)
    unmap = struct.pack("<IIQQ", 24, 0, 0, 4096)
    assert client.call(3, unmap) == unmap
    assert client.call(8, struct.pack("<IIIII", 20, 0, 0, 0, 0)) == b""
    assert len(os.listdir(f"/proc/{emulator.pid}/fd")) == before


def test_no_reply_is_honoured(connect: Connect) -> None:
    client = connect()
    client.send(10, struct.pack("<QII", 0x1458, BAR0, 4) + b"\x05\0\0\0", flags=0x10)
    assert client.read(BAR0, 0x1458) == 5


def test_requests_may_be_pipelined_and_arrive_in_pieces(connect: Connect) -> None:
    client = connect()
    one = struct.pack("<HHIIIQII", 1, 9, 32, 0, 0, 0, BAR0, 4)
    for byte in one:
        client.socket.sendall(bytes([byte]))
    client.socket.sendall(one * 3)
    assert [client.receive()[2][16:] for _ in range(4)] == [(0x180000A1).to_bytes(4, "little")] * 4


def test_requests_behind_a_reset_wait_for_it(connect: Connect) -> None:
    client = connect()
    client.send(13)
    client.send(9, struct.pack("<QII", 0xF0, CONFIG, 2))
    assert client.receive()[1] == 13
    assert client.receive()[2][16:] == b"\0\0"


def test_unknown_commands_get_enotsup(connect: Connect) -> None:
    client = connect()
    with pytest.raises(Refused) as caught:
        client.call(11, b"\0" * 16)
    assert caught.value.errno == errno.ENOTSUP
    assert client.read(BAR0, 0)


@pytest.mark.parametrize(
    ("region", "offset", "count"), [(0, 1 << 24, 4), (7, 4094, 4), (1, 0, 4), (77, 0, 4), (0, 0, 0)]
)
def test_accesses_outside_a_region_are_refused(connect: Connect, region: int, offset: int, count: int) -> None:
    with pytest.raises(Refused) as caught:
        connect().read(region, offset, count)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "junk",
    [
        struct.pack("<HHIII", 1, 9, 8, 0, 0),
        struct.pack("<HHIII", 1, 9, 1 << 30, 0, 0),
        struct.pack("<HHIII", 1, 9, 16, 1, 0),
        struct.pack("<HHIII", 1, 9, 20, 0, 0) + b"1234",
        struct.pack("<HHIIIQII", 1, 9, 32, 0, 0, 0, 0, 1 << 31),
        struct.pack("<HHIIIQII", 1, 10, 32, 0, 0, 0, 0, 4),
        struct.pack("<HHIII", 1, 4, 16, 0, 0),
        struct.pack("<HHIII", 1, 1, 18, 0, 0) + b"ab",
        struct.pack("<HHIIIHH", 1, 1, 24, 0, 0, 0, 0) + b"{no}",
        bytes(range(200, 216)) + b"\xff" * 64,
    ],
)
def test_malformed_messages_end_the_connection_and_nothing_else(connect: Connect, junk: bytes) -> None:
    client = connect()
    client.socket.sendall(junk)
    with pytest.raises((EOFError, ConnectionError)):
        client.receive()
    assert connect().read(BAR0, 0) == 0x180000A1


def test_a_request_before_version_ends_the_connection(connect: Connect) -> None:
    client = connect(greet=False)
    with pytest.raises((EOFError, ConnectionError)):
        client.reset()


def test_a_second_client_waits_until_the_first_is_gone(connect: Connect) -> None:
    first = connect()
    second = connect(greet=False)
    second.send(1, struct.pack("<HH", 0, 0) + b"{}\0")
    second.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        second.receive()
    assert first.read(BAR0, 0)
    first.close()
    second.socket.settimeout(5)
    assert second.receive()[1] == 1


def test_devices_do_not_share_clients(connect: Connect, emulator: Emulator) -> None:
    connect(HOPPER)
    assert connect(SWITCH).read(BAR0, 0)
    state = emulator.control.state()
    assert state[HOPPER]["pid"] == state[SWITCH]["pid"] == os.getpid()
