# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Recording a device and being it again: the same both times, and not one write."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from emulator import Fault, NodeError, Server
from emulator import __main__ as main
from emulator import registers as reg
from emulator.models import Family
from emulator.recording import Recording, RecordingError, load
from emulator.recording.command import record
from emulator.recording.socket_source import SocketSource
from emulator.recording.sysfs_source import SysfsSource
from emulator.recording.take import take
from recordings import ADDRESS, FAMILIES, Direct, Tree, device_of, node_of, recording_of, served
from vfio_client import BAR0, CONFIG, Client, Emem, Mnoc, poll, read_knob, write_knob

SOCKET = f"{ADDRESS}.sock"
# Halves that are found in no other word.
PDI = 0x1A2B3C4D5E6F7081
MODES = {"h100-sxm": "on", "h100-pcie": "ppcie", "h200": "devtools", "b200": "on", "rtx-pro-6000": "invalid"}


@pytest.mark.parametrize("model", FAMILIES)
def test_recorded_replayed_and_recorded_again(model: str, tmp_path: Path) -> None:
    with served({"model": model, "pdi": PDI}, tmp_path) as server:
        server.devices[ADDRESS].set_mode(MODES.get(model, "ppcie"))
        first = record(ADDRESS, tmp_path / SOCKET)
    first.save(tmp_path / "first.json")
    log = tmp_path / "log.jsonl"
    with served({"recording": "first.json"}, tmp_path, log) as server:
        second = record(ADDRESS, tmp_path / SOCKET)
        state = server.devices[ADDRESS].state()
    assert second == first == load(tmp_path / "first.json")
    assert second.text() == (tmp_path / "first.json").read_text(encoding="utf-8")
    assert (state["mode"], state["model"], state["booted"]) == (MODES.get(model, "ppcie"), "recorded", True)
    assert (state["counters"]["writes"], state["counters"]["resets"], state["counters"]["rpcs"]) == (0, 0, 0)
    assert {json.loads(line)["op"] for line in log.read_text(encoding="utf-8").splitlines()} == {"read"}


@pytest.mark.parametrize("model", FAMILIES)
def test_what_is_read_is_allowed(model: str, tmp_path: Path) -> None:
    """No serial number, no port whose reading moves a pointer: they are not asked for."""
    log = tmp_path / "log.jsonl"
    with served({"model": model, "pdi": PDI}, tmp_path, log):
        text = record(ADDRESS, tmp_path / SOCKET).text()
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    reads = {(entry["region"], entry["offset"]) for entry in entries}
    assert not reads & {("config", 0x104), ("config", 0x108), ("bar0", reg.PDI_LOW), ("bar0", reg.PDI_HIGH)}
    assert not [offset for region, offset in reads if region == "bar0" and 0x8F1E00 <= offset < 0x8F3000]
    for word in (PDI >> 32, PDI & 0xFFFFFFFF):
        assert f"{word:08x}" not in text
    assert {entry["size"] for entry in entries} == {4}


def test_the_words_of_a_serial_number_are_nobodys(tmp_path: Path) -> None:
    """Two devices that differ in nothing else have the same recording, wherever they are."""
    one, other = ({"model": "h100-sxm", "module_id": 3, "pdi": pdi, "bar1_mib": 512} for pdi in (1, PDI))
    assert recording_of(one) == recording_of(other)
    assert recording_of(one) != recording_of({**one, "module_id": 4})
    assert recording_of(one) != recording_of({**one, "bar1_mib": 256})


def test_a_source_has_nothing_to_write_with() -> None:
    for source in (SocketSource, SysfsSource):
        public = {name for name in vars(source) if not name.startswith("_")}
        assert public == {"config", "register", "bar_bytes", "close"}


# --- through sysfs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path, device_of({"model": "h100-sxm", "pdi": PDI}))


