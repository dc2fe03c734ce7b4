# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Devices opened for work: woken, read, and put back as they were found."""

from __future__ import annotations

import contextlib
import functools
from types import MappingProxyType
from typing import Callable, Iterator, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError
from .._core.parallel import each
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .._pci import bus
from .._pci.errors import Bar0Unreadable, DeviceGone
from .._pci.guard import check_there
from .._pci.use import FREE, Claims
from .admin_tools import AdminTools, ToolDevice
from .errors import BootFailed, InRecovery, InvalidKnob, VirtualFunction
from .families import Family, supported
from .kind import is_identified, is_nvswitch, may_be_nvidia
from .mode import GPU, NVSWITCH, UNSUPPORTED, Knob, active, pending

# PCI Power Management 5.6.1: 10 ms from D3hot to D0.
WAKE_S = 0.01
# A boot takes about 2 s: looking every 10 ms costs nothing and adds at most that to a change.
BOOT_POLL_S = 0.01
# A boot that takes longer is worth a look whether the firmware is in recovery, in which it never ends.
USUAL_BOOT_S = 5.0


class Found(NamedTuple):
    """What was read from one device.

    ``mode`` is None when it could not be read; ``problem`` says why, or why the knobs could not be read.
    """

    address: str
    kind: str
    device_id: int
    name: str = ""
    chip: str = ""
    module_id: Optional[str] = None
    family: Optional[Family] = None
    supported: tuple[str, ...] = ()  # none while the knobs are not known
    mode: Optional[str] = None
    pending: Optional[str] = None
    knobs: Mapping[Knob, int] = MappingProxyType({})
    unknown_knobs: tuple[Knob, ...] = ()  # of the family's, those that this firmware does not know
    firmware: str = "unknown"  # booted, booting, recovery, none (no firmware that can be asked)
    problem: Optional[ExplainedError] = None

    @property
    def firmware_too_old(self) -> bool:
        """The family does PPCIe, this firmware does not."""
        return Knob.PPCIE in self.unknown_knobs


