# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One emulated device: life cycle (reset, boot, power), BAR0 dispatch, and the parts that make it up.

Time is read from an injected clock and acted upon lazily: `deadline` is the next moment at which something changes
by itself, and whoever touches the device calls `advance` first when that moment has passed.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any, Protocol

from . import registers as reg
from . import replay
from .config_space import Effect
from .emem import EmemTransport
from .faults import HOST_ACTIONS, RPC_EVENTS, Access, Fault
from .fsp import NEVER, Fsp, RpcRecord
from .identity import Condition, shown
from .knobs import KnobStore
from .layout import D3HOT, config_space, enable_virtual_functions, health, program, virtualization
from .mnoc import MnocTransport
from .mode import ActiveMode, knobs_for
from .models import Family
from .spec import DeviceSpec

# A made-up code, in the place where hardware puts the cause of a security fault.
SEC_FAULT_CODE = 0x0000002D


class Phase(Enum):
    """Where a device is between reset and use."""

    RESET = auto()
    BOOT = auto()
    UP = auto()


class Host(Protocol):
    """What a device needs of the server: faults, the connection's fate, the log, the state file."""

    def fire(self, device: Device, event: str, knob: str | None = None, access: Access | None = None) -> list[Fault]:
        """The faults that strike on an event."""

    def perform(self, device: Device, fault: Fault) -> None:
        """Do what a fault does to connection or node; raises `Dropped` when the access must not be applied."""

    def note(self, device: Device, op: str, **details: object) -> None:
        """Log something."""

    def knobs_changed(self) -> None:
        """Save the persistent state."""


class Follower(Protocol):
    """A function that is there only as long as another one lets it be."""

    def follow(self) -> None:
        """Look whether it still does."""


class ResetRefused(Exception):
    """A reset that does not happen, with the errno that says so."""

    def __init__(self, errno: int) -> None:
        super().__init__(f"reset refused with errno {errno}")
        self.errno = errno


@dataclass(slots=True)
class Counters:
    """What happened to a device since the counters were reset."""

    reads: int = 0
    writes: int = 0
    resets: int = 0
    knob_reads: int = 0
    knob_writes: int = 0
    rpcs: int = 0
    boots: int = 0