@pytest.mark.parametrize("model", FAMILIES)
def test_sysfs_gives_what_a_socket_gives(model: str, tmp_path: Path) -> None:
    tree = Tree(tmp_path, device_of({"model": model}))
    before = tree.everything()
    assert record(ADDRESS, root=tmp_path) == recording_of({"model": model})
    assert tree.everything() == before


def own_files() -> dict[int, str]:
    """This process's open files by descriptor."""
    links = {int(name): f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")}
    return {number: os.readlink(link) for number, link in links.items() if os.path.lexists(link)}


def test_the_kernel_forbids_a_write(tree: Tree) -> None:
    """Neither the descriptor nor the mapping can be written to, and the mapping cannot be made writable."""
    with contextlib.closing(SysfsSource(ADDRESS, tree.root)) as source:
        assert source.register(0) == 0x180000A1
        config = next(number for number, path in own_files().items() if path == str(tree.device / "config"))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(config, b"\0", 0x1000)
        maps = Path("/proc/self/smaps").read_text(encoding="utf-8")
        mapping = maps[maps.index(str(tree.device / "resource0")) :]
        flags = next(line for line in mapping.splitlines() if line.startswith("VmFlags:")).split()
        assert "rd" in flags
        assert not {"wr", "mw"} & set(flags)


def test_at_vfio_with_a_group_that_is_free(tree: Tree) -> None:
    tree.bind("vfio-pci", group="")
    assert record(ADDRESS, root=tree.root) == recording_of({"model": "h100-sxm"})


REFUSED: dict[str, tuple[Callable[[Tree], Any], str]] = {
    "no such device": (lambda tree: tree.device.rename(tree.root / "elsewhere"), "there is no such device"),
    "NVIDIA's driver": (lambda tree: tree.bind("nvidia"), "the driver nvidia has it; unbind it"),
    "vfio, group unknown": (lambda tree: tree.bind("vfio-pci"), "vfio group 27 cannot be opened"),
    "enabled": (lambda tree: tree.write("enable", "1\n"), "it is enabled"),
    "enable unknown": (lambda tree: (tree.device / "enable").unlink(), "enable says nothing"),
    "open config": (lambda tree: tree.process(4711, f"/sys/devices/x/{ADDRESS}/config"), "process 4711 has it open"),
    "mapped": (lambda tree: tree.process(4711, mapped=f"/sys/devices/x/{ADDRESS}/resource0"), "process 4711 has it"),
    "write-combined": (lambda tree: tree.process(4711, mapped=f"/sys/d/{ADDRESS}/resource2_wc"), "process 4711 has it"),
    "virtual function": (lambda tree: tree.link("physfn"), "it is a virtual function"),
    "virtual functions": (lambda tree: tree.link("virtfn0"), "it has virtual functions"),
    "sleeps": (lambda tree: tree.write("power_state", "D3hot\n"), "it is in D3hot, and a recorder wakes nothing"),
    "no power": (lambda tree: tree.write("power_state", "D3cold\n"), "it is in D3cold"),
    "power unknown": (lambda tree: (tree.device / "power_state").unlink(), "does not say in which power state"),
    "may fall asleep": (lambda tree: tree.write("power/control", "auto\n"), "may put it to sleep"),
    "sleeps after all": (lambda tree: tree.word("config", 0x64, 0x0000000B), "the device sleeps (D3)"),
    "memory space off": (lambda tree: tree.word("config", 0x04, 0x00100000), "memory space is off (COMMAND bit 1)"),
    "gone": (lambda tree: (tree.device / "config").write_bytes(b"\xff" * 4096), "its vendor id reads ffff"),
    "BAR0 gone": (lambda tree: tree.word("resource0", 0, 0xFFFFFFFF), "register 0x0 reads 0xffffffff"),
    "security fault": (lambda tree: tree.word("resource0", 0, 0xBADF0200), "security fault"),
    "old security fault": (lambda tree: tree.word("resource0", 0, 0xBAD00200), "security fault"),
    "boots": (lambda tree: tree.word("resource0", 0x200BC, 0), "not booted: register 0x200bc reads 0x0"),
    "recovery": (lambda tree: tree.word("resource0", 0x20120, 1 << 30), "bit 30 of register 0x20120 is 1"),
    "says it is virtual": (lambda tree: tree.word("resource0", 4, 2 << 16), "it is a virtual function"),
    "another maker": (lambda tree: tree.word("config", 0, 0x23301002), "vendor 1002 is not NVIDIA"),
    "a bridge": (lambda tree: tree.word("config", 0x0C, 0x00010000), "it is a bridge"),
    "an unknown chip": (lambda tree: tree.word("config", 0, 0x3FFE10DE), "10de:3ffe (class 030200) belongs to no"),
    "a function of sound": (lambda tree: tree.word("config", 8, 0x040300A1), "(class 040300) belongs to no family"),
    "a loop": (lambda tree: tree.word("config", 0x78, 0x00026010), "a capability at 0x60 is not possible"),
    "too many engines": (lambda tree: tree.word("resource0", 0x224FC, 513 << 20), "513 engines are too many"),
    "no address": (lambda tree: tree.write("resource", f"0x0 {0xFFFFFF:#x} 0x2014220c\n"), "BAR0 has no address"),
    "no BAR": (lambda tree: tree.write("resource", "0x0 0x0 0x0\n"), "BAR0 has 0 bytes"),
    "the beginning only": (
        lambda tree: (tree.device / "config").write_bytes(device_of({"model": "h100-sxm"}).read_config(0, 64)),
        "config ends before 0x60; run as root",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tree: Tree) -> None:
    change, words = REFUSED[name]
    change(tree)
    before = tree.everything()
    with pytest.raises(RecordingError) as refusal:
        record(ADDRESS, root=tree.root)
    assert words in str(refusal.value)
    assert tree.everything() == before


@pytest.mark.parametrize("name", ["open config", "NVIDIA's driver", "sleeps", "virtual functions"])
def test_a_device_that_is_not_ours_is_not_opened(name: str, tree: Tree) -> None:
    change, words = REFUSED[name]
    change(tree)
    (tree.device / "config").unlink()
    with pytest.raises(RecordingError) as refusal:
        record(ADDRESS, root=tree.root)
    assert words in str(refusal.value)


def test_processes_of_a_container_are_not_all(tree: Tree) -> None:
    (tree.root / "proc/self/ns/pid").unlink()
    (tree.root / "proc/self/ns/pid").symlink_to("pid:[4026532001]")
    with pytest.raises(RecordingError, match="only processes of this container can be seen; run as root on the host"):
        record(ADDRESS, root=tree.root)


def test_a_guest_has_the_group(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.bind("vfio-pci", group="")
    opened = os.open

    def busy(path: Any, *rest: Any) -> int:
        if str(path) == str(tree.root / "dev/vfio/27"):
            raise OSError(16, "Device or resource busy")
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(RecordingError, match="its vfio group 27 is open; shut the virtual machine down"):
        record(ADDRESS, root=tree.root)


def test_the_group_is_kept_until_the_end(tree: Tree) -> None:
    tree.bind("vfio-pci", group="")
    group = str(tree.root / "dev/vfio/27")

    source = SysfsSource(ADDRESS, tree.root)
    assert group in own_files().values()
    source.close()
    assert group not in own_files().values()


@pytest.mark.parametrize("offset", [reg.PMC_BOOT_0, reg.BOOT_COMPLETE, reg.HOPPER_MODE])
def test_a_device_that_changes_meanwhile(offset: int) -> None:
    class Changing(Direct):
        reads = 0

        def register(self, at: int) -> int:
            self.reads += at == offset
            # The first register is read once before all others.
            changed = self.reads > 1 + (offset == reg.PMC_BOOT_0)
            return super().register(at) ^ (1 if at == offset and changed else 0)

    with pytest.raises(RecordingError, match="the device changed while it was read"):
        take(Changing(device_of({"model": "h100-sxm"})))


@pytest.mark.parametrize("model", ["b200", "rtx-pro-6000"])
def test_behind_the_firewall_no_register_is_read(model: str) -> None:
    class Firewalled(Direct):
        def register(self, at: int) -> int:
            raise AssertionError("%#x was read" % at)

    device = device_of({"model": model, "timing": {"firewall_s": 3600.0}})
    device.power_on()
    with pytest.raises(RecordingError, match="BAR firewall is up"):
        take(Firewalled(device))


# --- through a socket -------------------------------------------------------------------------------------------------


def test_a_socket_that_another_client_has(tmp_path: Path) -> None:
    with served({"model": "h100-pcie"}, tmp_path), Client(tmp_path / SOCKET), pytest.raises(RecordingError) as refusal:
        SocketSource(tmp_path / SOCKET, timeout_s=0.05)
    assert "no answer in 0.05 s; another client may have the device" in str(refusal.value)


def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file or directory; start the server"):
        record(ADDRESS, tmp_path / SOCKET)


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"model": "h200", "power": "d3hot"}, "the device sleeps (D3)"),
        ({"model": "h200", "power": "d3cold"}, "its vendor id reads ffff"),
        ({"model": "h200", "memory_decode": False}, "memory space is off"),
        ({"model": "h200", "unassigned_bars": [0]}, "refuses REGION_READ with Invalid argument"),
        ({"model": "b200", "recovery": True}, "its firmware has not booted"),
        ({"model": "a100"}, "belongs to no family"),
        ({"model": "unknown"}, "belongs to no family"),
        ({"model": "unknown-nvswitch"}, "belongs to no family"),
    ],
)
def test_refused_by_socket(description: dict[str, object], words: str, tmp_path: Path) -> None:
    with served(description, tmp_path) as server:
        before = server.devices[ADDRESS].config.snapshot()
        with pytest.raises(RecordingError) as refusal:
            record(ADDRESS, tmp_path / SOCKET)
        assert server.devices[ADDRESS].config.snapshot() == before
        assert server.devices[ADDRESS].counters.writes == 0
    assert words in str(refusal.value)


