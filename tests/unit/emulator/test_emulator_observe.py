# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What a controller sees of a device while a client has it, without the device noticing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from emulator import ControlClient, ControlError, Emulator, launch
from emulator_node import B200, HOPPER, SWITCH
from vfio_client import BAR0, CONFIG, Client, Emem, Mnoc, capabilities, poll, read_command, read_knob, write_knob

Connect = Callable[..., Client]
CCM = 8
SCRATCH = 0x1458


def flr(client: Client) -> None:
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, client.read(CONFIG, control, 2) | 0x8000, 2)


def word(emulator: Emulator, address: str, offset: int) -> int:
    return int.from_bytes(emulator.control.read(address, "bar0", offset, 4), "little")


def test_a_controller_reads_what_the_client_would(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    client.write(BAR0, SCRATCH, 0x12345678)
    client.write(CONFIG, 0x3C, 7, 1)
    assert word(emulator, HOPPER, SCRATCH) == 0x12345678
    assert emulator.control.read(HOPPER, "bar0", SCRATCH + 1, 2) == b"\x56\x34"
    assert emulator.control.config(HOPPER) == client.read_bytes(CONFIG, 0, 4096)
    assert emulator.control.read(HOPPER, "bar1", 0, 4) == client.read_bytes(2, 0, 4)
    client.write(CONFIG, 4, 0, 2)
    assert word(emulator, HOPPER, SCRATCH) == 0xFFFFFFFF


def test_a_client_and_two_controllers_see_an_undo(connect: Connect, emulator: Emulator, tmp_path: Path) -> None:
    with launch("h100-pcie") as other, pytest.raises(ControlError):
        other.control.config(HOPPER)
    client = connect()
    pmcsr = capabilities(client)[1] + 4
    before = emulator.control.config(HOPPER)
    client.write(CONFIG, 4, 0, 2)
    client.write(CONFIG, pmcsr, 3, 2)
    changed = emulator.control.config(HOPPER)
    assert [index for index in range(4096) if changed[index] != before[index]] == [4, pmcsr]
    client.write(CONFIG, pmcsr, 0, 2)
    client.write(CONFIG, 4, 6, 2)
    assert emulator.control.config(HOPPER) == before


def test_any_number_of_controllers_may_look(emulator: Emulator, connect: Connect) -> None:
    client = connect()
    with ControlClient(emulator.control_path) as second:
        for value in (1, 2):
            client.write(BAR0, SCRATCH, value)
            assert second.read(HOPPER, "bar0", SCRATCH, 4) == emulator.control.read(HOPPER, "bar0", SCRATCH, 4)
            assert second.trace(HOPPER) == emulator.control.trace(HOPPER)


def test_looking_counts_nothing_and_sets_no_fault_off(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    for event in ("read", "write"):
        emulator.control.fault(event=event, action="disconnect")
    before = emulator.control.state(HOPPER)
    emulator.control.config(HOPPER)
    assert word(emulator, HOPPER, 0) == 0x180000A1
    assert emulator.control.state(HOPPER) == before
    assert emulator.control.trace(HOPPER) == []
    with pytest.raises((EOFError, ConnectionError)):
        client.read(BAR0, 0)


def test_looking_moves_no_pointer_of_the_emem_port(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    port = Emem(client)
    port.post(read_command(CCM))
    poll(port.answered)
    client.write(BAR0, port.control, port.base | 1 << 24 | 1 << 25)
    seen = [word(emulator, HOPPER, port.data) for _ in range(3)]
    first, second = client.read(BAR0, port.data), client.read(BAR0, port.data)
    assert seen == [first] * 3
    assert second != first


def test_looking_takes_no_word_of_the_mailbox(connect: Connect, emulator: Emulator) -> None:
    port = Mnoc(connect(B200))
    port.post(read_command(CCM))
    poll(port.answered)
    seen = [word(emulator, B200, 0x8F1F08) for _ in range(3)]
    words = port.fetch()
    assert seen == [words[0]] * 3
    assert len(words) == 6
    assert word(emulator, B200, 0x8F1F08) == 0
    assert not port.error()


def test_a_device_that_nobody_touched_has_no_trace(connect: Connect, emulator: Emulator) -> None:
    connect().read(BAR0, 0)
    assert emulator.control.trace(HOPPER) == []
    assert emulator.control.trace(SWITCH) == []


def test_the_trace_is_what_the_client_made_in_its_order(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    client.write(CONFIG, 4, 6, 2)
    write_knob(Emem(client), CCM, 1)
    read_knob(Emem(client), CCM)
    client.reset()
    flr(client)
    emulator.control.fault(event="reset", action="reset_error", errno="EBUSY")
    with pytest.raises(OSError, match="13"):
        client.reset()
    trace = emulator.control.trace(HOPPER)
    first = {"client": os.getpid(), "op": "write", "region": "config", "offset": 4, "size": 2, "value": 6}
    assert {key: value for key, value in trace[0].items() if key != "t"} == first
    told = [entry for entry in trace if entry["op"] != "write"]
    assert [entry["op"] for entry in told] == ["knob_write", "knob_read", "reset", "reset", "reset_refused"]
    assert (told[0]["knob"], told[0]["value"], told[0]["code"]) == ("CCM", 1, 0)
    assert [entry["kind"] for entry in told[2:]] == ["bus", "flr", "bus"]
    assert trace.index(told[0]) > [entry.get("offset") for entry in trace].index(0x8F2C10)
    assert [entry["t"] for entry in trace] == sorted(entry["t"] for entry in trace)
    emulator.control.reset_counters()
    assert emulator.control.trace(HOPPER) == []


def test_a_write_that_a_fault_swallowed_is_traced(connect: Connect, emulator: Emulator) -> None:
    emulator.control.fault(device=HOPPER, event="write", action="disconnect")
    with pytest.raises((EOFError, ConnectionError)):
        connect().write(BAR0, SCRATCH, 1)
    assert [entry["offset"] for entry in emulator.control.trace(HOPPER)] == [SCRATCH]
    assert word(emulator, HOPPER, SCRATCH) == 0


def test_a_trace_that_lost_its_beginning_is_refused(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    for _ in range(8200):
        client.write(BAR0, SCRATCH, 0)
    with pytest.raises(ControlError, match="reset_counters"):
        emulator.control.trace(HOPPER)


@pytest.mark.parametrize(
    ("request_", "word_"),
    [
        ({"region": "config", "offset": 0, "size": 4}, "device"),
        ({"device": "*", "region": "config", "offset": 0, "size": 4}, "device"),
        ({"device": HOPPER, "region": "rom", "offset": 0, "size": 4}, "region"),
        ({"device": HOPPER, "region": "config", "offset": 4094, "size": 4}, "4096 bytes"),
        ({"device": HOPPER, "region": "config", "offset": 0, "size": 0}, "cannot be read"),
        ({"device": HOPPER, "region": "bar0", "offset": 0, "size": 1 << 20}, "at once"),
        ({"device": HOPPER, "region": "bar0", "offset": -4, "size": 4}, "offset"),
        ({"device": HOPPER, "region": "bar0", "offset": 0, "size": "4"}, "size"),
    ],
)
def test_reads_that_cannot_be_meant_are_refused(emulator: Emulator, request_: dict[str, object], word_: str) -> None:
    with pytest.raises(ControlError, match=word_):
        emulator.control.request("read", **request_)
