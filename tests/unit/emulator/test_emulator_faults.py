# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Every fault once, as a client sees it."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from emulator import ControlError, Emulator
from emulator.faults import Fault, FaultError, FaultSet, parse_fault
from emulator_node import B200, HOPPER, RTX, SWITCH
from vfio_client import (
    BAR0,
    CONFIG,
    Client,
    Emem,
    Mnoc,
    Refused,
    capabilities,
    exchange,
    extended_capabilities,
    poll,
    read_command,
    read_knob,
    write_command,
    write_knob,
)

Connect = Callable[..., Client]
GONE = (EOFError, ConnectionError)
CCM = 8
VICTIM = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from vfio_client import Client
client = Client(Path(sys.argv[2]))
client.write(0, 0x1458, 1)
client.write(0, 0x1458, 2)
client.write(0, 0x1458, 3)
"""


def booted(emulator: Emulator, address: str = HOPPER) -> bool:
    return bool(emulator.control.state(address)["booted"])


def test_kill_client_before_the_access(connect: Connect, emulator: Emulator) -> None:
    emulator.control.fault(device=HOPPER, event="write", nth=3, action="kill_client")
    folder, path = str(Path(__file__).parent), str(emulator.sockets / f"{HOPPER}.sock")
    ended = subprocess.run([sys.executable, "-c", VICTIM, folder, path], check=False, timeout=20)
    assert ended.returncode == -9
    assert connect().read(BAR0, 0x1458) == 2


@pytest.mark.parametrize("action", ["power_cut", "power_cut_all", "disconnect"])
def test_the_connection_breaks_before_the_access(connect_unhurried: Connect, unhurried: Emulator, action: str) -> None:
    connect, emulator = connect_unhurried, unhurried
    client, other = connect(), connect(SWITCH)
    client.write(BAR0, 0x1458, 5)
    bars = client.read(CONFIG, 0x10, 8)
    emulator.control.fault(device=HOPPER, event="write", action=action)
    with pytest.raises(GONE):
        client.write(CONFIG, 0x10, 0)
    again = connect()
    assert again.read(CONFIG, 0x10, 8) == bars
    assert again.read(BAR0, 0x1458) == (5 if action == "disconnect" else 0)
    if action == "power_cut_all":
        with pytest.raises(GONE):
            other.read(BAR0, 0)
        assert not booted(emulator, SWITCH)
    else:
        assert other.read(BAR0, 0)
    poll(lambda: booted(emulator))


def test_power_cut_between_two_knobs(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(device=HOPPER, event="knob_write", knob="CCD", action="power_cut")
    assert write_knob(port, CCM, 1) == 0
    with pytest.raises(GONE):
        write_knob(port, 6, 1)
    state = emulator.control.state(HOPPER)
    assert state["mode"] == "on"
    assert state["knobs"]["CCD"] == 0


def test_fall_off_until_repaired(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(device=HOPPER, event="read", nth=2, action="fall_off")
    assert client.read(BAR0, 0) == 0x180000A1
    assert client.read(BAR0, 0) == 0xFFFFFFFF
    assert client.read(CONFIG, 0xF0, 2) == 0xFFFF
    with pytest.raises(Refused) as caught:
        client.reset()
    assert caught.value.errno == errno.ENOTTY
    emulator.control.repair(HOPPER)
    assert client.read(BAR0, 0) == 0x180000A1


def test_no_boot(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(device=HOPPER, event="boot", action="no_boot")
    client.reset()
    assert client.read(BAR0, 0x200BC) == 1
    assert client.read(BAR0, 0x8F0320)
    assert not booted(emulator)
    client.reset()
    poll(lambda: client.read(BAR0, 0x200BC) == 0xFF)


@pytest.mark.parametrize(
    ("address", "register", "mask"), [(HOPPER, 0x20120, 1 << 30), (SWITCH, 0x66120, 1 << 30), (B200, 0x8AA128, 0xFE)]
)
def test_recovery(connect: Connect, emulator: Emulator, address: str, register: int, mask: int) -> None:
    client = connect(address)
    assert not client.read(BAR0, register) & mask
    emulator.control.fault(device=address, event="reset", action="recovery")
    client.reset()
    poll(lambda: client.read(BAR0, 0) != 0xFFFFFFFF)
    assert client.read(BAR0, register) & mask
    emulator.control.repair(address)
    poll(lambda: booted(emulator, address))


@pytest.mark.parametrize(
    ("address", "capability", "offset"), [(HOPPER, 0x0B, 0x10), (RTX, 0x0B, 0x10), (B200, 0x23, 0x14)]
)
def test_sec_fault(connect: Connect, emulator: Emulator, address: str, capability: int, offset: int) -> None:
    client = connect(address)
    at = extended_capabilities(client)[capability] + offset
    assert client.read(CONFIG, at) == 0
    emulator.control.fault(device=address, event="reset", action="sec_fault")
    client.reset()
    poll(lambda: client.read(BAR0, 0) != 0xFFFFFFFF)
    assert client.read(BAR0, 0) == 0xBADF0200
    assert client.read(CONFIG, at) != 0


def test_bar0_and_config_errors(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="read", action="bar0_error", errno="EPERM", times=2)
    emulator.control.fault(event="write", action="config_error", errno=5)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            client.read(BAR0, 0)
        assert caught.value.errno == errno.EPERM
    assert client.read(BAR0, 0)
    assert client.read(CONFIG, 0)
    with pytest.raises(Refused) as caught:
        client.write(CONFIG, 4, 0, 2)
    assert caught.value.errno == 5


def test_bar0_error_that_lasts(connect: Connect, emulator: Emulator) -> None:
    emulator.control.fault(event="connect", action="bar0_error")
    client = connect()
    for _ in range(2):
        with pytest.raises(Refused):
            client.read(BAR0, 0)
    assert client.read(CONFIG, 0)


def test_reset_error(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="reset", action="reset_error", errno="EBUSY", times=2)
    with pytest.raises(Refused) as caught:
        client.reset()
    assert caught.value.errno == errno.EBUSY
    control = capabilities(client)[0x10] + 8
    client.write(CONFIG, control, 0x8000, 2)
    assert client.read(CONFIG, 0xF0, 2) == 0
    assert emulator.control.state(HOPPER)["counters"]["resets"] == 0
    client.reset()


def test_rpc_error(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="knob_write", knob="CCM", action="rpc_error", code=0x123)
    assert write_knob(port, CCM, 1) == 0x123
    assert read_knob(port, CCM) == 0


def test_rpc_timeout(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="rpc", action="rpc_timeout")
    port.post(read_command(CCM))
    with pytest.raises(AssertionError):
        port.fetch(timeout=0.05)
    assert read_knob(port, CCM) == 0


def test_rpc_garble_and_short(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="rpc", action="rpc_garble")
    emulator.control.fault(event="rpc", nth=2, action="rpc_short")
    port.post(read_command(CCM))
    assert port.fetch()[1] >> 24 == 0x16
    port.post(read_command(CCM))
    assert len(port.fetch()) == 3


def test_rpc_late(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="knob_read", action="rpc_late", seconds=0.4)
    port.post(read_command(CCM))
    with pytest.raises(AssertionError):
        port.fetch(timeout=0.03)
    assert port.fetch()[4] == 0


@pytest.mark.parametrize(("address", "transport"), [(HOPPER, Emem), (B200, Mnoc)])
def test_rpc_drip_never_ends_its_answer(
    connect: Connect, emulator: Emulator, address: str, transport: type[Emem | Mnoc]
) -> None:
    port = transport(connect(address))
    emulator.control.fault(event="knob_read", action="rpc_drip")
    port.post(read_command(CCM))
    # A host that is slower than the firmware misses no packet.
    started = time.monotonic()
    poll(lambda: port.answered() and time.monotonic() - started > 0.02)
    heads = [port.fetch()[0] for _ in range(6)]
    assert [head >> 31 for head in heads] == [1, 0, 0, 0, 0, 0]
    assert {head >> 30 & 1 for head in heads} == {0}
    assert [head >> 28 & 3 for head in heads] == [0, 1, 2, 3, 0, 1]
    port.client.reset()
    poll(lambda: booted(emulator, address))
    assert read_knob(port, CCM) == 0


def test_rpc_huge_claims_a_billion_words(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="knob_read", action="rpc_huge")
    port.post(read_command(CCM))
    poll(port.answered)
    head, tail = port.client.read(BAR0, port.answers), port.client.read(BAR0, port.answers + 4)
    assert (tail - head) // 4 + 1 == 1_000_000_000
    port.client.write(BAR0, port.control, 1 << 24 | 1 << 25 | 8192 - 4)
    words = [port.client.read(BAR0, port.data) for _ in range(3)]
    assert words[1:] == [0xBADF5040] * 2
    port.client.write(BAR0, port.answers + 4, head)
    assert read_knob(port, CCM) == 0


def test_rpc_huge_fills_the_mailbox_of_blackwell(connect: Connect, emulator: Emulator) -> None:
    port = Mnoc(connect(B200))
    emulator.control.fault(event="knob_read", action="rpc_huge", words=100)
    port.post(read_command(CCM))
    assert len(port.fetch()) == 100
    emulator.control.fault(event="knob_read", action="rpc_huge")
    port.post(read_command(CCM))
    poll(port.answered)
    assert port.client.read(BAR0, 0x8F1F04) & 0xFFFFF == 0xFFFFC


@pytest.mark.parametrize("event", ["connect", "boot"])
def test_rpc_huge_before_any_command(connect: Connect, emulator: Emulator, event: str) -> None:
    emulator.control.fault(device=HOPPER, event=event, action="rpc_huge", words=5000)
    if event == "boot":
        emulator.control.power_cycle(HOPPER)
    port = Emem(connect())
    poll(lambda: booted(emulator))
    assert port.client.read(BAR0, port.answers + 4) - port.client.read(BAR0, port.answers) == 4 * 4999


def test_firmware_refuses_knobs_while_a_driver_is_bound(connect: Connect, emulator: Emulator) -> None:
    """Hosts whose nvidia driver holds the GPU answer every reading of a knob so; the active mode can still be read."""
    port = Emem(connect())
    emulator.control.fault(device=HOPPER, event="knob_read", action="rpc_error", code=0x202, times="forever")
    for knob in (2, 4, 34, 6, CCM, 10, 45):
        assert exchange(port, read_command(knob)) == [0x202]
    assert port.client.read(BAR0, 0x1182CC) == 0


def test_rpc_late_may_last_for_every_command(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="rpc", action="rpc_late", seconds=0.05, times="forever")
    started = time.monotonic()
    for _ in range(3):
        read_knob(port, CCM)
    assert time.monotonic() - started >= 0.15


def test_drip_gives_answers_byte_by_byte(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="read", action="drip", seconds=0.01)
    started = time.monotonic()
    client.send(9, b"\0" * 8 + b"\0\0\0\0\x04\0\0\0")
    parts: list[bytes] = []
    while sum(map(len, parts)) < 36:
        parts.append(client.socket.recv(100))
    assert time.monotonic() - started >= 0.36
    assert len(parts) > 1
    assert b"".join(parts)[32:] == (0x180000A1).to_bytes(4, "little")
    client.close()
    assert connect().read(BAR0, 0) == 0x180000A1


def test_babble_answers_what_nobody_asked(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="read", action="babble", seconds=0.01)
    asked = client.send(9, b"\0" * 8 + b"\0\0\0\0\x04\0\0\0")
    assert asked not in {client.receive()[0] for _ in range(5)}
    client.close()
    assert connect().read(BAR0, 0) == 0x180000A1


# --- a device that dies while it is looked at


def walk(client: Client, steps: int) -> list[int]:
    """As many headers of the list of capabilities as asked for, whatever they say."""
    at, seen = client.read(CONFIG, 0x34, 1), []
    for _ in range(steps):
        header = client.read(CONFIG, at)
        seen.append(header)
        at = header >> 8 & 0xFF
    return seen


def test_the_list_of_capabilities_can_turn_into_all_ones(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(device=HOPPER, event="read", region="config", offset=0x78, action="fall_off")
    seen = walk(client, 5)
    assert seen[0] & 0xFF == 1
    assert seen[1:] == [0xFFFFFFFF] * 4


def test_the_list_of_extended_capabilities_can_turn_into_all_ones(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(device=HOPPER, event="read", region="config", offset=0x120, action="fall_off")
    at, seen = 0x100, []
    for _ in range(4):
        seen.append(client.read(CONFIG, at))
        at = seen[-1] >> 20 & 0xFFC
    assert seen[0] & 0xFFFF == 3
    assert (seen[1:], at) == ([0xFFFFFFFF] * 3, 0xFFC)


PHASES = [
    {"event": "connect"},
    {"event": "read", "region": "config", "offset": 0x04},
    {"event": "read", "region": "bar0", "offset": 0x0},
    {"event": "read", "region": "bar0", "offset": 0x200BC},
    {"event": "read", "region": "bar0", "offset": 0x1182CC},
    {"event": "write", "region": "bar0", "offset": 0x8F2C10},
    {"event": "rpc"},
    {"event": "knob_read", "knob": "CCM"},
    {"event": "knob_write", "knob": "CCM"},
    {"event": "reset"},
    {"event": "boot"},
]


@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: "-".join(map(str, phase.values())))
def test_a_device_can_die_in_every_phase(connect: Connect, emulator: Emulator, phase: dict[str, object]) -> None:
    """After it nothing but all ones is read, wherever one looks, until the device is repaired."""
    emulator.control.fault(device=HOPPER, action="fall_off", **phase)
    client = connect()
    client.read(CONFIG, 4, 2)
    for register in (0, 0x200BC, 0x1182CC):
        client.read(BAR0, register)
    port = Emem(client)
    for words in (read_command(CCM), write_command(CCM, 1)):
        port.post(words)
        if not emulator.control.state(HOPPER)["off_bus"]:
            port.fetch()
    client.write(CONFIG, 0x81, 0x80, 1)
    assert emulator.control.state(HOPPER)["off_bus"]
    for region, offset in ((CONFIG, 0), (CONFIG, 0x78), (CONFIG, 0xFFC), (CONFIG, 0xFF), (BAR0, 0), (BAR0, 0x8F2C90)):
        assert client.read(region, offset) == 0xFFFFFFFF
    emulator.control.repair(HOPPER)
    poll(lambda: booted(emulator))
    assert client.read(BAR0, 0) == 0x180000A1


def test_a_rule_for_a_register_counts_that_register_only(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="read", region="bar0", offset=0x2, nth=2, action="bar0_error")
    for region, offset, size in ((CONFIG, 0, 4), (BAR0, 4, 4), (BAR0, 0, 2), (BAR0, 0, 4)):
        client.read(region, offset, size)
    with pytest.raises(Refused):
        client.read(BAR0, 0, 8)


def test_stick(connect: Connect, emulator: Emulator) -> None:
    port = Emem(connect())
    emulator.control.fault(event="knob_write", action="stick")
    assert exchange(port, write_command(CCM, 1)) == [0]
    assert read_knob(port, CCM) == 0


def test_mode_stuck(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="reset", action="mode_stuck")
    write_knob(Emem(client), CCM, 1)
    client.reset()
    poll(lambda: booted(emulator))
    assert emulator.control.state(HOPPER)["mode"] == "off"
    client.reset()
    assert emulator.control.state(HOPPER)["mode"] == "on"


def test_hang(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    emulator.control.fault(event="write", action="hang")
    client.send(10, b"\x58\x14\0\0\0\0\0\0\0\0\0\0\x04\0\0\0\x01\0\0\0")
    client.socket.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.receive()
    assert emulator.control.state(HOPPER)["hung"]
    assert connect(SWITCH).read(BAR0, 0)
    emulator.control.repair(HOPPER)
    client.socket.settimeout(5)
    assert client.read(BAR0, 0) == 0x180000A1


def test_rules_count_from_nth_for_times() -> None:
    rules = FaultSet([Fault("*", "write", "disconnect", nth=2, times=2)])
    assert [bool(rules.fire("write", "a")) for _ in range(5)] == [False, True, True, False, False]
    rules = FaultSet([Fault("*", "write", "disconnect", nth=2, times=None)])
    assert [bool(rules.fire("write", "a")) for _ in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ({"event": "lunch", "action": "hang"}, "event 'lunch'"),
        ({"event": "write", "action": "sing"}, "action 'sing'"),
        ({"event": "write", "action": "stick"}, "cannot answer"),
        ({"event": "write", "action": "hang", "colour": 1}, "unknown key colour"),
        ({"event": "write", "action": "hang", "device": "x"}, "not in this node"),
        ({"event": "write", "action": "hang", "nth": 0}, "nth"),
        ({"event": "write", "action": "hang", "times": "always"}, "forever"),
        ({"event": "rpc", "action": "rpc_error"}, "code"),
        ({"event": "rpc", "action": "rpc_late"}, "seconds"),
        ({"event": "read", "action": "bar0_error", "errno": "EWHAT"}, "errno"),
        ({"event": "rpc", "action": "hang", "knob": "CCM"}, "knob"),
        ({"event": "knob_read", "action": "hang", "knob": "XYZ"}, "XYZ"),
        ({"event": "rpc", "action": "hang", "region": "bar0"}, "region"),
        ({"event": "read", "action": "hang", "region": "rom"}, "region"),
        ({"event": "read", "action": "hang", "offset": 4}, "say which"),
        ({"event": "read", "action": "hang", "region": "bar0", "offset": -4}, "offset"),
        ({"event": "rpc", "action": "rpc_huge", "words": 0}, "words"),
        ({"event": "rpc", "action": "rpc_late", "seconds": 1, "words": 1}, "words"),
        ({"event": "reset", "action": "rpc_huge"}, "cannot answer"),
        ({"event": "read", "action": "drip", "seconds": -1}, "seconds"),
        ("hang", "mapping"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: object, word: str) -> None:
    with pytest.raises(FaultError, match=word):
        parse_fault(rule, [HOPPER])


def test_a_refused_rule_leaves_the_emulator_running(emulator: Emulator) -> None:
    with pytest.raises(ControlError, match="lunch"):
        emulator.control.fault(event="lunch", action="hang")
    assert booted(emulator)


@pytest.mark.parametrize("action", ["disconnect", "kill_client", "hang"])
def test_faults_of_the_connection_leave_no_boot_half_way(connect: Connect, emulator: Emulator, action: str) -> None:
    """The connection is gone when the firmware begins to boot; the boot itself goes on."""
    emulator.control.fault(device=HOPPER, event="boot", action=action)
    emulator.control.power_cycle(HOPPER)
    poll(lambda: booted(emulator))
    emulator.control.repair(HOPPER)
    assert connect().read(BAR0, 0) == 0x180000A1
