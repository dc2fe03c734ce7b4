# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices opened, woken, read and put back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import devices
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.admin_tools import AdminTools
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.devices import Device
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.errors import (
    BootFailed,
    InRecovery,
    RpcFailed,
    RpcGarbled,
    RpcTimeout,
    ToolFailed,
    UnknownDevice,
)
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.families import LAGUNA
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.mode import Knob
from ansible_collections.confidential.gpu.plugins.module_utils._pci import bus
from ansible_collections.confidential.gpu.plugins.module_utils._pci.errors import Bar0Unreadable, DeviceGone
from ansible_collections.confidential.gpu.plugins.module_utils._pci.use import Claims, Holder, Use

ADDRESS = "0000:17:00.0"
PM_CONTROL = 0x44


class Tools(AdminTools):
    """Opens every function as a tool device; remembers in which state it found it."""

    def __init__(self, fakes: Any, error: ExplainedError | None = None) -> None:
        self.fakes = fakes
        self.error = error
        self.seen: list[tuple[int, str | None]] = []

    def open(self, function: Any) -> Any:
        self.seen.append((function.config.read16(PM_CONTROL) & 3, function.power_control()))
        if self.error is not None:
            raise self.error
        return self.fakes.Tool(function.address, [])


@pytest.fixture
def device(fakes: Any) -> Any:
    function = fakes.Function()
    return Device(function, fakes.Tool(ADDRESS, []))


# --- opening, waking, putting back ------------------------------------------------------------------------------------


def test_a_device_that_is_awake_is_left_alone(fakes: Any, clock: Any) -> None:
    function = fakes.Function()
    with devices.opened([function], Tools(fakes), Claims(), clock) as (one,):
        assert function.is_open
        assert (one.address, one.kind, one.problem) == (ADDRESS, "gpu", None)
    assert not function.is_open
    assert function.memory.written == []
    assert clock.sleeps == []


def test_a_sleeping_device_is_woken_and_sleeps_again(fakes: Any, clock: Any) -> None:
    function = fakes.Function(pm_state=0x0103)
    function.power = "auto"
    tools = Tools(fakes)
    with devices.opened([function], tools, Claims(), clock):
        assert tools.seen == [(0, "on")]
        assert clock.sleeps == [devices.WAKE_S]
        function.memory.data[PM_CONTROL] |= 0x80  # something else in the register changed meanwhile
    assert function.memory.read16(PM_CONTROL) == 0x0183
    assert function.powers == ["on", "auto"]


def test_memory_decoding_is_put_back_and_nothing_beside_it(fakes: Any) -> None:
    function = fakes.Function()
    function.memory.data[4] = 0x00
    with devices.opened([function], Tools(fakes), Claims()):
        function.memory.data[4] = 0x06  # whoever maps BAR0 switches it on
    assert function.memory.data[4] == 0x04


def test_nothing_is_put_back_to_a_device_that_died(fakes: Any) -> None:
    function = fakes.Function(pm_state=0x0003)
    with devices.opened([function], Tools(fakes), Claims()):
        function.memory.data[:] = b"\xff" * 4096
        function.memory.written.clear()
    assert function.memory.written == []


class Guests(Claims):
    """Somebody uses the devices by the time that all is put back."""

    def take(self, functions: Any) -> dict[str, Use]:
        holder = Holder(ADDRESS, 4711, "qemu-system-x86", "/dev/vfio/27")
        return {function.address: Use(function.address, (holder,)) for function in functions}


def test_nothing_is_put_back_to_a_device_that_somebody_took(fakes: Any) -> None:
    function = fakes.Function(pm_state=0x0003)
    function.power = "auto"
    function.memory.data[4] = 0x00
    with devices.opened([function], Tools(fakes), Guests()):
        function.memory.data[4] = 0x06
        function.memory.written.clear()
    assert function.memory.written == []
    assert function.powers == ["on"]
    assert not function.is_open


@pytest.mark.parametrize("error", [None, DeviceGone("Gone.", "Look.")])
def test_what_cannot_be_put_back_changes_nothing_else(fakes: Any, error: ExplainedError | None) -> None:
    """It hides no error, fails no run that succeeded, and keeps nothing else from being put back."""
    function, other = fakes.Function(pm_state=0x0003), fakes.Function("0000:3b:00.0")
    function.power = other.power = "auto"
    expected = pytest.raises(DeviceGone, match="Gone") if error else contextlib.nullcontext()
    with expected, devices.opened([function, other], Tools(fakes), Claims()):
        function.set_power_control = refuse
        if error:
            raise error
    assert function.memory.read16(PM_CONTROL) & 3 == 3
    assert other.power == "auto"
    assert not other.is_open


def refuse(_setting: str) -> None:
    raise NotPermitted("No.", "Be root.")


def test_a_function_without_power_management(fakes: Any) -> None:
    function = fakes.Function()
    function.memory.data[0x34] = 0
    with devices.opened([function], Tools(fakes), Claims()) as (one,):
        assert one.problem is None