class Device:
    """A GPU or an NVSwitch behind one socket."""

    # More attributes than Python looks up fast in a dictionary, and every access looks up several.
    __slots__ = (
        "_active",
        "_boot_at",
        "_clock",
        "_config_at",
        "_failed_boot",
        "_firewall_at",
        "_firewall_up",
        "_health",
        "_host",
        "_peekers",
        "_phase",
        "_readers",
        "_recovery",
        "_retries",
        "_scratch",
        "_sec_fault",
        "_sriov",
        "_values",
        "_writers",
        "address",
        "bar0_errno",
        "bars_answer",
        "config",
        "config_errno",
        "counters",
        "dark",
        "deadline",
        "family",
        "fsp",
        "hung",
        "knobs",
        "off_bus",
        "spec",
        "transport",
        "unpowered",
        "virtual_functions",
    )

    def __init__(self, spec: DeviceSpec, host: Host, clock: Callable[[], float] = time.monotonic) -> None:
        self.spec = spec
        self.address = spec.address
        self.family = spec.product.family
        self._host = host
        self._clock = clock
        self.counters = Counters()
        self.knobs = KnobStore(self._present_knobs(), spec.knobs)
        self.knobs.on_change = host.knobs_changed
        self.fsp = Fsp(self.knobs, self, spec.timing.rpc_s, seed=spec.pdi)
        transport = MnocTransport if self.family.is_blackwell else EmemTransport
        self.transport: MnocTransport | EmemTransport = transport(self.fsp, clock)
        self.config = config_space(spec)
        self._health = health(spec)
        self._sriov = virtualization(spec)
        # Functions that are there as long as this one lets them be.
        self.virtual_functions: list[Follower] = []
        self._readers: dict[int, Callable[[], int]] = {}
        # Of the registers whose reading changes something: the same without the change.
        self._peekers: dict[int, Callable[[], int]] = {}
        self._writers: dict[int, Callable[[int], None]] = {}
        if self.family.has_fsp:
            self._readers.update(self.transport.readers)
            self._peekers.update(self.transport.peekers)
            self._writers.update(self.transport.writers)
        if self.family is Family.LS10:
            self._readers[reg.LS10_GPIO] = self._read_gpio
        self._values: dict[int, int] = {}
        self._scratch: dict[int, int] = {}
        self.hung = False
        self.restore()

    def _present_knobs(self) -> frozenset[int]:
        old = {44, 45} if self.spec.old_firmware else set()
        return self.family.knob_ids - old - self.spec.unknown_knobs

    # --- life cycle -----------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """The node's initial state: knobs as described, active mode from them, booted."""
        self.knobs.restore()
        self.counters = Counters()
        self.repair(quietly=True)
        self._program()
        self._latch()
        if self.spec.recording is not None:
            self._active = replay.first_mode(self.spec.recording, self.knobs)
        self._recovery = self.spec.recovery
        self._lose_volatile_state(bus=True)
        self._phase = Phase.BOOT if self._recovery or self.unpowered else Phase.UP
        self.fsp.booted = self.family.has_fsp and self._phase is Phase.UP
        self._boot_at = NEVER
        self._firewall_up = False
        self._refresh()

    def repair(self, quietly: bool = False) -> None:
        """End what the faults that last have done; a device that did not boot boots now."""
        self.off_bus = False
        self._sec_fault = False
        self._recovery = False
        self._failed_boot = False
        self.bar0_errno = self.config_errno = 0
        if not quietly:
            self._program()
            self._lose_volatile_state(bus=True)
            self._latch()
            self._start_boot(self._clock())

    def _program(self) -> None:
        """Firmware's values and the described power state, virtual functions included."""
        program(self.config, self.spec)
        enable_virtual_functions(self.config, self.spec)
        self.unpowered = self.spec.power == "d3cold"

    def power_on(self) -> None:
        """Power was lost and came back: firmware assigned the BARs again, the device boots with its knobs."""
        self._sec_fault = self._recovery = False
        self.off_bus = self.unpowered = False
        program(self.config, self.spec)
        self._lose_volatile_state(bus=True)
        faults = self._strike("boot")
        self._latch_unless(faults)
        self._start_boot(self._clock(), faults)
        self._hand_over(faults)

    def set_power(self, state: str) -> None:
        """Another power state, as the kernel's runtime power management or the slot's switch brings it about."""
        if state == "d3cold":
            self.unpowered = True
            self._lose_volatile_state(bus=True)
            self._phase, self._boot_at, self._firewall_up = Phase.BOOT, NEVER, False
        elif self.unpowered:
            self.power_on()
        self._refresh()
        if self.config.pm is not None and state != "d3cold":
            self.write_config(self.config.pm.offset + 4, bytes([D3HOT if state == "d3hot" else 0]))

    def bus_reset(self) -> None:
        """A reset of the whole slot; config space comes back as it was, as VFIO gives it to its user.

        The slot's power is switched on with it. Raises ResetRefused; a device that is not there answers ENOTTY, which
        is what Linux reports when a device does not come back from its reset.
        """
        if self.off_bus or self._is_absent():
            self._host.note(self, "reset_refused", kind="bus", errno=errno.ENOTTY)
            raise ResetRefused(errno.ENOTTY)
        if self.unpowered:
            self._program()
            self.unpowered = False
        image = self.config.snapshot()
        self._reset("bus")
        self.config.restore(image)
        if self.config.pm is not None:
            self.config.pm.set_state(self.config, 0)
        self._refresh()

    def _reset(self, kind: str) -> None:
        faults = self.fire("reset")
        for fault in faults:
            if fault.action == "reset_error":
                self._host.note(self, "reset_refused", kind=kind, errno=fault.errno)
                raise ResetRefused(fault.errno)
        self.counters.resets += 1
        self._host.note(self, "reset", kind=kind)
        now = self._clock()
        self.config.reset()
        self._lose_volatile_state(bus=kind == "bus")
        struck = self._strike("boot")
        faults += struck
        self._latch_unless(faults)
        at_once = kind == "d3hot" or self.spec.during_reset == "data"
        self._start_boot(now, faults, dark_s=0.0 if at_once else self.spec.timing.flr_s)
        self._hand_over(struck)

    def _latch_unless(self, faults: list[Fault]) -> None:
        if not any(fault.action == "mode_stuck" for fault in faults):
            self._latch()

    def _latch(self) -> None:
        self._active = ActiveMode.latched(self.family, self.knobs)

    def _lose_volatile_state(self, bus: bool) -> None:
        """Registers and queues; a function-level reset spares the scratch words of the bus reset."""
        kept = {} if bus else {k: v for k, v in self._scratch.items() if k in (reg.SCRATCH_SBR, reg.SCRATCH_SBR_AMPERE)}
        self.fsp.reset()
        self.transport.reset()
        ls10 = self.family is Family.LS10
        names = [reg.SCRATCH_LS10, reg.LS10_GPIO] if ls10 else [reg.SCRATCH]
        names.append(reg.SCRATCH_SBR_AMPERE if self.family in (Family.AMPERE, Family.UNKNOWN) else reg.SCRATCH_SBR)
        self._scratch = dict.fromkeys(names, 0) | kept

    def _start_boot(self, now: float, faults: list[Fault] | None = None, dark_s: float = 0.0) -> None:
        """Config space answers after `dark_s`, the firmware is up `boot_s` after that, unless it fails."""
        timing = self.spec.timing
        self._failed_boot = any(fault.action == "no_boot" for fault in faults or ())
        self._phase = Phase.RESET if dark_s > 0 else Phase.BOOT
        self._config_at = now + dark_s
        self._firewall_at = self._config_at + (timing.firewall_s if self.family.is_blackwell else 0.0)
        self._boot_at = NEVER if self._failed_boot or self._recovery else self._config_at + timing.boot_s
        self._firewall_up = self._firewall_at > self._config_at
        self._refresh()
        self.advance(now)

    def advance(self, now: float) -> None:
        """Let everything happen whose time has come."""
        if self._phase is Phase.RESET and now >= self._config_at:
            self._phase = Phase.BOOT
            self._refresh()
        if self._firewall_up and now >= self._firewall_at and self._phase is not Phase.RESET:
            self._firewall_up = False
            self._refresh()
        if self._phase is Phase.BOOT and now >= self._boot_at:
            self._finish_boot()
        self.fsp.advance(now)
        self.transport.pump(now)
        self._set_deadline()

    def _finish_boot(self) -> None:
        self._phase = Phase.UP
        self._firewall_up = False
        self.fsp.booted = self.family.has_fsp
        self.counters.boots += 1
        self._host.note(self, "boot", mode=self._active.name)
        self._refresh()

    def _set_deadline(self) -> None:
        """The next moment at which something changes by itself."""
        waiting = [self.fsp.deadline]
        if self._phase is Phase.RESET:
            waiting.append(self._config_at)
        if self._firewall_up:
            waiting.append(self._firewall_at)
        if self._phase is Phase.BOOT:
            waiting.append(self._boot_at)
        self.deadline = min(waiting)

    def _refresh(self) -> None:
        """After a change of state: deadline, whether config space and BARs answer, registers that follow from it."""
        self._set_deadline()
        gone = self.off_bus or self.unpowered or self._is_absent()
        self.dark = gone or self._phase is Phase.RESET
        # Whether the root port says "retry" for it.
        self._retries = self.dark and not gone and self.spec.during_reset == "crs"
        if self._health is not None:
            self._health.show(self.config, self._firewall_up, SEC_FAULT_CODE if self._sec_fault else 0)
        self._gate()
        self._values = self._static_values()
        self._tell_virtual_functions()

    def _is_absent(self) -> bool:
        """Whether another function keeps this one from being there."""
        return False

    def lets_be(self, index: int) -> bool:
        """Whether the virtual function of this number, from 0, is there."""
        return self._sriov is not None and not self.dark and index < self._sriov.enabled(self.config)

    def _tell_virtual_functions(self) -> None:
        for function in self.virtual_functions:
            function.follow()

    def _gate(self) -> None:
        awake = self.config.memory_decode and self.config.in_d0
        self.bars_answer = awake and not self.dark and not self._firewall_up

    # --- registers ------------------------------------------------------------------------------------------------

    def _static_values(self) -> dict[int, int]:
        """Registers whose value only changes with the device's state."""
        if self._sec_fault:
            return {reg.PMC_BOOT_0: reg.BUS_ERROR_SECURITY}
        up = self._phase is Phase.UP
        values = shown(self.spec, Condition(up, self._failed_boot, self._recovery, self._active))
        if self.spec.recording is not None:
            values = replay.registers(self.spec.recording, values, at_rest=up and not self._recovery)
        return values | self._scratch

    def _read_gpio(self) -> int:
        """An LS10 shows the module strap that was selected by the last write."""
        selected = self._scratch[reg.LS10_GPIO]
        return selected | reg.LS10_GPIO_INPUT.put(self.spec.module_id >> (selected & 0x1F) & 1)

    def read_word(self, offset: int) -> int:
        """One aligned register."""
        reader = self._readers.get(offset)
        if reader is not None and not self._sec_fault:
            return reader()
        return self._values.get(offset, reg.BUS_ERROR_SECURITY if self._sec_fault else reg.BUS_ERROR)

    def write_word(self, offset: int, value: int) -> None:
        """One aligned register; a write to one that cannot be written is dropped."""
        writer = self._writers.get(offset)
        if writer is not None:
            writer(value)
            if self.fsp.deadline < self.deadline:
                self.deadline = self.fsp.deadline
        elif offset in self._scratch:
            self._scratch[offset] = self._values[offset] = value

    def read_bar0(self, offset: int, count: int) -> bytes:
        """Any size and alignment, made of aligned registers."""
        if not self.bars_answer:
            return b"\xff" * count
        if count == 4 and not offset & 3:
            return self.read_word(offset).to_bytes(4, "little")
        first, end = offset & ~3, offset + count
        words = b"".join(self.read_word(at).to_bytes(4, "little") for at in range(first, end, 4))
        return words[offset - first : end - first]

    def write_bar0(self, offset: int, data: bytes) -> None:
        """Aligned dwords only, as on hardware; the rest is dropped."""
        if not self.bars_answer or offset & 3 or len(data) & 3:
            return
        if len(data) == 4:
            self.write_word(offset, int.from_bytes(data, "little"))
            return
        for at in range(0, len(data), 4):
            self.write_word(offset + at, int.from_bytes(data[at : at + 4], "little"))

    def peek(self, region: str, offset: int, size: int) -> bytes:
        """What a client would read now, without what a read sets off."""
        if region == "config":
            return self.read_config(offset, size)
        if region == "bar1":
            return self.read_bar1(size)
        if not self.bars_answer:
            return b"\xff" * size
        first, end = offset & ~3, offset + size
        words = b"".join(self._peek_word(at).to_bytes(4, "little") for at in range(first, end, 4))
        return words[offset - first : end - first]

    def _peek_word(self, offset: int) -> int:
        peeker = self._peekers.get(offset)
        return self.read_word(offset) if peeker is None or self._sec_fault else peeker()

    def read_bar1(self, count: int) -> bytes:
        """The framebuffer's window: blank."""
        return (b"\x00" if self.bars_answer else b"\xff") * count

    # --- config space ---------------------------------------------------------------------------------------------

    def read_config(self, offset: int, count: int) -> bytes:
        """All ones while the device does not answer.

        During a reset a read of the vendor id gives 0x0001: the root port's way of saying "retry" (Request Retry
        Status), where it has that. Linux and NVIDIA's tool both wait for that value to go away.
        """
        if not self.dark:
            return bytes(self.config.data[offset : offset + count])
        if self._retries and offset == 0 and count >= 2:
            return b"\x01\x00" + b"\xff" * (count - 2)
        return b"\xff" * count

    def write_config(self, offset: int, data: bytes) -> None:
        """Dropped while the device does not answer."""
        if self.dark:
            return
        effect = self.config.write(offset, data)
        if effect is not None:
            try:
                self._reset("flr" if effect is Effect.FLR else "d3hot")
            except ResetRefused:
                self._host.note(self, "fault", action="reset_error")
        self._gate()
        if self.virtual_functions:
            self._tell_virtual_functions()

    # --- events and faults ----------------------------------------------------------------------------------------

    def fire(self, event: str, knob: str | None = None, access: Access | None = None) -> list[Fault]:
        """Count an event, let the faults that strike take hold, return them.

        Faults of the connection raise `Dropped` from here: what was about to happen then does not.
        """
        faults = self._strike(event, knob, access)
        self._hand_over(faults)
        return faults

    def _strike(self, event: str, knob: str | None = None, access: Access | None = None) -> list[Fault]:
        """The part that concerns the device itself; a boot that has begun must not be left half-way."""
        faults = self._host.fire(self, event, knob, access)
        for fault in faults:
            self._host.note(self, "fault", event=event, action=fault.action)
            self._suffer(fault)
        return faults

    def _hand_over(self, faults: list[Fault]) -> None:
        """The part that concerns connection and node."""
        for fault in faults:
            if fault.action in HOST_ACTIONS:
                self._host.perform(self, fault)

    def _suffer(self, fault: Fault) -> None:
        """Faults that last until the device is repaired."""
        if fault.action == "fall_off":
            self.off_bus = True
        elif fault.action == "sec_fault":
            self._sec_fault = True
        elif fault.action == "recovery":
            self._recovery = True
            self._phase = Phase.BOOT
            self._boot_at = NEVER
            self.fsp.reset()
        elif fault.action == "rpc_huge" and fault.event not in RPC_EVENTS:
            self.transport.claim(fault.words)
        elif fault.action == "bar0_error" and fault.event not in ("read", "write"):
            self.bar0_errno = fault.errno
        elif fault.action == "config_error" and fault.event not in ("read", "write"):
            self.config_errno = fault.errno
        else:
            return
        self._refresh()

    def rpc_done(self, record: RpcRecord) -> None:
        """Count and log a command."""
        self.counters.rpcs += 1
        self.counters.knob_reads += record.command == "knob_read"
        self.counters.knob_writes += record.command == "knob_write"
        op = record.command if record.command in ("knob_read", "knob_write") else "rpc"
        self._host.note(self, op, command=record.command, knob=record.knob, value=record.value, code=record.code)

    # --- control --------------------------------------------------------------------------------------------------

    def set_mode(self, name: str) -> None:
        """Knobs and active mode at once, as if the mode had been set and the device reset long ago."""
        self.knobs.store(knobs_for(self.family, name))
        self.set_active(name)

    def set_active(self, name: str) -> None:
        """The active mode alone, so that it differs from what the knobs say."""
        self._active = ActiveMode.named(self.family, name)
        self._refresh()

    def load_knobs(self, saved: Mapping[str, int]) -> None:
        """Take over knobs of an earlier run; the device has booted with them."""
        self.knobs.load_named(saved)
        self._latch()
        self._refresh()

    def state(self) -> dict[str, Any]:
        """A picture of the device for the control socket."""
        self.advance(self._clock())
        register = self._active.register(self.family)
        return {
            "model": self.spec.model,
            "mode": self._active.name,
            "active": register[1] if register else 0,
            "active_bar0_filter": self._active.bar0_filter,
            "knobs": self.knobs.named(),
            "booted": self._phase is Phase.UP,
            "power": "D3cold" if self.unpowered else "D0" if self.config.in_d0 else "D3hot",
            "answers": not self.dark,
            "physical_function": self.spec.physical_function,
            "off_bus": self.off_bus,
            "recovery": self._recovery,
            "sec_fault": self._sec_fault,
            "hung": self.hung,
            "counters": asdict(self.counters),
        }
