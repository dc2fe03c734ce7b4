# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Control socket, log, state file, command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from emulator import ControlError, Emulator, Node, NodeError, launch
from emulator_node import A100, HOPPER, NODE, ROOT, SWITCH
from vfio_client import BAR0, Client, Emem, poll, read_knob, write_knob

Connect = Callable[..., Client]
CCM = 8
ONE = {"devices": [{"address": "0000:01:00.0", "model": "h100-pcie"}]}


def test_set_mode_sets_knobs_and_active_mode(connect: Connect, emulator: Emulator) -> None:
    for mode, shown in (("on", 1), ("devtools", 3), ("invalid", 2), ("ppcie", 0x20), ("off", 0)):
        emulator.control.set(HOPPER, mode=mode)
        assert emulator.control.state(HOPPER)["mode"] == mode
        client = connect()
        assert client.read(BAR0, 0x1182CC) == shown
        client.reset()
        poll(lambda: emulator.control.state(HOPPER)["booted"])
        assert emulator.control.state(HOPPER)["mode"] == mode
        client.close()


def test_set_knobs_and_active_apart(emulator: Emulator) -> None:
    emulator.control.set(HOPPER, knobs={"CCM": 1})
    emulator.control.set(SWITCH, active="ppcie")
    state = emulator.control.state()
    assert state[HOPPER]["knobs"]["CCM"] == 1
    assert state[HOPPER]["mode"] == "off"
    assert state[SWITCH]["mode"] == "ppcie"
    assert state[SWITCH]["knobs"]["PPCIE"] == 0
    assert state[A100]["knobs"] == {}


def test_restore_undoes_everything(connect: Connect, emulator: Emulator) -> None:
    before = emulator.control.state()
    client = connect()
    write_knob(Emem(client), CCM, 1)
    client.reset()
    emulator.control.fault(event="write", action="disconnect", times="forever")
    emulator.control.restore()
    with pytest.raises((EOFError, ConnectionError)):
        client.read(BAR0, 0)
    assert emulator.control.state() == before
    connect().write(BAR0, 0x1458, 1)


def test_power_cycle_latches_the_knobs(emulator: Emulator) -> None:
    emulator.control.set(HOPPER, knobs={"CCM": 1})
    emulator.control.power_cycle()
    poll(lambda: all(device["booted"] for device in emulator.control.state().values()))
    assert emulator.control.state(HOPPER)["mode"] == "on"


def test_counters(connect: Connect, emulator: Emulator) -> None:
    client = connect()
    client.read(BAR0, 0)
    client.write(BAR0, 0x1458, 0)
    counters = emulator.control.state(HOPPER)["counters"]
    assert (counters["reads"], counters["writes"]) == (1, 1)
    emulator.control.reset_counters()
    assert set(emulator.control.state(HOPPER)["counters"].values()) == {0}


@pytest.mark.parametrize(
    "request_", [{"do": "dance"}, {"do": "set", "device": "x"}, {"do": "set", "mode": "blue"}, {"do": "state", "x": 1}]
)
def test_bad_requests_are_refused(emulator: Emulator, request_: dict[str, object]) -> None:
    with pytest.raises(ControlError):
        emulator.control.request(str(request_.pop("do")), **request_)
    assert emulator.control.state()


def test_log(tmp_path: Path) -> None:
    with launch(ONE, log=tmp_path / "log", boot_s=0.02, flr_s=0.02) as emulator:
        with Client(emulator.sockets / "0000:01:00.0.sock") as client:
            write_knob(Emem(client), CCM, 1)
            emulator.control.fault(event="reset", action="mode_stuck")
            client.reset()
        poll(lambda: emulator.control.state("0000:01:00.0")["booted"])
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"read", "write", "knob_write", "reset", "boot", "fault"} <= {entry["op"] for entry in entries}
    knob = next(entry for entry in entries if entry["op"] == "knob_write")
    assert (knob["knob"], knob["value"], knob["code"], knob["device"]) == ("CCM", 1, 0, "0000:01:00.0")
    assert [entry["t"] for entry in entries] == sorted(entry["t"] for entry in entries)