def test_a_device_that_fell_off_the_bus(fakes: Any) -> None:
    function = fakes.Function()
    function.power = "auto"
    function.memory.data[:] = b"\xff" * 4096
    with devices.opened([function], Tools(fakes), Claims()) as (one,):
        assert isinstance(one.problem, DeviceGone)
        assert "fallen off the bus: config space at 0xf0 reads 0xffff" in one.problem.cause
        assert one.problem.seen == {"device": ADDRESS, "register": 0xF0, "value": 0xFFFF}
        with pytest.raises(RuntimeError, match="has no tool"):
            _ = one.tool
    assert function.power == "auto"
    assert not function.is_open


def test_a_device_that_cannot_be_opened_does_not_stop_the_others(fakes: Any) -> None:
    gone, fine = fakes.Function("0000:17:00.0"), fakes.Function("0000:3b:00.0")
    gone.open_error = DeviceGone("Gone.", "Look.")
    with devices.opened([gone, fine], Tools(fakes), Claims()) as both:
        assert [one.problem for one in both] == [gone.open_error, None]


def test_a_device_that_the_tool_does_not_know(fakes: Any) -> None:
    function = fakes.Function()
    error = UnknownDevice("Unknown.", "Leave it out.")
    with devices.opened([function], Tools(fakes, error), Claims()) as (one,):
        assert one.problem is error


def test_functions_of_other_makers_are_passed_over_but_not_silent_ones(fakes: Any) -> None:
    other, audio, silent = fakes.Function("a"), fakes.Function("b", class_code=0x040300), fakes.Function("c")
    other.vendor_id = 0x8086
    silent.vendor_id, silent.class_code = 0xFFFF, 0xFFFFFF
    silent.memory.data[:] = b"\xff" * 4096
    with devices.opened([other, audio, silent], Tools(fakes), Claims()) as found:
        assert [one.address for one in found] == ["c"]
        assert isinstance(found[0].problem, DeviceGone)


# --- boot -------------------------------------------------------------------------------------------------------------


def test_boot_is_waited_for(device: Any, clock: Any) -> None:
    device.tool.booted = False
    clock.at(1.5, lambda: setattr(device.tool, "booted", True))
    device.wait_for_boot(5, clock)
    assert 1.5 <= clock.now() < 1.6


def test_a_device_without_a_security_processor_has_nothing_to_boot(device: Any, clock: Any) -> None:
    device.tool.has_modes = device.tool.booted = False
    device.wait_for_boot(5, clock)
    assert clock.sleeps == []


def test_firmware_that_does_not_boot(device: Any, clock: Any) -> None:
    device.tool.booted = False
    with pytest.raises(BootFailed) as caught:
        device.wait_for_boot(5, clock)
    assert caught.value.cause == (
        "0000:17:00.0: the firmware has not booted after 5 s: register 0x200bc = 0x1, not 0xff."
    )
    assert "boot_timeout" in caught.value.remedy
    assert caught.value.seen == {"device": ADDRESS, "register": 0x200BC, "value": 1, "registers": {"0x20120": "0x0"}}


@pytest.mark.parametrize("booted", [True, False])
def test_firmware_in_recovery(device: Any, clock: Any, booted: bool) -> None:
    device.tool.booted, device.tool.recovering = booted, True
    with pytest.raises(InRecovery) as caught:
        device.wait_for_boot(0, clock)
    assert caught.value.cause == "0000:17:00.0: the firmware is in recovery mode (0x20120 = 0x40000000)."
    assert "update its firmware" in caught.value.remedy


# --- reading ----------------------------------------------------------------------------------------------------------


def test_everything_is_read(device: Any, clock: Any) -> None:
    device.tool.stored.update({8: 1, 10: 2})
    device.tool.active[8] = 1
    found = device.read(5, clock)
    assert (found.mode, found.pending, found.firmware, found.module_id) == ("on", "on", "booted", "SXM_1")
    assert found.supported == ("off", "on", "devtools", "ppcie")
    assert found.knobs[Knob.BAR0_DECOUPLER] == 2
    assert len(found.knobs) == 7
    assert not found.firmware_too_old


def test_firmware_before_ppcie(device: Any, clock: Any) -> None:
    del device.tool.stored[45]
    found = device.read(5, clock)
    assert found.firmware_too_old
    assert found.supported == ("off", "on", "devtools")
    assert Knob.PPCIE not in found.knobs


@pytest.mark.parametrize("kind", [RpcFailed, RpcTimeout, RpcGarbled, ToolFailed])
def test_what_is_known_stands_when_only_knobs_cannot_be_read(
    device: Any, clock: Any, kind: type[ExplainedError]
) -> None:
    device.tool.active[8] = 1
    device.tool.read_errors[6] = kind("%s: refused." % ADDRESS, "Update.", device=ADDRESS)
    found = device.read(5, clock)
    assert (found.mode, found.firmware, found.name, found.chip) == ("on", "booted", "H100", "GH100")
    assert found.problem is device.tool.read_errors[6]
    assert (found.pending, found.supported, found.knobs) == (None, (), {})


