# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Virtual functions: how they are found, what they are, and what their physical function's reset does to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from emulator import ControlError, Emulator, Node, NodeError
from emulator_node import HOPPER, PHYSICAL, VIRTUAL
from vfio_client import BAR0, CONFIG, Client, Refused, capabilities, extended_capabilities, poll

Connect = Callable[..., Client]
ONES = 0xFFFFFFFF
SRIOV = 0x10


def routing_id(address: str) -> int:
    _segment, bus, rest = address.split(":")
    device, function = rest.split(".")
    return int(bus, 16) << 8 | int(device, 16) << 3 | int(function)


def test_the_physical_function_says_where_they_are(connect: Connect) -> None:
    client = connect(PHYSICAL)
    at = extended_capabilities(client)[SRIOV]
    count, first, stride = (client.read(CONFIG, at + offset, 2) for offset in (0x10, 0x14, 0x16))
    assert client.read(CONFIG, at + 8, 2) & 1
    assert client.read(CONFIG, at + 0x0E, 2) == count == 2
    found = [routing_id(PHYSICAL) + first + number * stride for number in range(count)]
    assert found == [routing_id(address) for address in VIRTUAL]
    assert client.read(CONFIG, at + 0x1A, 2) == client.read(CONFIG, 2, 2)


def test_other_devices_have_no_such_capability(connect: Connect) -> None:
    assert SRIOV not in extended_capabilities(connect(HOPPER))


def test_what_a_virtual_function_is(connect: Connect, emulator: Emulator) -> None:
    client, physical = connect(VIRTUAL[0]), connect(PHYSICAL)
    assert client.read(CONFIG, 0) == physical.read(CONFIG, 0)
    assert client.read(CONFIG, 8) >> 8 == 0x030200
    assert set(capabilities(client)) == {0x10}
    assert set(extended_capabilities(client)) == {0x0E}
    assert client.read(BAR0, 0) == 0x180000A1
    assert [each.read(BAR0, 4) >> 16 & 3 for each in (client, physical)] == [2, 0]
    for register in (0x1182CC, 0x200BC, 0x8F2C10, 0x820344):
        assert client.read(BAR0, register) >> 16 == 0xBADF
    state = emulator.control.state()
    assert [state[address]["physical_function"] for address in (*VIRTUAL, PHYSICAL)] == [PHYSICAL, PHYSICAL, None]
    assert state[VIRTUAL[0]]["knobs"] == {}


def test_a_virtual_function_resets_alone(connect: Connect, emulator: Emulator) -> None:
    client = connect(VIRTUAL[0])
    client.write(BAR0, 0x1458, 7)
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, 0x8000, 2)
    poll(lambda: client.read(CONFIG, 0) == 0x233110DE)
    client.write(CONFIG, 4, 2, 2)
    assert client.read(BAR0, 0x1458) == 0
    resets = [emulator.control.state(address)["counters"]["resets"] for address in (*VIRTUAL, PHYSICAL)]
    assert resets == [1, 0, 0]


@pytest.mark.parametrize("how", ["bus", "flr"])
def test_a_reset_of_the_physical_function_loses_them(connect: Connect, emulator: Emulator, how: str) -> None:
    user, physical = connect(VIRTUAL[1]), connect(PHYSICAL)
    user.write(BAR0, 0x1458, 7)
    if how == "bus":
        physical.reset()
    else:
        control = capabilities(physical)[0x10] + 8
        physical.write(CONFIG, control, 0x8000, 2)
        assert user.read(CONFIG, 0) == ONES
        poll(lambda: physical.read(CONFIG, 0) == 0x233110DE)
        # The reset cleared VF Enable: they stay away until the software has put it back.
        assert user.read(CONFIG, 0) == ONES
        assert not emulator.control.state(VIRTUAL[1])["answers"]
        at = extended_capabilities(physical)[SRIOV]
        physical.write(CONFIG, at + 0x10, 2, 2)
        physical.write(CONFIG, at + 8, 0x19, 2)
    assert user.read(CONFIG, 0) == 0x233110DE
    assert user.read(CONFIG, 4, 2) == 0
    user.write(CONFIG, 4, 2, 2)
    assert user.read(BAR0, 0x1458) == 0
    told = [(entry["op"], entry["kind"]) for entry in emulator.control.trace(VIRTUAL[1]) if entry["op"] != "write"]
    assert told == [("reset", "physical function")]


def test_disabling_one_takes_that_one_away(connect: Connect, emulator: Emulator) -> None:
    users, physical = [connect(address) for address in VIRTUAL], connect(PHYSICAL)
    at = extended_capabilities(physical)[SRIOV]
    physical.write(CONFIG, at + 0x10, 1, 2)
    assert [user.read(CONFIG, 0) == ONES for user in users] == [False, True]
    with pytest.raises(Refused):
        users[1].reset()
    assert emulator.control.trace(VIRTUAL[1])[-1]["op"] == "reset_refused"


def test_they_fall_off_the_bus_and_lose_power_with_it(connect: Connect, emulator: Emulator) -> None:
    user, physical = connect(VIRTUAL[0]), connect(PHYSICAL)
    emulator.control.fault(device=PHYSICAL, event="read", action="fall_off")
    assert physical.read(CONFIG, 0) == user.read(CONFIG, 0) == ONES
    emulator.control.restore()
    assert connect(VIRTUAL[0]).read(CONFIG, 0) == 0x233110DE
    again = connect(VIRTUAL[1])
    emulator.control.power_cycle(PHYSICAL)
    with pytest.raises((EOFError, ConnectionError)):
        again.read(CONFIG, 0)
    assert connect(VIRTUAL[1]).read(CONFIG, 0) == ONES


def test_a_virtual_function_has_no_power_of_its_own(emulator: Emulator) -> None:
    with pytest.raises(ControlError, match="physical"):
        emulator.control.set(VIRTUAL[0], power="d3cold")


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ({"address": "0000:01:00.0", "model": "nvswitch-ls10", "virtual_functions": 1}, "switch"),
        ({"address": "0000:01:00.0", "model": "h200", "virtual_functions": 33}, "33"),
        ({"address": "0000:01:00.0", "model": "h200", "virtual_functions": True}, "True"),
        ({"address": "0000:ff:1f.0", "model": "h200", "virtual_functions": 8}, "beyond bus ff"),
        ({"address": "0000:00:00.0", "model": "h200", "virtual_functions": 1}, "0000:00:00.4"),
    ],
)
def test_virtual_functions_that_cannot_be(device: dict[str, object], word: str) -> None:
    other = {"address": "0000:00:00.4", "model": "a100"}
    with pytest.raises(NodeError, match=word):
        Node.parse({"devices": [device, other]})


def test_many_of_them_fill_the_next_device_numbers() -> None:
    node = Node.parse({"devices": [{"address": "0000:0f:1f.0", "model": "h200", "virtual_functions": 6}]})
    assert node.addresses[1:] == tuple(
        f"0000:{rest}" for rest in ("0f:1f.4", "0f:1f.5", "0f:1f.6", "0f:1f.7", "10:00.0", "10:00.1")
    )