@pytest.mark.parametrize("action", ["babble", "disconnect"])
def test_a_server_that_is_none(action: str, tmp_path: Path) -> None:
    with served({"model": "h100-pcie"}, tmp_path) as server:
        server.faults.add(Fault(device="*", event="read", action=action, seconds=0.05))
        with pytest.raises(RecordingError, match="is it a vfio-user server?"):
            record(ADDRESS, tmp_path / SOCKET)


# --- being it ---------------------------------------------------------------------------------------------------------


def changed(recording: Recording, registers: dict[int, int], **others: Any) -> Recording:
    return replace(recording, registers={**recording.registers, **registers}, **others)


def reset_and_boot(client: Client, server: Server) -> None:
    client.reset()
    poll(lambda: client.read(BAR0, reg.BOOT_COMPLETE) == 0xFF)


@pytest.mark.parametrize(
    ("model", "register", "beside", "on"), [("b200", 0x590, 0x40, 0x41), ("h100-sxm", 0x1182CC, 0xF00, 0xF01)]
)
def test_modes_change_as_the_familys_do(model: str, register: int, beside: int, on: int, tmp_path: Path) -> None:
    """Bits of the mode's register that are not the mode are the recording's."""
    changed(recording_of({"model": model}), {register: beside}).save(tmp_path / "one.json")
    with served({"recording": "one.json"}, tmp_path) as server, Client(tmp_path / SOCKET) as client:
        port = Mnoc(client) if model == "b200" else Emem(client)
        assert client.read(BAR0, register) == beside
        assert write_knob(port, 8, 1) == 0
        assert client.read(BAR0, register) == beside
        reset_and_boot(client, server)
        assert client.read(BAR0, register) == on
        assert read_knob(port, 8) == 1
        assert client.read(CONFIG, 0x0) == 0x10DE | {"b200": 0x2901, "h100-sxm": 0x2330}[model] << 16