@pytest.mark.parametrize("kind", [DeviceGone, Bar0Unreadable])
def test_the_mode_of_a_device_that_goes_is_not_known(device: Any, clock: Any, kind: type[ExplainedError]) -> None:
    device.tool.read_errors[6] = kind("%s: gone." % ADDRESS, "Look.", device=ADDRESS)
    with pytest.raises(kind):
        device.read(5, clock)


def test_a_place_on_the_board_that_cannot_be_told_changes_nothing(fakes: Any, clock: Any) -> None:
    class Unplaced(fakes.Tool):  # type: ignore[misc]
        @property
        def module_id(self) -> str:
            raise ToolFailed("%s: asserts." % ADDRESS, "Report this.")

        @module_id.setter
        def module_id(self, _value: str) -> None:
            pass

    found = Device(fakes.Function(), Unplaced(ADDRESS, [])).read(5, clock)
    assert (found.mode, found.module_id, found.problem) == ("off", None, None)
    assert found.supported == ("off", "on", "devtools", "ppcie")


def test_knobs_that_the_firmware_does_not_know(device: Any, clock: Any) -> None:
    del device.tool.stored[34], device.tool.stored[45]
    found = device.read(5, clock)
    assert found.unknown_knobs == (Knob.PPCIE, Knob.OPTION_34)
    assert found.supported == ("off",)


def test_firmware_that_does_not_boot_on_a_device_that_does_not_answer(device: Any, clock: Any) -> None:
    device.tool.booted = False
    device.tool.silent = DeviceGone("%s: gone." % ADDRESS, "Look.")
    with pytest.raises(DeviceGone):
        device.wait_for_boot(5, clock)


def test_what_cannot_be_read_beside_a_finding_does_not_hide_it(fakes: Any, clock: Any) -> None:
    class Mute(fakes.Tool):  # type: ignore[misc]
        def diagnostics(self) -> dict[str, str]:
            raise ToolFailed("%s: asserts." % ADDRESS, "Report this.")

    tool = Mute(ADDRESS, [])
    tool.recovering = True
    device = Device(fakes.Function(), tool)
    with pytest.raises(InRecovery) as caught:
        device.wait_for_boot(5, clock)
    assert caught.value.seen["registers"] == {}


def test_a_switch(fakes: Any, clock: Any) -> None:
    tool = fakes.Tool(ADDRESS, [])
    tool.family = LAGUNA
    tool.active[45] = 1
    device = Device(fakes.Function(class_code=0x068000), tool)
    found = device.read(5, clock)
    assert (found.kind, found.mode, found.supported) == ("nvswitch", "ppcie", ("off", "ppcie"))


def test_a_device_that_cannot_be_asked(device: Any, clock: Any) -> None:
    device.tool.has_modes = False
    found = device.read(5, clock)
    assert (found.mode, found.firmware, found.supported, found.pending) == ("unsupported", "none", (), None)


def test_all_are_read_and_problems_stay_with_their_device(fakes: Any, clock: Any) -> None:
    journal: list[Any] = []
    tools = [fakes.Tool(address, journal) for address in "abc"]
    sick = [Device(fakes.Function(tool.address), tool) for tool in tools]
    tools[0].recovering = True
    tools[1].booted = False
    tools[2].read_errors[8] = RpcFailed("c: refused.", "Update.", device="c", rpc_code=2)
    fine = Device(fakes.Function("d"), fakes.Tool("d", journal))
    unopened = Device(fakes.Function("e"), None, DeviceGone("e: gone.", "Look."))
    found = devices.read_all([*sick, fine, unopened], 0, clock)
    assert [one.firmware for one in found] == ["recovery", "booting", "booted", "booted", "unknown"]
    assert [type(one.problem).__name__ for one in found] == [
        "InRecovery",
        "BootFailed",
        "RpcFailed",
        "NoneType",
        "DeviceGone",
    ]
    assert [one.mode for one in found] == [None, None, "off", "off", None]
    assert [one.name for one in found] == ["H100", "H100", "H100", "H100", ""]


def test_putting_back_survives_a_device_that_cannot_be_reached(fakes: Any) -> None:
    class Dead(bus.Space):
        alive = True

        def __init__(self, data: bytearray) -> None:
            self.data = data

        def read(self, offset: int, size: int) -> int:
            if not self.alive:
                raise DeviceGone("Gone.", "Look.")
            return int.from_bytes(self.data[offset : offset + size], "little")

    function = fakes.Function()
    function.memory = Dead(function.memory.data)
    with devices.opened([function], Tools(fakes), Claims()) as (one,):
        assert one.problem is None
        function.memory.alive = False
    assert not function.is_open
