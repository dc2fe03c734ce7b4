# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What software sees before it touches a BAR: identity, capabilities, BAR sizes, power, resets."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from emulator import Emulator
from emulator_node import A100, ASLEEP, B200, HOPPER, OLD, RTX, SWITCH
from vfio_client import BAR0, CONFIG, Client, capabilities, extended_capabilities, poll

Connect = Callable[..., Client]
ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("address", "device", "subsystem", "class_code", "boot_0"),
    [
        (HOPPER, 0x2330, 0x16C1, 0x030200, 0x180000A1),
        (SWITCH, 0x22A3, 0x1796, 0x068000, 0x007000A1),
        (B200, 0x2901, 0x1999, 0x030200, 0x1A0000A1),
        (RTX, 0x2BB1, 0x204B, 0x030000, 0x1B2000A1),
        (A100, 0x20B5, 0x1533, 0x030200, 0x170000A1),
    ],
)
def test_identity(connect: Connect, address: str, device: int, subsystem: int, class_code: int, boot_0: int) -> None:
    client = connect(address)
    assert client.read(CONFIG, 0) == device << 16 | 0x10DE
    assert client.read(CONFIG, 0x2C) == subsystem << 16 | 0x10DE
    assert client.read(CONFIG, 8) >> 8 == class_code
    assert client.read(CONFIG, 0xE, 1) == 0
    assert client.read(CONFIG, 0xF0, 2) != 0xFFFF
    assert client.read(BAR0, 0) == boot_0


def test_every_device_has_its_own_unique_id(connect: Connect) -> None:
    ids = [connect(address).read(BAR0, 0x820344, 8) for address in (HOPPER, SWITCH, B200, RTX, OLD, A100)]
    assert len(set(ids)) == len(ids)


def test_capabilities(connect: Connect) -> None:
    client = connect(HOPPER)
    found = capabilities(client)
    assert set(found) == {0x01, 0x10}
    assert client.read(CONFIG, found[0x10] + 2, 2) >> 4 & 0xF == 0
    assert client.read(CONFIG, found[0x10] + 4) >> 28 & 1
    assert set(extended_capabilities(client)) == {0x03, 0x0B}


def test_health_capability_of_blackwell(connect: Connect) -> None:
    gb100, gb202 = connect(B200), connect(RTX)
    at = extended_capabilities(gb100)[0x23]
    assert gb100.read(CONFIG, at + 4) & 0xFFFF == 0x10DE
    assert gb100.read(CONFIG, at + 8) & 0xFFFF == 0
    at = extended_capabilities(gb202)[0x0B]
    assert gb202.read(CONFIG, at + 4) & 0xFFFFF == 0x10001


@pytest.mark.parametrize(("address", "size"), [(HOPPER, 16 << 20), (SWITCH, 32 << 20)])
def test_bar_sizing(connect: Connect, address: str, size: int) -> None:
    client = connect(address)
    low, high = client.read(CONFIG, 0x10), client.read(CONFIG, 0x14)
    assert low & 0xF == 0xC
    assert high or low & ~0xF
    client.write(CONFIG, 0x10, ONES)
    client.write(CONFIG, 0x14, ONES)
    mask = client.read(CONFIG, 0x10, 8) & ~0xF
    client.write(CONFIG, 0x10, low)
    client.write(CONFIG, 0x14, high)
    assert (~mask & (1 << 64) - 1) + 1 == size
    assert client.read(CONFIG, 0x10) == low


def test_read_only_bits_cannot_be_written(connect: Connect) -> None:
    client = connect()
    before = client.read(CONFIG, 0)
    client.write(CONFIG, 0, 0)
    client.write(CONFIG, 4, ONES)
    assert client.read(CONFIG, 0) == before
    assert client.read(CONFIG, 4) == 0x00100546


def test_any_access_size(connect: Connect) -> None:
    client = connect()
    whole = client.read_bytes(BAR0, 0, 8)
    assert whole[:4] == (0x180000A1).to_bytes(4, "little")
    assert client.read_bytes(BAR0, 1, 2) == whole[1:3]
    assert client.read(BAR0, 3, 1) == 0x18
    assert client.read_bytes(BAR0, 0, 64)[:8] == whole
    assert len(client.read_bytes(CONFIG, 0, 4096)) == 4096


def test_unmapped_registers_give_bus_errors_and_drop_writes(connect: Connect) -> None:
    client = connect()
    client.write(BAR0, 0x500000, 1)
    assert client.read(BAR0, 0x500000) >> 16 == 0xBADF