def test_what_is_pending_is_pending(tmp_path: Path) -> None:
    """Knobs that the device has not booted with yet: the mode is the register's until a reset."""
    knobs = {6: 0, 8: 1, 10: 2}
    changed(recording_of({"model": "h100-sxm"}), {}, knobs=knobs).save(tmp_path / "one.json")
    with served({"recording": "one.json"}, tmp_path) as server, Client(tmp_path / SOCKET) as client:
        assert client.read(BAR0, reg.HOPPER_MODE) == 0
        assert read_knob(Emem(client), 8) == 1
        reset_and_boot(client, server)
        assert client.read(BAR0, reg.HOPPER_MODE) == 1


def test_a_recording_without_knobs_has_nothing_pending(tmp_path: Path) -> None:
    device = device_of({"model": "b200"})
    device.set_mode("devtools")
    take(Direct(device)).save(tmp_path / "one.json")
    with served({"recording": "one.json"}, tmp_path) as server, Client(tmp_path / SOCKET) as client:
        reset_and_boot(client, server)
        assert client.read(BAR0, reg.BLACKWELL_MODE) == 3


@pytest.mark.parametrize("model", FAMILIES)
def test_while_it_is_not_at_rest_the_model_shows_how_it_is(model: str, tmp_path: Path) -> None:
    recording_of({"model": model}).save(tmp_path / "one.json")
    device, twin = device_of({"recording": "one.json"}, tmp_path), device_of({"model": model})
    for one in (device, twin):
        one._suffer(Fault(device="*", event="read", action="recovery"))
    for offset in device.spec.recording.registers if device.spec.recording else ():
        assert device.read_word(offset) == twin.read_word(offset), hex(offset)
    for one in (device, twin):
        one.off_bus = True
        one._refresh()
    assert device.read_bar0(0, 4) == device.read_config(0, 4) == b"\xff" * 4