def test_knobs_outlive_the_emulator(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with launch(ONE, state=state) as emulator, Client(emulator.sockets / "0000:01:00.0.sock") as client:
        write_knob(Emem(client), CCM, 1)
        assert json.loads(state.read_text())["0000:01:00.0"]["CCM"] == 1
    with launch(ONE, state=state) as emulator:
        assert emulator.control.state("0000:01:00.0")["mode"] == "on"
        with Client(emulator.sockets / "0000:01:00.0.sock") as client:
            assert read_knob(Emem(client), CCM) == 1


def test_quit_and_clean_up(tmp_path: Path) -> None:
    folder = tmp_path / "sockets"
    folder.mkdir()
    (folder / "0000:01:00.0.sock").touch()
    with launch(ONE, sockets=folder) as emulator:
        with Client(folder / "0000:01:00.0.sock") as client:
            assert client.read(BAR0, 0)
        emulator.control.quit()
        assert emulator.process.wait(5) == 0
        assert not list(folder.iterdir())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emulator", *arguments]
    return subprocess.run(
        command, cwd=ROOT / "gpu-admin-tools", capture_output=True, text=True, timeout=20, check=False
    )


def test_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emulator", "hgx-h100", "--sockets", str(tmp_path / "s")]
    with subprocess.Popen(command, cwd=ROOT / "gpu-admin-tools", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready: 12 devices in {tmp_path / 's'}\n"
        assert len(list((tmp_path / "s").iterdir())) == 12
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert not list((tmp_path / "s").iterdir())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nonsense", "mapping"),
        ("{devices: []}", "at least one device"),
        ("{devices: [{address: 17:00.0, model: h100-pcie}]}", "full PCI address"),
        ('{devices: [{address: "0000:17:00.0", model: h300}]}', "h300"),
        ('{devices: [{address: "0000:17:00.0", model: a100, colour: red}]}', "colour"),
        ('{devices: [{address: "0000:17:00.0", model: a100}, {address: "0000:17:00.0", model: a100}]}', "twice"),
        ('{devices: [{address: "0000:17:00.0", model: h200, knobs: {XYZ: 1}}]}', "XYZ"),
        ('{devices: [{address: "0000:17:00.0", model: h200, locked: [CCM_ALLOW_INB]}]}', "locked"),
        ('{devices: [{address: "0000:17:00.0", model: h200, timing: {boot_s: soon}}]}', "boot_s"),
        ("{", "not YAML"),
    ],
)
def test_bad_nodes_are_refused_before_anything_is_created(tmp_path: Path, text: str, word: str) -> None:
    node = tmp_path / "node.yaml"
    node.write_text(text)
    ended = run(str(node), "--sockets", str(tmp_path / "sockets"))
    assert ended.returncode == 2
    assert word in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "sockets").exists()


def test_unknown_node_names_the_shipped_ones() -> None:
    with pytest.raises(NodeError, match=r"dgx-b200, h100-pcie, hgx-h100, mixed, rtx-pro"):
        Node.load("dgx-h300")


@pytest.mark.parametrize("name", ["hgx-h100", "h100-pcie", "dgx-b200", "rtx-pro", "mixed"])
def test_shipped_nodes_load(name: str) -> None:
    node = Node.load(name, {"boot_s": 0.5})
    assert node.name == name
    assert {spec.timing.boot_s for spec in node.devices} == {0.5}


def test_bad_fault_and_state_files(tmp_path: Path) -> None:
    (tmp_path / "faults").write_text("[{event: lunch, action: hang}]")
    (tmp_path / "state").write_text("[]")
    for option in ("faults", "state"):
        ended = run("h100-pcie", "--sockets", str(tmp_path / "sockets"), f"--{option}", str(tmp_path / option))
        assert ended.returncode == 2
        assert ended.stderr.startswith("emulator: ")
        assert not (tmp_path / "sockets").exists()


def test_overrides_try_a_new_device() -> None:
    raw = {"devices": [{**NODE["devices"][0], "device_id": 0x2399, "boot_0": 0x12345678}]}  # type: ignore[index]
    spec = Node.parse(raw).devices[0]
    assert (spec.device_id, spec.boot_0, spec.subsystem_id) == (0x2399, 0x12345678, 0x16C1)


@pytest.mark.parametrize("line", [b"[", b"[]", b'{"do": []}', b'{"do": "repair", "device": {}}', b"[" * 60000, b"\xff"])
def test_garbage_on_the_control_socket_is_answered(emulator: Emulator, line: bytes) -> None:
    emulator.control._socket.sendall(line + b"\n")
    answer = json.loads(emulator.control._socket.recv(65536))
    assert not answer["ok"]
    assert answer["error"]


def test_sockets_that_somebody_serves_are_left_alone(tmp_path: Path) -> None:
    with launch("h100-pcie", sockets=tmp_path) as first:
        served = sorted(path.name for path in tmp_path.glob("*.sock"))
        ended = run("h100-pcie", "--sockets", str(tmp_path))
        assert ended.returncode == 2
        assert "another emulator or device server listens on" in ended.stderr
        assert sorted(path.name for path in tmp_path.glob("*.sock")) == served
        assert first.control.state()


def test_sockets_that_a_killed_run_left_over_are_replaced(tmp_path: Path) -> None:
    with launch("h100-pcie", sockets=tmp_path) as first:
        first.process.kill()
        first.process.wait(10)
    assert list(tmp_path.glob("*.sock"))
    with launch("h100-pcie", sockets=tmp_path) as second:
        assert second.control.state()