class Device:
    """One open device."""

    def __init__(
        self, function: bus.Function, tool: Optional[ToolDevice], problem: Optional[ExplainedError] = None
    ) -> None:
        self.function = function
        self.address = function.address
        self.kind = NVSWITCH if is_nvswitch(function) else GPU
        self._tool = tool
        self.problem = problem

    @property
    def tool(self) -> ToolDevice:
        """NVIDIA's view of it; only for a device without a problem."""
        if self._tool is None:
            raise RuntimeError("a device with a problem has no tool")
        return self._tool

    def wait_for_boot(self, timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> None:
        """Return when the firmware has booted. Raises InRecovery, BootFailed with what the registers say."""
        if not self.tool.has_modes:
            return
        deadline = clock.now() + timeout_s
        with contextlib.suppress(TimeoutError):
            poll(lambda: self.tool.boot().done, min(timeout_s, USUAL_BOOT_S), BOOT_POLL_S, clock)
        self._check_recovery()
        try:
            poll(lambda: self.tool.boot().done, deadline - clock.now(), BOOT_POLL_S, clock)
        except TimeoutError as error:
            self.tool.check_answers()
            boot = self.tool.boot()
            raise BootFailed(
                "%s: the firmware has not booted after %g s: register 0x%x = 0x%x, not 0xff."
                % (self.address, timeout_s, boot.register, boot.value),
                "Power-cycle the host; raise boot_timeout if the device needs longer; update its firmware.",
                device=self.address,
                register=boot.register,
                value=boot.value,
                registers=self._diagnostics(),
            ) from error

    def _check_recovery(self) -> None:
        if self.tool.in_recovery():
            registers = self._diagnostics()
            raise InRecovery(
                "%s: the firmware is in recovery mode (%s)."
                % (self.address, ", ".join("%s = %s" % pair for pair in registers.items()) or "no further register"),
                "A device in recovery cannot be configured: update its firmware, then power-cycle the host.",
                device=self.address,
                registers=registers,
            )

    def _diagnostics(self) -> dict[str, str]:
        """What the registers say beside a finding; they cannot hide it."""
        with contextlib.suppress(ExplainedError):
            return self.tool.diagnostics()
        return {}

    def mode(self) -> str:
        """The active mode of a booted device, from its registers."""
        family = self.tool.family
        cc = self.tool.cc_mode() if family.cc_register is not None else None
        return active(cc, family.ppcie_register is not None and self.tool.ppcie_is_on())

    def knobs(self) -> tuple[dict[Knob, int], tuple[Knob, ...]]:
        """The stored value of each knob that the modes depend on, and the knobs that the firmware does not know."""
        values, unknown = {}, []
        for knob in self.tool.family.knobs:
            try:
                values[knob] = self.tool.read_knob(knob)
            except InvalidKnob:
                unknown.append(knob)
        return values, tuple(unknown)

    def read(self, boot_timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> Found:
        """Everything that a plan needs to know. Raises the errors of each step, except where only knobs are missing."""
        tool = self.tool
        about = Found(self.address, self.kind, self.function.device_id, tool.name, tool.chip)
        if not tool.has_modes:
            return about._replace(mode=UNSUPPORTED, firmware="none")
        family = tool.family
        self.wait_for_boot(boot_timeout_s, clock)
        about = about._replace(family=family, mode=self.mode(), firmware="booted")
        try:
            knobs, unknown = self.knobs()
        except (DeviceGone, Bar0Unreadable):
            raise  # the mode is not known any more, either
        except ExplainedError as error:
            return about._replace(problem=error)
        return about._replace(
            module_id=self._module_id(),
            supported=supported(family, unknown),
            pending=pending(knobs),
            knobs=knobs,
            unknown_knobs=unknown,
        )

    def _module_id(self) -> Optional[str]:
        with contextlib.suppress(ExplainedError):
            return self.tool.module_id
        return None

    def broken(self, problem: ExplainedError) -> Found:
        """What can still be said of a device that could not be read."""
        recovering = isinstance(problem, InRecovery)
        firmware = "recovery" if recovering else "booting" if isinstance(problem, BootFailed) else "unknown"
        name, chip = (self._tool.name, self._tool.chip) if self._tool else ("", "")
        return Found(self.address, self.kind, self.function.device_id, name, chip, firmware=firmware, problem=problem)


@contextlib.contextmanager
def opened(
    functions: Sequence[bus.Function], tools: AdminTools, claims: Claims, clock: Clock = SYSTEM_CLOCK
) -> Iterator[list[Device]]:
    """Open the NVIDIA functions among these, put all back at the end; one that fails is a Device with its problem.

    A function that somebody else uses by then is theirs, and left as it is.
    """
    undo: dict[str, list[Callable[[], None]]] = {}
    try:
        devices = []
        for outcome in each(functions, lambda function: function.open()):
            function = outcome.item
            if outcome.error is not None:
                devices.append(Device(function, None, outcome.error))
            elif may_be_nvidia(function):
                device = _device(function, tools, undo.setdefault(function.address, []), clock)
                if not isinstance(device.problem, VirtualFunction):
                    devices.append(device)
        yield devices
    finally:
        _undo(functions, undo, claims)


def _undo(functions: Sequence[bus.Function], undo: Mapping[str, Sequence[Callable[[], None]]], claims: Claims) -> None:
    """Put back what was changed, newest first, and close. What fails has no say over what was done or went wrong."""
    changed = [function for function in functions if undo.get(function.address)]
    uses = claims.take(changed) if changed else {}
    for function in functions:
        steps = undo.get(function.address, ()) if function in changed and uses[function.address].state == FREE else ()
        for step in reversed(steps):
            with contextlib.suppress(ExplainedError, OSError):
                step()
        function.close()


def _device(function: bus.Function, tools: AdminTools, undo: list[Callable[[], None]], clock: Clock) -> Device:
    try:
        _check_identity(function)
        _wake(function, undo, clock)
        return Device(function, tools.open(function))
    except ExplainedError as error:
        return Device(function, None, error)


def _check_identity(function: bus.Function) -> None:
    check_there(function)
    if not is_identified(function):
        raise DeviceGone(
            "%s: it cannot be told what the device is (vendor 0x%04x, class 0x%06x)."
            % (function.address, function.vendor_id, function.class_code),
            "Run again; rescan the bus or power-cycle the host if it stays.",
            device=function.address,
        )


def _wake(function: bus.Function, undo: list[Callable[[], None]], clock: Clock) -> None:
    """Bring the function to D0 with memory decoding on, and undo exactly what was changed for that."""
    control = function.power_control()
    if control is not None and control != "on":
        function.set_power_control("on")
        undo.append(functools.partial(function.set_power_control, control))
    config = function.config
    pm = bus.capability(config, bus.CAPABILITY_PM)
    state = config.read16(pm + bus.PM_CONTROL) & bus.PM_STATE_MASK if pm is not None else 0
    if pm is not None and state:
        header = bus.programmed(config)
        control_register = config.read16(pm + bus.PM_CONTROL)
        awake = control_register & ~bus.PM_STATE_MASK
        config.write16(pm + bus.PM_CONTROL, awake)
        undo.append(functools.partial(_put_back, config, pm + bus.PM_CONTROL, awake | state, bus.PM_STATE_MASK))
        clock.sleep(WAKE_S)
        if not control_register & bus.PM_NO_SOFT_RESET:  # PCI Power Management 5.4.1: then waking resets the function
            bus.program(config, header)
    command = config.read16(bus.COMMAND)
    if not command & bus.COMMAND_MEMORY:  # the tool switches it on
        undo.append(functools.partial(_put_back, config, bus.COMMAND, command, bus.COMMAND_MEMORY))


def _put_back(config: bus.Space, offset: int, before: int, mask: int) -> None:
    """Put the masked bits of a register back, if they differ; a device that is gone has nothing to put back."""
    now = config.read16(offset)
    if now != 0xFFFF and (now ^ before) & mask:
        config.write16(offset, now & ~mask | before & mask)


def read_all(devices: list[Device], boot_timeout_s: float, clock: Clock = SYSTEM_CLOCK) -> list[Found]:
    """Read every device at once; one that cannot be read is Found with its problem."""

    def read(device: Device) -> Found:
        if device.problem is not None:
            return device.broken(device.problem)
        try:
            return device.read(boot_timeout_s, clock)
        except ExplainedError as error:
            return device.broken(error)

    return [outcome.answer for outcome in each(devices, read) if outcome.answer is not None]
