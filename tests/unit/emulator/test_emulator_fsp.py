# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Knobs over both transports, and how a reset makes the pending mode the active one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from emulator import Emulator
from emulator_node import ASLEEP, B200, HOPPER, OLD, RTX, SWITCH
from vfio_client import (
    BAR0,
    INVALID_KNOB,
    Client,
    Emem,
    Mnoc,
    exchange,
    message,
    poll,
    read_command,
    read_knob,
    write_command,
    write_knob,
)

Connect = Callable[..., Client]
CCD, CCM, DECOUPLER, PPCIE = 6, 8, 10, 45
FAMILIES = [(HOPPER, Emem), (SWITCH, Emem), (B200, Mnoc), (RTX, Mnoc)]


@pytest.mark.parametrize(("address", "transport"), FAMILIES)
def test_knob_round_trip(connect: Connect, emulator: Emulator, address: str, transport: type[Emem | Mnoc]) -> None:
    port = transport(connect(address))
    assert [read_knob(port, knob) for knob in (CCM, CCM - 1, 33, 34)] == [0, 1, 1, 0]
    assert write_knob(port, CCM, 1) == 0
    assert read_knob(port, CCM) == 1
    counters = emulator.control.state(address)["counters"]
    assert (counters["knob_reads"], counters["knob_writes"], counters["rpcs"]) == (5, 1, 6)


@pytest.mark.parametrize(("address", "transport"), FAMILIES)
def test_upper_half_of_a_value_is_noise(connect: Connect, address: str, transport: type[Emem | Mnoc]) -> None:
    port = transport(connect(address))
    assert exchange(port, read_command(CCM))[1] >> 16


@pytest.mark.parametrize(
    ("address", "transport", "knob"),
    [(HOPPER, Emem, 11), (OLD, Emem, PPCIE), (SWITCH, Emem, 47), (B200, Mnoc, PPCIE), (RTX, Mnoc, 99)],
)
def test_missing_knobs(connect: Connect, address: str, transport: type[Emem | Mnoc], knob: int) -> None:
    port = transport(connect(address))
    assert exchange(port, read_command(knob)) == [INVALID_KNOB]
    assert exchange(port, write_command(knob, 1)) == [INVALID_KNOB]


def test_locked_knobs(connect: Connect) -> None:
    port = Emem(connect(OLD))
    assert write_knob(port, CCM, 1) == 0x1EA
    assert write_knob(port, CCM - 1, 1) == 0x1EA
    assert read_knob(port, CCM) == 0
    assert write_knob(port, CCD, 1) == 0


def test_channel_one_answers_too(connect: Connect) -> None:
    assert read_knob(Emem(connect(), channel=1), CCM) == 0


@pytest.mark.parametrize(("address", "transport"), [(HOPPER, Emem), (B200, Mnoc)])
def test_a_request_in_three_packets(connect: Connect, address: str, transport: type[Emem | Mnoc]) -> None:
    port = transport(connect(address))
    head, command, value = write_command(CCM, 1)[1:]
    for packet in ([1 << 31, head], [1 << 28, command]):
        port.post(packet)
        if isinstance(port, Emem):
            poll(port.queue_empty)
    assert exchange(port, [1 << 30 | 2 << 28, value]) == [0]
    assert read_knob(port, CCM) == 1


@pytest.mark.parametrize(
    "words",
    [
        [0xC0000001, *read_command(CCM)[1:]],
        [1 << 30 | 3 << 28, 0],
        message([0x0C | 0x2 << 8 | CCM << 16, 0]),
        message([0x55]),
        message([0], nvdm=0x77),
        [0xC0000000, 0],
    ],
    ids=["version", "sequence", "length", "command", "nvdm", "message type"],
)
@pytest.mark.parametrize(("address", "transport"), [(HOPPER, Emem), (B200, Mnoc)])
def test_malformed_requests_are_answered(
    connect: Connect, address: str, transport: type[Emem | Mnoc], words: list[int]
) -> None:
    port = transport(connect(address))
    assert exchange(port, words)[0] != 0
    assert read_knob(port, CCM) == 0


