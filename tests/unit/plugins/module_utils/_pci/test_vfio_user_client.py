# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The vfio-user client against a small device server that can misbehave in every way."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    InvalidRequest,
    NotPermitted,
)
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import SYSTEM_CLOCK
from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio_user
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import BarSpan
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import (
    Bar0Unreadable,
    DeviceBusy,
    DeviceGone,
    ResetFailed,
    ResetUnavailable,
)
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

ADDRESS = "0000:17:00.0"
HEADER = struct.Struct("<HHIII")


@contextlib.contextmanager
def opened(folder: Path, clock: Any = SYSTEM_CLOCK) -> Iterator[Any]:
    (function,) = VfioUserBus(str(folder), clock).find()
    function.open()
    try:
        yield function
    finally:
        function.close()


def only(folder: Path) -> Any:
    (function,) = VfioUserBus(str(folder)).find()
    return function


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that a test can sit out."""
    monkeypatch.setattr(vfio_user, "GREETING_TIMEOUT_S", 0.05)
    monkeypatch.setattr(vfio_user, "ANSWER_TIMEOUT_S", 0.05)


# --- finding ----------------------------------------------------------------------------------------------------------


def test_sockets_named_after_an_address_are_functions(tmp_path: Path) -> None:
    for name in (
        "0000:3b:00.0.sock",
        "0000:17:00.0.sock",
        "10000:01:00.0.sock",
        "control.sock",
        "17:00.0.sock",
        "notes",
    ):
        (tmp_path / name).touch()
    bus = VfioUserBus(str(tmp_path))
    assert [function.address for function in bus.find()] == ["0000:17:00.0", "0000:3b:00.0", "10000:01:00.0"]
    assert bus.name == "vfio-user:%s" % tmp_path


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="sockets .* cannot be listed: ENOENT"):
        VfioUserBus(str(tmp_path / "none")).find()


def test_the_lock_is_in_the_folder_or_where_everybody_may_write(tmp_path: Path) -> None:
    assert VfioUserBus(str(tmp_path)).lock_path() == str(tmp_path / ".confidential-gpu.lock")
    first = VfioUserBus("/proc/self").lock_path()  # not writable, not even by root
    assert not first.startswith("/proc")
    assert first == VfioUserBus("/proc/%d" % os.getpid()).lock_path()
    assert first != VfioUserBus("/proc/1").lock_path()


# --- a well-behaved server --------------------------------------------------------------------------------------------


def test_identity_is_learned_from_config_space(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    device_server(device_id=0x2330, class_code=0x030200)
    with opened(tmp_path) as function:
        function.open()  # a second time changes nothing
        assert (function.vendor_id, function.device_id, function.class_code) == (0x10DE, 0x2330, 0x030200)
        assert function.config.read32(0) == 0x233010DE
        assert function.config.size == 4096


def test_registers_are_read_and_written(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        bar = function.map_bar(0)
        bar.write32(0x40, 0x11223344)
        bar.write16(0x44, 0x5566)
        bar.write8(0x46, 0x1FF)
        assert (bar.read32(0x40), bar.read16(0x44), bar.read8(0x46)) == (0x11223344, 0x5566, 0xFF)
        function.map_bar(2).write8(0, 9)
    assert server.regions[0][0x40:0x47] == b"\x44\x33\x22\x11\x66\x55\xff"
    assert server.regions[2][0] == 9


@pytest.mark.parametrize(
    ("registers", "sizes", "spans"),
    [
        (
            (0xC, 0x20, 0x1000000C, 0x20),
            {0: 4096, 2: 256},
            [BarSpan(0x2000000000, 4096, True, 0), BarSpan(0x2010000000, 256, True, 2)],
        ),
        (
            (0xFE000000, 0xE0000008),
            {0: 4096, 1: 256},
            [BarSpan(0xFE000000, 4096, False, 0), BarSpan(0xE0000000, 256, False, 1)],
        ),
        (
            (0xFE000000, 0xC, 0x1, 0xE001),
            {0: 4096, 1: 256, 3: 32},
            [BarSpan(0xFE000000, 4096, False, 0), BarSpan(0x100000000, 256, True, 1)],
        ),
        (
            (0xC, 0x0, 0x1000000C, 0x20),
            {0: 4096, 2: 256},
            [BarSpan(0, 4096, True, 0), BarSpan(0x2010000000, 256, True, 2)],
        ),
    ],
    ids=["64-bit", "32-bit", "mixed-and-io", "no-address"],
)
def test_memory_bars(
    tmp_path: Path,
    device_server: Callable[..., Any],
    registers: tuple[int, ...],
    sizes: dict[int, int],
    spans: list[BarSpan],
) -> None:
    server = device_server()
    server.config[0x10:0x28] = bytes(24)
    struct.pack_into("<%dI" % len(registers), server.config, 0x10, *registers)
    server.regions = {7: server.config, **{index: bytearray(size) for index, size in sizes.items()}}
    with opened(tmp_path) as function:
        assert function.bars() == spans


def test_the_last_bar_has_no_upper_half(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    server = device_server()
    server.config[0x10:0x28] = bytes(24)
    struct.pack_into("<II", server.config, 0x24, 0x80000004, 0xFFFFFFFF)
    server.regions = {5: bytearray(16), 7: server.config}
    with opened(tmp_path) as function:
        assert [span[:2] for span in function.bars()] == [(0x80000000, 16)]


@pytest.mark.parametrize("register", [0xE001, 0xC, 0x0], ids=["io", "64-bit", "32-bit"])
def test_the_next_bar_is_not_taken_for_one_that_has_no_address(
    tmp_path: Path, device_server: Callable[..., Any], register: int
) -> None:
    server = device_server()
    server.config[0x10:0x28] = bytes(24)
    struct.pack_into("<III", server.config, 0x10, register, 0, 0xFE000000)
    server.regions = {0: bytearray(32), 2: bytearray(4096), 7: server.config}
    server.refused = {0}
    with opened(tmp_path) as function:
        with pytest.raises(Bar0Unreadable) as caught:
            function.map_bar(0)
        assert "%s: BAR0 has no address" % ADDRESS in caught.value.cause
        assert caught.value.seen == {"device": ADDRESS, "bar": 0}
        function.map_bar(2).write32(0, 0x11223344)
    assert server.regions[2][:4] == b"\x44\x33\x22\x11"


def test_a_bar_whose_address_a_reset_took_is_reached_all_the_same(
    tmp_path: Path, device_server: Callable[..., Any]
) -> None:
    """As a run leaves it that is killed between its reset and what has to be written again after it."""
    server = device_server()
    server.config[0x10:0x20] = struct.pack("<IIII", 0xC, 0, 0xC, 0)
    server.regions[0][:4] = b"\x44\x33\x22\x11"
    with opened(tmp_path) as function:
        assert function.map_bar(0).read32(0) == 0x11223344


def test_nothing_works_before_it_is_opened(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    device_server()
    function = only(tmp_path)
    with pytest.raises(RuntimeError, match="open"):
        _ = function.config
    function.open()
    function.close()
    with pytest.raises(RuntimeError, match="open"):
        function.map_bar(0)


def test_messages_of_the_servers_own_are_refused_and_answers_still_found(
    tmp_path: Path, device_server: Callable[..., Any]
) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        server.prelude = HEADER.pack(77, 11, HEADER.size + 8, 0, 0) + bytes(
            8
        )  # DMA_READ, in one segment with the answer
        assert function.config.read16(0) == 0x10DE
        server.prelude = HEADER.pack(900, 9, HEADER.size, 1, 0)  # the answer to a question that was given up
        assert function.config.read16(0) == 0x10DE
        assert function.config.read16(2) == 0x2331
    assert server.client_left.wait(10)
    assert server.refusals == [(77, 11, errno.ENOTSUP)]


def test_an_answer_in_pieces(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    path = tmp_path / "0000:17:00.0.sock"
    with ours, theirs, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        connection = vfio_user.Connection(str(path), ADDRESS)
        peer, _ = listener.accept()
        with peer:
            answer = HEADER.pack(1, 13, HEADER.size + 8, 1, 0) + b"12345678"
            for piece in (answer[:5], answer[5:20], answer[20:]):
                peer.sendall(piece)
            assert connection.call(vfio_user.DEVICE_RESET, b"") == b"12345678"
        connection.close()


@contextlib.contextmanager
def connected(folder: Path) -> Iterator[tuple[vfio_user.Connection, socket.socket]]:
    """A connection that has not greeted, and the other end of it."""
    path = folder / "0000:17:00.0.sock"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(1)
        connection = vfio_user.Connection(str(path), ADDRESS)
        stack.callback(connection.close)
        peer, _ = listener.accept()
        yield connection, stack.enter_context(peer)


def test_an_answer_half_of_which_comes_too_late(tmp_path: Path) -> None:
    with connected(tmp_path) as (connection, peer):
        late = HEADER.pack(1, 13, HEADER.size + 8, 1, 0) + b"too late"
        peer.sendall(late[:20])
        with pytest.raises(socket.timeout):
            connection.call(vfio_user.DEVICE_RESET, b"", timeout_s=0.05)
        peer.sendall(late[20:] + HEADER.pack(2, 13, HEADER.size + 4, 1, 0) + b"next")
        assert connection.call(vfio_user.DEVICE_RESET, b"") == b"next"


def test_a_server_that_drips_does_not_hold_its_client(tmp_path: Path) -> None:
    with connected(tmp_path) as (connection, peer):
        gave_up = threading.Event()

        def drip() -> None:
            for _piece in range(1000):
                peer.sendall(HEADER.pack(77, 9, HEADER.size, 1, 0))  # whole answers to nothing that was asked
                if gave_up.wait(0.02):
                    return

        dripping = threading.Thread(target=drip)
        dripping.start()
        with pytest.raises(socket.timeout):
            connection.call(vfio_user.DEVICE_RESET, b"", timeout_s=0.1)
        assert dripping.is_alive()
        gave_up.set()
        dripping.join()


# --- who may connect, and when ----------------------------------------------------------------------------------------


def test_a_server_that_serves_somebody_else(tmp_path: Path, device_server: Callable[..., Any], impatient: None) -> None:
    server = device_server()
    with opened(tmp_path):
        with pytest.raises(DeviceBusy) as caught:
            only(tmp_path).open()
        assert "0000:17:00.0: the device's server does not greet: it serves another client" in caught.value.cause
        assert "busy: wait" in caught.value.remedy
        assert caught.value.retryable
    assert server.client_left.wait(10)
    with opened(tmp_path) as function:
        assert function.device_id == 0x2331


def test_a_server_whose_queue_of_clients_is_full(tmp_path: Path, impatient: None) -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "0000:17:00.0.sock"))
        listener.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(str(tmp_path / "0000:17:00.0.sock"))
        with pytest.raises(DeviceBusy):
            only(tmp_path).open()


def test_a_stale_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "0000:17:00.0.sock"))
    with pytest.raises(DeviceGone) as caught:
        only(tmp_path).open()
    assert "ECONNREFUSED" in caught.value.cause
    assert "stale socket" in caught.value.remedy


def test_a_socket_of_somebody_else(tmp_path: Path, device_server: Callable[..., Any], unprivileged: Any) -> None:
    device_server()
    function = only(tmp_path)
    (tmp_path / "0000:17:00.0.sock").chmod(0)
    with unprivileged(), pytest.raises(NotPermitted) as caught:
        function.open()
    assert "EACCES" in caught.value.cause
    assert caught.value.seen == {"device": ADDRESS, "errno": errno.EACCES}


# --- a server that breaks the protocol --------------------------------------------------------------------------------


def raiser(error: Exception) -> Callable[[bytes], bytes]:
    def handler(_body: bytes) -> bytes:
        raise error

    return handler


@pytest.mark.parametrize(
    ("command", "answer", "words"),
    [
        (vfio_user.VERSION, struct.pack("<HH", 1, 0) + b"{}\0", "greets with 01000000"),
        (vfio_user.VERSION, b"\0", "greets with 00"),
        (vfio_user.DEVICE_GET_INFO, struct.pack("<IIII", 16, 3, 6, 0), "6 regions, so no config space"),
        (vfio_user.DEVICE_GET_INFO, b"\0\0", "answers that cannot be taken apart"),
        (vfio_user.DEVICE_GET_REGION_INFO, b"", "answers that cannot be taken apart"),
        (vfio_user.REGION_READ, bytes(17), "a read of 4 bytes is answered with 1"),
    ],
)
def test_garbled_answers_while_opening(
    tmp_path: Path, device_server: Callable[..., Any], command: int, answer: bytes, words: str
) -> None:
    server = device_server()
    server.handlers[command] = lambda _body: answer
    function = only(tmp_path)
    with pytest.raises(DeviceGone) as caught:
        function.open()
    assert words in caught.value.cause
    assert "protocol 0.x" in caught.value.remedy
    assert server.client_left.wait(10), "the connection was left open"


@pytest.mark.parametrize("command", [vfio_user.VERSION, vfio_user.DEVICE_GET_INFO, vfio_user.DEVICE_GET_REGION_INFO])
def test_a_server_that_refuses_to_be_opened(
    tmp_path: Path, device_server: Callable[..., Any], fakes: Any, command: int
) -> None:
    server = device_server()
    server.handlers[command] = raiser(fakes.Refuse(errno.EINVAL))
    with pytest.raises(DeviceGone, match="0000:17:00.0: .*EINVAL"):
        only(tmp_path).open()
    assert server.client_left.wait(10)


@pytest.mark.parametrize("size", [8, 1 << 24])
def test_a_message_of_impossible_length(tmp_path: Path, device_server: Callable[..., Any], size: int) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        server.prelude = HEADER.pack(1, 9, size, 1, 0)
        with pytest.raises(DeviceGone, match="claims %d bytes" % size):
            function.config.read16(0)


def test_a_server_that_hangs_up(tmp_path: Path, device_server: Callable[..., Any], fakes: Any) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        server.handlers[vfio_user.REGION_READ] = raiser(fakes.HangUp())
        with pytest.raises(DeviceGone) as caught:
            function.config.read16(0)
    assert "hung up" in caught.value.cause
    assert "log" in caught.value.remedy


def test_a_server_that_falls_silent(
    tmp_path: Path, device_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = device_server()
    test_over = threading.Event()

    def silent(_body: bytes) -> bytes:
        test_over.wait(10)
        return b""

    with opened(tmp_path) as function:
        bar = function.map_bar(0)
        server.handlers[vfio_user.REGION_READ] = silent
        monkeypatch.setattr(vfio_user, "ANSWER_TIMEOUT_S", 0.05)
        with pytest.raises(DeviceGone) as caught:
            bar.read32(0x40)
        test_over.set()
    assert "no answer to a read of BAR0 at 0x40 within 0.05 s" in caught.value.cause
    assert caught.value.seen == {"device": ADDRESS, "register": 0x40}


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EPERM, Bar0Unreadable, "BAR0 cannot be {} at 0x40: EPERM"),
        (errno.EACCES, Bar0Unreadable, "BAR0 cannot be {} at 0x40: EACCES"),
        (errno.EIO, DeviceGone, "of BAR0 at 0x40 fails: EIO"),
        (errno.EBUSY, DeviceGone, "of BAR0 at 0x40 fails: EBUSY"),
    ],
)
def test_errno_answers_to_accesses(
    tmp_path: Path, device_server: Callable[..., Any], fakes: Any, number: int, kind: type[ExplainedError], words: str
) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        bar = function.map_bar(0)
        server.handlers[vfio_user.REGION_READ] = server.handlers[vfio_user.REGION_WRITE] = raiser(fakes.Refuse(number))
        for verb, access in (("read", lambda bar: bar.read32(0x40)), ("written", lambda bar: bar.write32(0x40, 1))):
            with pytest.raises(kind) as caught:
                access(bar)
            assert words.format(verb) in str(caught.value)
            assert caught.value.seen == {"device": ADDRESS, "register": 0x40, "errno": number}


def test_the_place_is_named(tmp_path: Path, device_server: Callable[..., Any], fakes: Any) -> None:
    server = device_server()
    with opened(tmp_path) as function:
        bar = function.map_bar(2)
        server.handlers[vfio_user.REGION_READ] = raiser(fakes.Refuse(errno.EIO))
        with pytest.raises(DeviceGone, match="a read of config space at 0xf0 fails"):
            function.config.read16(0xF0)
        with pytest.raises(DeviceGone, match="a read of region 2 at 0x0 fails"):
            bar.read8(0)


# --- reset ------------------------------------------------------------------------------------------------------------


def test_function_level_reset_saves_and_restores_what_it_takes(
    tmp_path: Path, device_server: Callable[..., Any], clock: Any
) -> None:
    server = device_server()
    server.config[0x68:0x6A] = b"\x10\x00"  # relaxed ordering: the reset takes it, too
    before = bytes(server.config)
    with opened(tmp_path, clock) as function:
        assert function.reset_method() == "flr"
        function.reset()
    assert server.flr_count == 1
    assert bytes(server.config) == before
    assert vfio_user.DEVICE_RESET not in server.commands
    assert clock.sleeps[0] == vfio_user.FLR_TIME_S
    assert len(clock.sleeps) > 1, "config space was not waited for"


def test_a_device_that_does_not_come_back(tmp_path: Path, device_server: Callable[..., Any], clock: Any) -> None:
    server = device_server()
    with opened(tmp_path, clock) as function:
        clock.at(vfio_user.FLR_TIME_S, lambda: setattr(server, "dark_reads", 10**9))
        with pytest.raises(DeviceGone, match="did not answer within 60 s after a reset"):
            function.reset()


def test_the_server_resets_what_cannot_do_it_itself(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    server = device_server(flr=False)
    with opened(tmp_path) as function:
        assert function.reset_method() == "server"
        function.reset()
    assert server.commands.count(vfio_user.DEVICE_RESET) == 1


def test_no_way_to_reset(tmp_path: Path, device_server: Callable[..., Any]) -> None:
    server = device_server(flr=False)
    server.flags = 0x2
    with opened(tmp_path) as function:
        assert function.reset_method() is None
        with pytest.raises(ResetUnavailable, match="0000:17:00.0: there is no way to reset"):
            function.reset()


def test_a_reset_that_the_server_refuses(tmp_path: Path, device_server: Callable[..., Any], fakes: Any) -> None:
    server = device_server(flr=False)
    server.handlers[vfio_user.DEVICE_RESET] = raiser(fakes.Refuse(errno.EBUSY))
    with opened(tmp_path) as function, pytest.raises(ResetFailed) as caught:
        function.reset()
    assert "refused with EBUSY (Device or resource busy); bound driver: none" in caught.value.cause
    assert caught.value.seen["errno"] == errno.EBUSY
