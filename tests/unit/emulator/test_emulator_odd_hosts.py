# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Devices as badly set up hosts have them: asleep, without power, without BARs, reset in other ways."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable

import pytest
from emulator import Emulator, Node, NodeError
from emulator_node import ALL_ONES, AT_ONCE, COLD, HOPPER, NEW_SWITCH, NO_BAR0, NO_BARS, NO_CCD, SOFT
from vfio_client import (
    BAR0,
    CONFIG,
    INVALID_KNOB,
    Client,
    Emem,
    Refused,
    capabilities,
    exchange,
    poll,
    read_command,
    read_knob,
    write_command,
)

Connect = Callable[..., Client]
ONES = 0xFFFFFFFF
BAR1 = 2
BOOT = 0x180000A1


def flr(client: Client) -> None:
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, client.read(CONFIG, control, 2) | 0x8000, 2)


# --- power


def test_waking_without_no_soft_reset_loses_the_registers(connect: Connect, emulator: Emulator) -> None:
    client = connect(SOFT)
    pmcsr = capabilities(client)[1] + 4
    assert client.read(CONFIG, pmcsr, 2) == 3
    emulator.control.set(SOFT, knobs={"CCM": 0})
    bars = client.read(CONFIG, 0x10, 8)
    client.write(CONFIG, pmcsr, 0, 2)
    assert client.read(CONFIG, pmcsr, 2) == 0
    assert (client.read(CONFIG, 4, 2), client.read(CONFIG, 0x10, 8)) == (0, 0xC)
    client.write(CONFIG, 0x10, bars, 8)
    client.write(CONFIG, 4, 2, 2)
    poll(lambda: client.read(BAR0, 0x200BC) == 0xFF)
    assert emulator.control.state(SOFT)["mode"] == "off"
    assert [entry["kind"] for entry in emulator.control.trace(SOFT) if entry["op"] == "reset"] == ["d3hot"]


def test_going_to_sleep_and_staying_there_resets_nothing(connect: Connect, emulator: Emulator) -> None:
    client = connect(SOFT)
    pmcsr = capabilities(client)[1] + 4
    client.write(CONFIG, pmcsr, 3, 2)
    assert emulator.control.state(SOFT)["counters"]["resets"] == 0
    client.write(CONFIG, pmcsr, 0, 2)
    client.write(CONFIG, pmcsr, 0, 2)
    assert emulator.control.state(SOFT)["counters"]["resets"] == 1


def test_waking_with_no_soft_reset_keeps_the_registers(connect: Connect, emulator: Emulator) -> None:
    client = connect(HOPPER)
    pmcsr = capabilities(client)[1] + 4
    assert client.read(CONFIG, pmcsr, 2) == 8
    client.write(BAR0, 0x1458, 7)
    for state in (3, 0):
        client.write(CONFIG, pmcsr, state, 2)
    assert client.read(BAR0, 0x1458) == 7
    assert emulator.control.state(HOPPER)["counters"]["resets"] == 0


def test_without_power_nothing_answers(connect: Connect, emulator: Emulator) -> None:
    client = connect(COLD)
    assert client.read_bytes(CONFIG, 0, 4096) == b"\xff" * 4096
    client.write(CONFIG, 0x64, 0, 2)
    assert client.read(BAR0, 0) == ONES
    state = emulator.control.state(COLD)
    assert (state["power"], state["answers"], state["booted"]) == ("D3cold", False, False)


@pytest.mark.parametrize("how", ["slot reset", "power cycle", "set power"])
def test_power_comes_back(connect: Connect, emulator: Emulator, how: str) -> None:
    if how == "slot reset":
        connect(COLD).reset()
    elif how == "power cycle":
        emulator.control.power_cycle(COLD)
    else:
        emulator.control.set(COLD, power="d0")
    poll(lambda: emulator.control.state(COLD)["booted"])
    client = connect(COLD) if how != "slot reset" else None
    config = emulator.control.config(COLD)
    assert (config[:4], config[4]) == (b"\xde\x10\x31\x23", 6)
    assert emulator.control.state(COLD)["mode"] == "on"
    if client is not None:
        assert client.read(BAR0, 0) == BOOT