def test_a_second_command_waits_for_the_first_answer(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    # Command and answer share their memory: the answer comes when the second command is written.
    emulator.control.fault(event="knob_write", action="rpc_late", seconds=0.3)
    port.post(write_command(CCM, 1))
    port.post(read_command(CCM))
    assert not port.queue_empty()
    assert port.fetch()[4:] == [0]
    assert port.fetch()[5] & 0xFFFF == 1


def test_a_late_answer_stays_until_it_is_acknowledged(connect: Connect) -> None:
    first = connect()
    Emem(first).post(read_command(CCM))
    poll(Emem(first).answered)
    first.close()
    second = Emem(connect())
    assert second.answered()
    second.fetch()
    assert not second.answered()


def test_mnoc_reports_misuse_until_the_next_message(connect: Connect) -> None:
    client = connect(B200)
    port = Mnoc(client)
    client.write(BAR0, 0x8F1F88, 1)
    assert port.error()
    client.write(BAR0, 0x8F1F84, 3 | 1 << 20)
    assert port.error()
    assert read_knob(port, CCM) == 0
    assert not port.error()


@pytest.mark.parametrize(("address", "transport"), [(HOPPER, Emem), (B200, Mnoc)])
def test_a_reset_empties_the_queues_and_keeps_the_knobs(
    connect: Connect, emulator: Emulator, address: str, transport: type[Emem | Mnoc]
) -> None:
    client = connect(address)
    port = transport(client)
    write_knob(port, CCM, 1)
    port.post(read_command(CCM))
    client.reset()
    poll(lambda: emulator.control.state(address)["booted"])
    assert not port.answered()
    assert read_knob(port, CCM) == 1


def test_the_fsp_is_silent_until_it_has_booted(connect_unhurried: Connect) -> None:
    client = connect_unhurried()
    port = Emem(client)
    client.reset()
    port.post(read_command(CCM))
    assert not port.queue_empty()
    assert client.read(BAR0, 0x200BC) != 0xFF
    poll(lambda: client.read(BAR0, 0x200BC) == 0xFF)
    assert port.fetch()[4] == 0


@pytest.mark.parametrize(
    ("address", "transport", "knobs", "register", "shown"),
    [
        (HOPPER, Emem, {CCM: 1}, 0x1182CC, 0x01),
        (HOPPER, Emem, {CCM: 1, CCD: 1}, 0x1182CC, 0x03),
        (HOPPER, Emem, {CCD: 1}, 0x1182CC, 0x02),
        (HOPPER, Emem, {CCM: 1, PPCIE: 1}, 0x1182CC, 0x20),
        (HOPPER, Emem, {CCM: 1, 34: 1}, 0x1182CC, 0x00),
        (SWITCH, Emem, {PPCIE: 1}, 0x28C50, 0x01),
        (B200, Mnoc, {CCM: 1, CCD: 1}, 0x590, 0x03),
        (RTX, Mnoc, {CCM: 1, DECOUPLER: 2}, 0x590, 0x05),
    ],
)
def test_a_reset_latches_the_knobs(
    connect: Connect,
    emulator: Emulator,
    address: str,
    transport: type[Emem | Mnoc],
    knobs: dict[int, int],
    register: int,
    shown: int,
) -> None:
    client = connect(address)
    port = transport(client)
    for knob, value in knobs.items():
        assert write_knob(port, knob, value) == 0
    assert client.read(BAR0, register) == 0
    client.reset()
    poll(lambda: emulator.control.state(address)["booted"])
    assert client.read(BAR0, register) == shown


def test_the_bar0_filter_is_latched(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    write_knob(Emem(client), DECOUPLER, 2)
    assert not emulator.control.state(HOPPER)["active_bar0_filter"]
    client.reset()
    assert emulator.control.state(HOPPER)["active_bar0_filter"]


def test_a_device_starts_in_the_mode_of_its_knobs(emulator: Emulator) -> None:
    assert emulator.control.state(ASLEEP)["mode"] == "devtools"