def test_bars_need_memory_decode(connect: Connect) -> None:
    client = connect()
    client.write(CONFIG, 4, 0, 2)
    assert client.read(BAR0, 0) == ONES
    client.write(CONFIG, 4, 2, 2)
    assert client.read(BAR0, 0) == 0x180000A1


def test_bars_need_d0(connect: Connect) -> None:
    client = connect(ASLEEP)
    pmcsr = capabilities(client)[1] + 4
    assert client.read(CONFIG, pmcsr, 2) & 3 == 3
    client.write(CONFIG, 4, 2, 2)
    assert client.read(BAR0, 0) == ONES
    client.write(CONFIG, pmcsr, 0, 2)
    assert client.read(BAR0, 0) == 0x180000A1


def test_module_straps(connect: Connect) -> None:
    client = connect(HOPPER)
    bits = [client.read(BAR0, offset) >> 14 & 1 for offset in (0x21224, 0x21244, 0x21248)]
    assert (bits[0] | bits[1] << 1 | bits[2] << 2) ^ 4 == 3


def test_switch_module_straps(connect: Connect) -> None:
    client = connect(SWITCH)
    client.write(BAR0, 0xD740, 1)
    assert client.read(BAR0, 0xD740) == 1


def flr(client: Client) -> None:
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, client.read(CONFIG, control, 2) | 0x8000, 2)


def test_function_level_reset(connect_unhurried: Connect) -> None:
    client = connect_unhurried()
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, 0x2950, 2)
    client.write(BAR0, 0x1458, 7)
    client.write(BAR0, 0x91288, 7)
    started = time.monotonic()
    flr(client)
    assert client.read(CONFIG, 0xF0, 2) == 0xFFFF
    assert client.read(CONFIG, 0) == 0xFFFF0001
    assert client.read(BAR0, 0) == ONES
    poll(lambda: client.read(CONFIG, 0xF0, 2) == 0)
    assert time.monotonic() - started >= 0.4
    assert client.read(CONFIG, 4, 2) == 0
    assert client.read(CONFIG, 0x10) == 0xC
    assert client.read(CONFIG, control, 2) & 0x80E0 == 0x0040
    client.write(CONFIG, 4, 2, 2)
    assert client.read(BAR0, 0x1458) == 0
    assert client.read(BAR0, 0x91288) == 7


def test_a_device_without_flr_ignores_the_bit(connect: Connect) -> None:
    client = connect(OLD)
    assert not client.read(CONFIG, capabilities(client)[0x10] + 4) >> 28 & 1
    flr(client)
    assert client.read(CONFIG, 0xF0, 2) == 0


def test_bus_reset_answers_late_and_restores_config_space(connect: Connect) -> None:
    client = connect()
    bars = client.read(CONFIG, 0x10, 8)
    client.write(BAR0, 0x91288, 7)
    started = time.monotonic()
    client.reset()
    assert time.monotonic() - started >= 0.02
    assert client.read(CONFIG, 0x10, 8) == bars
    assert client.read(BAR0, 0) == 0x180000A1
    assert client.read(BAR0, 0x91288) == 0


@pytest.mark.parametrize(
    ("address", "register"), [(HOPPER, 0x200BC), (SWITCH, 0x660BC), (B200, 0x200BC), (RTX, 0xAD00BC)]
)
def test_boot_takes_its_time(connect_unhurried: Connect, unhurried: Emulator, address: str, register: int) -> None:
    client = connect_unhurried(address)
    assert client.read(BAR0, register) == 0xFF
    client.reset()
    assert client.read(BAR0, register) != 0xFF
    poll(lambda: client.read(BAR0, register) == 0xFF)
    counters = unhurried.control.state(address)["counters"]
    assert counters["resets"] == counters["boots"] == 1


@pytest.mark.parametrize(("address", "capability", "offset", "bit"), [(B200, 0x23, 0x08, 20), (RTX, 0x0B, 0x14, 24)])
def test_bar_firewall_after_a_reset(
    connect_unhurried: Connect, address: str, capability: int, offset: int, bit: int
) -> None:
    client = connect_unhurried(address)
    at = extended_capabilities(client)[capability] + offset
    client.reset()
    assert client.read(CONFIG, at) >> bit & 1
    assert client.read(BAR0, 0) == ONES
    poll(lambda: not client.read(CONFIG, at) >> bit & 1)
    assert client.read(BAR0, 0) != ONES