def test_power_states_can_be_set(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    client.write(BAR0, 0x1458, 7)
    emulator.control.set(HOPPER, power="d3hot")
    assert client.read(BAR0, 0) == ONES
    emulator.control.set(HOPPER, power="d0")
    assert client.read(BAR0, 0x1458) == 7
    emulator.control.set(HOPPER, power="d3cold")
    assert client.read(CONFIG, 0) == ONES
    emulator.control.set(HOPPER, power="d0")
    poll(lambda: emulator.control.state(HOPPER)["booted"])
    assert client.read(BAR0, 0x1458) == 0


# --- resets


@pytest.mark.parametrize(("address", "seen"), [(HOPPER, 0xFFFF0001), (ALL_ONES, ONES), (AT_ONCE, 0x233110DE)])
def test_what_config_space_reads_during_a_reset(connect_unhurried: Connect, address: str, seen: int) -> None:
    client = connect_unhurried(address)
    flr(client)
    assert client.read(CONFIG, 0) == seen
    poll(lambda: client.read(CONFIG, 0) & 0xFFFF == 0x10DE)
    client.write(CONFIG, 4, 2, 2)
    poll(lambda: client.read(BAR0, 0x200BC) == 0xFF)


# --- BARs


def region_size(client: Client, index: int) -> int:
    body = client.call(5, struct.pack("<IIIIQQ", 32, 0, index, 0, 0, 0))
    return int(struct.unpack("<IIIIQQ", body)[4])


@pytest.mark.parametrize(("address", "missing"), [(NO_BAR0, [BAR0]), (NO_BARS, [BAR0, BAR1])])
def test_bars_without_an_address(connect: Connect, emulator: Emulator, address: str, missing: list[int]) -> None:
    client = connect(address)
    for region in (BAR0, BAR1):
        assert (client.read(CONFIG, 0x10 + 4 * region, 8) == 0xC) == (region in missing)
        assert region_size(client, region) == region_size(connect(HOPPER), region) if region == BAR0 else True
        if region in missing:
            for access in (lambda: client.read(region, 0), lambda: client.write(region, 0, 0)):  # noqa: B023
                with pytest.raises(Refused) as caught:
                    access()
                assert caught.value.errno == errno.EINVAL
        else:
            assert client.read(region, 0) == 0
    client.write(CONFIG, 0x10, ONES)
    assert client.read(CONFIG, 0x10) == ONES << 24 & ONES | 0xC


# --- knobs and models


@pytest.mark.parametrize("knob", [6, 34])
def test_knobs_that_the_firmware_does_not_know(connect: Connect, emulator: Emulator, knob: int) -> None:
    port = Emem(connect(NO_CCD))
    assert exchange(port, read_command(knob)) == [INVALID_KNOB]
    assert exchange(port, write_command(knob, 1)) == [INVALID_KNOB]
    assert read_knob(port, 8) == 0
    assert {"CCD", "34"}.isdisjoint(emulator.control.state(NO_CCD)["knobs"])


def test_a_switch_that_nobody_knows(connect: Connect) -> None:
    client = connect(NEW_SWITCH)
    assert client.read(CONFIG, 8) >> 8 == 0x068000
    assert client.read(BAR0, 0) not in (0x006000A1, 0x007000A1)
    assert region_size(client, BAR0) == 32 << 20


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("power", "d1"),
        ("during_reset", "maybe"),
        ("no_soft_reset", 1),
        ("unassigned_bars", [2]),
        ("unassigned_bars", 0),
        ("unassigned_bars", [True]),
        ("unknown_knobs", ["XYZ"]),
        ("unknown_knobs", "CCD"),
    ],
)
def test_keys_that_make_no_sense_are_refused(key: str, value: object) -> None:
    with pytest.raises(NodeError, match=key):
        Node.parse({"devices": [{"address": "0000:01:00.0", "model": "h200", key: value}]})