def test_static_words_cannot_be_written(tmp_path: Path) -> None:
    recording_of({"model": "h100-sxm"}).save(tmp_path / "one.json")
    device = device_of({"recording": "one.json"}, tmp_path)
    before = take(Direct(device))
    for offset in range(0, 4096, 4):
        if offset not in (0x04, 0x64, 0x80):  # COMMAND, the power state, the bit that starts a reset
            device.write_config(offset, b"\xff" * 4)
    assert take(Direct(device)) == before


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"recording": "one.json", "model": "h200"}, "model cannot be told of a recording"),
        ({"recording": "one.json", "knobs": {"CCM": 1}}, "knobs cannot be told of a recording"),
        ({"recording": "one.json", "virtual_functions": 1}, "virtual_functions cannot be told of a recording"),
        ({"recording": 7}, "recording must be the path of a file, not 7"),
        ({"recording": "two.json"}, "two.json cannot be read: No such file or directory; give the path of a file"),
        ({"recording": "bad.json"}, "bad.json: the file is not JSON"),
        ({"recording": "narrow.json"}, "narrow.json cannot be replayed: BAR0 is not a memory BAR of 64 bits"),
    ],
)
def test_a_node_says_what_is_wrong(entry: dict[str, object], words: str, tmp_path: Path) -> None:
    one = recording_of({"model": "h200"})
    one.save(tmp_path / "one.json")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    raw = json.loads(one.text())
    raw["config"] |= {"0x10": "0x00000000", "0x14": "0x0000000c"}
    del raw["config"]["0x18"]
    (tmp_path / "narrow.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(NodeError) as refusal:
        node_of(entry, tmp_path)
    assert str(refusal.value).startswith("devices[0]: ")
    assert words in str(refusal.value)


def test_what_a_node_may_say_of_a_recording(tmp_path: Path) -> None:
    recording_of({"model": "h200"}).save(tmp_path / "one.json")
    device = device_of({"recording": "one.json", "locked": ["CCM"], "pdi": PDI, "unknown_knobs": ["PPCIE"]}, tmp_path)
    assert device.read_word(reg.PDI_HIGH) == PDI >> 32
    assert device.knobs.is_locked(8)
    assert 45 not in device.knobs


# --- the command ------------------------------------------------------------------------------------------------------


def answer(**changes: object) -> str:
    knobs = {"PPCIE": 0, "OPTION_2": 0, "OPTION_4": 0, "CCD": 0, "CCM": 1, "OPTION_34": 0, "BAR0_DECOUPLER": 2}
    entry = {"address": ADDRESS, "device_id": "0x2330", "mode": "off", "knobs": knobs, "unknown_knobs": []}
    return json.dumps({"changed": False, "devices": [{"address": "0000:18:00.0"}, {**entry, **changes}]})


def run(tmp_path: Path, *options: str) -> int:
    where = ["--socket", str(tmp_path / SOCKET), "--output", str(tmp_path / "one.json")]
    return main.main(["record", ADDRESS, *where, *options])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "answer.json").write_text(answer(), encoding="utf-8")
    with served({"model": "h100-sxm"}, tmp_path):
        assert run(tmp_path, "--knobs", str(tmp_path / "answer.json")) == 0
    assert capsys.readouterr().out == f"recorded: 19 words of config space and 19 registers in {tmp_path}/one.json\n"
    recorded = load(tmp_path / "one.json")
    assert recorded.knobs == {2: 0, 4: 0, 6: 0, 8: 1, 10: 2, 34: 0, 45: 0}
    assert recorded.family is Family.HOPPER
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.json", "one.json"]
    device = device_of({"recording": "one.json"}, tmp_path)
    assert (device.state()["mode"], device.knobs.named()["CCM"]) == ("off", 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "devices must be a list of devices"),
        ('{"devices": []}', f"0 have the address {ADDRESS}, and one must"),
        (answer(device_id="0x2331"), "device_id is '0x2331' and the device is 0x2330"),
        (answer(mode="on"), "mode is 'on' and the device is in off"),
        (answer(knobs={}), "knobs and unknown_knobs are not known"),
        (answer(knobs={"CCM": 1.5}), "CCM must be a whole number"),
        (answer(knobs={"NEW": 1}), "'NEW' is unknown"),
        (answer(unknown_knobs=["CCM"]), "CCM cannot be on this device, as known or as unknown knob"),
    ],
)
def test_knobs_of_something_else_are_refused(
    text: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answer.json").write_text(text, encoding="utf-8")
    (tmp_path / "one.json").write_text("as it was", encoding="utf-8")
    with served({"model": "h100-sxm"}, tmp_path):
        assert run(tmp_path, "--knobs", str(tmp_path / "answer.json")) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"record: {ADDRESS}: knobs {tmp_path}/answer.json: ")
    assert words in said
    assert (tmp_path / "one.json").read_text(encoding="utf-8") == "as it was"


def test_a_file_is_replaced_or_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recording_of({"model": "h200"})
    (tmp_path / "one.json").write_text("as it was", encoding="utf-8")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        recording.save(tmp_path / "one.json")
    assert (tmp_path / "one.json").read_text(encoding="utf-8") == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["record", "17:00.0", "--output", "x"]) == 2
    assert "full PCI address" in capsys.readouterr().err
    with served({"model": "h200"}, tmp_path):
        assert run(tmp_path, "--output", str(tmp_path / "none" / "one.json")) == 2
    assert "cannot be written: No such file or directory; name another file" in capsys.readouterr().err
