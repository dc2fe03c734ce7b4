# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One emulated device: life cycle (reset, boot, power), BAR0 dispatch, and the parts that make it up.

Time is read from an injected clock and acted upon lazily: `deadline` is the next moment at which something changes
by itself, and whoever touches the device calls `advance` first when that moment has passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any, Protocol

from . import registers as reg
from .config_space import (
    BAR0,
    BAR1,
    BAR_FLAGS,
    COMMAND,
    Capability,
    ConfigSpace,
    Effect,
    Express,
    Header,
    HealthDvsec,
    HealthVsec,
    PowerManagement,
    SerialNumber,
)
from .emem import EmemTransport
from .faults import HOST_ACTIONS, Fault
from .fsp import NEVER, Fsp, RpcRecord
from .knobs import KnobStore
from .mnoc import MnocTransport
from .mode import ActiveMode, knobs_for
from .models import MIB, Family
from .spec import DeviceSpec

# Where firmware would have put the BARs: one 64 GiB window per device above 128 GiB, BAR1 first.
WINDOW_BASE = 0x20_0000_0000
WINDOW_BYTES = 0x10_0000_0000
# A made-up code, in the place where hardware puts the cause of a security fault.
SEC_FAULT_CODE = 0x0000002D
# What the boot register shows when firmware gave up.
BOOT_FAILED = 0x1
# In recovery Blackwell shows a status that is neither 0 nor 1.
BLACKWELL_IN_RECOVERY = 0x2
ENGINE_TYPE = {Family.HOPPER: reg.PTOP_TYPE_IOCTRL, Family.BLACKWELL_1XX: reg.PTOP_TYPE_NVLINK_BLACKWELL}
# Hopper counts NVLink controllers of six links each, Blackwell counts links.
LINKS_PER_ENGINE = {Family.HOPPER: 6, Family.BLACKWELL_1XX: 1}


class Phase(Enum):
    """Where a device is between reset and use."""

    RESET = auto()
    BOOT = auto()
    UP = auto()


class Host(Protocol):
    """What a device needs of the server: faults, the connection's fate, the log, the state file."""

    def fire(self, device: Device, event: str, knob: str | None = None, region: str | None = None) -> list[Fault]:
        """The faults that strike on an event."""

    def perform(self, device: Device, fault: Fault) -> None:
        """Do what a fault does to connection or node; raises `Dropped` when the access must not be applied."""

    def note(self, device: Device, op: str, **details: object) -> None:
        """Log something."""

    def knobs_changed(self) -> None:
        """Save the persistent state."""


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
        self.config = self._build_config()
        self._health = self._build_health()
        self._readers: dict[int, Callable[[], int]] = {}
        self._writers: dict[int, Callable[[int], None]] = {}
        if self.family.has_fsp:
            self._readers.update(self.transport.readers)
            self._writers.update(self.transport.writers)
        if self.family is Family.LS10:
            self._readers[reg.LS10_GPIO] = self._read_gpio
        self._values: dict[int, int] = {}
        self._scratch: dict[int, int] = {}
        self.hung = False
        self.restore()

    def _present_knobs(self) -> frozenset[int]:
        return self.family.knob_ids - ({44, 45} if self.spec.old_firmware else set())

    def _build_config(self) -> ConfigSpace:
        product, space = self.spec.product, ConfigSpace()
        sizes = (product.bar0_mib * MIB, self.spec.bar1_mib * MIB)
        capabilities: list[Capability] = [
            Header(self.spec.device_id, self.spec.subsystem_id, product.class_code, *sizes),
            PowerManagement(),
            Express(self.spec.flr),
            SerialNumber(self.spec.pdi),
        ]
        if (health := self._build_health()) is not None:
            capabilities.append(health)
        space.seal(capabilities)
        return space

    def _build_health(self) -> HealthVsec | HealthDvsec | None:
        if self.family is Family.BLACKWELL_1XX:
            return HealthDvsec()
        if self.family in (Family.HOPPER, Family.BLACKWELL_2XX):
            return HealthVsec(firewall=self.family.is_blackwell)
        return None

    # --- life cycle -----------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """The node's initial state: knobs as described, active mode from them, booted."""
        self.knobs.restore()
        self.counters = Counters()
        self.repair(quietly=True)
        self._program_config()
        self._active = ActiveMode.latched(self.family, self.knobs)
        self._recovery = self.spec.recovery
        self._lose_volatile_state(bus=True)
        self._phase = Phase.BOOT if self._recovery else Phase.UP
        self.fsp.booted = self.family.has_fsp and not self._recovery
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
            self._program_config()
            self._lose_volatile_state(bus=True)
            self._latch()
            self._start_boot(self._clock())

    def power_on(self) -> None:
        """Power was lost and came back: firmware assigned the BARs again, the device boots with its knobs."""
        self._sec_fault = self._recovery = False
        self.off_bus = False
        self._program_config()
        self._lose_volatile_state(bus=True)
        faults = self._strike("boot")
        self._latch_unless(faults)
        self._start_boot(self._clock(), faults)
        self._hand_over(faults)

    def _program_config(self) -> None:
        """BARs and COMMAND as firmware leaves them, power state as described."""
        space, size = self.config, self.spec.bar1_mib * MIB
        space.reset()
        window = WINDOW_BASE + self.spec.index * WINDOW_BYTES
        space.data[BAR1 : BAR1 + 8] = (window | BAR_FLAGS).to_bytes(8, "little")
        bar0 = window + max(size, self.spec.product.bar0_mib * MIB)
        space.data[BAR0 : BAR0 + 8] = (bar0 | BAR_FLAGS).to_bytes(8, "little")
        space.data[COMMAND : COMMAND + 2] = (0x0006 if self.spec.memory_decode else 0).to_bytes(2, "little")
        if space.pm is not None:
            space.pm.set_state(space, 3 if self.spec.d3hot else 0)

    def function_reset(self) -> None:
        """FLR: BARs and COMMAND are lost, the software restores them."""
        self._reset(bus=False)

    def bus_reset(self) -> None:
        """A reset of the whole slot; config space comes back as it was, as VFIO gives it to its user."""
        image = self.config.snapshot()
        self._reset(bus=True)
        self.config.restore(image)
        if self.config.pm is not None:
            self.config.pm.set_state(self.config, 0)
        self._refresh()

    def _reset(self, bus: bool) -> None:
        faults = self.fire("reset")
        for fault in faults:
            if fault.action == "reset_error":
                raise ResetRefused(fault.errno)
        self.counters.resets += 1
        self._host.note(self, "reset", kind="bus" if bus else "flr")
        now = self._clock()
        self.config.reset()
        self._lose_volatile_state(bus)
        struck = self._strike("boot")
        faults += struck
        self._latch_unless(faults)
        self._start_boot(now, faults, dark_s=self.spec.timing.flr_s)
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
        self.dark = self.off_bus or self._phase is Phase.RESET
        if self._health is not None:
            self._health.show(self.config, self._firewall_up, SEC_FAULT_CODE if self._sec_fault else 0)
        self._gate()
        self._values = self._static_values()

    def _gate(self) -> None:
        awake = self.config.memory_decode and self.config.in_d0
        self.bars_answer = awake and not self.dark and not self._firewall_up

    # --- registers ------------------------------------------------------------------------------------------------

    def _static_values(self) -> dict[int, int]:
        """Registers whose value only changes with the device's state."""
        spec, up = self.spec, self._phase is Phase.UP
        if self._sec_fault:
            return {reg.PMC_BOOT_0: reg.BUS_ERROR_SECURITY}
        values = {
            reg.PMC_BOOT_0: spec.boot_0,
            reg.PDI_LOW: spec.pdi & 0xFFFFFFFF,
            reg.PDI_HIGH: spec.pdi >> 32,
            **self._scratch,
        }
        if self.family in (Family.AMPERE, Family.UNKNOWN):
            # The PMU is held in reset and its mailbox is empty: no driver is loaded.
            values[reg.PMU_ENGINE_RESET] = 1
            values[reg.PMU_MAILBOX] = 0
            values[reg.AMPERE_BOOT_COMPLETE] = reg.AMPERE_BOOT_COMPLETE_SUCCESS if up else 0
            return values
        boot_register, flags_register = self._boot_registers()
        values[boot_register] = self._boot_status()
        values[flags_register] = 0
        if self.family.is_blackwell:
            values[reg.BLACKWELL_RECOVERY] = BLACKWELL_IN_RECOVERY if self._recovery else 0
        else:
            values[flags_register] = reg.BOOT_FLAGS_RECOVERY.put(self._recovery)
        for word in range(4):
            values[reg.FSP_STATUS[word]] = 0xDEAD0000 | word if self._failed_boot or self._recovery else 0
        # The active mode is not shown before the firmware has put it there.
        shown = self._active if up else ActiveMode()
        if (mode := shown.register(self.family)) is not None:
            values[mode[0]] = mode[1]
        values[reg.FSP_MEMORY_PORTS] = reg.FSP_IMEM_PORTS.put(1) | reg.FSP_DMEM_PORTS.put(1)
        values[reg.FSP_MEMORY_SIZES] = reg.FSP_IMEM_SIZE.put(0x300) | reg.FSP_DMEM_SIZE.put(0x200)
        values[reg.FSP_EMEM_SIZE] = reg.FSP_EMEM_SIZE_BLOCKS.put(32)
        values.update(self._engine_table())
        if self.family is Family.HOPPER and spec.product.sxm:
            straps = spec.module_id ^ spec.product.strap_flip
            for bit, offset in enumerate(reg.MODULE_STRAPS):
                values[offset] = reg.MODULE_STRAP_BIT.put(straps >> bit & 1)
        return values

    def _boot_registers(self) -> tuple[int, int]:
        if self.family is Family.LS10:
            return reg.BOOT_COMPLETE_LS10, reg.BOOT_FLAGS_LS10
        if self.family is Family.BLACKWELL_2XX:
            return reg.BOOT_COMPLETE_GB2XX, reg.BOOT_FLAGS_GB2XX
        return reg.BOOT_COMPLETE, reg.BOOT_FLAGS

    def _boot_status(self) -> int:
        """While it boots, Blackwell's register cannot be read at all, the others' shows 0."""
        if self._phase is Phase.UP:
            return reg.BOOT_COMPLETE_SUCCESS
        if self._failed_boot or self._recovery:
            return BOOT_FAILED
        return reg.BUS_ERROR_BOOTING if self.family.is_blackwell else 0

    def _engine_table(self) -> dict[int, int]:
        """Only the NVLink engines are listed; hardware has 353 rows, most of them empty."""
        engines = 0
        if self.family in ENGINE_TYPE:
            engines = self.spec.product.nvlinks // LINKS_PER_ENGINE[self.family]
        table = {
            reg.PTOP_DEVICE_INFO_CFG: reg.PTOP_DEVICE_INFO_CFG_VERSION.put(2)
            | reg.PTOP_DEVICE_INFO_CFG_NUM_ROWS.put(engines)
        }
        for row in range(engines):
            kind = reg.PTOP_DEVICE_INFO2_TYPE.put(ENGINE_TYPE[self.family])
            table[reg.PTOP_DEVICE_INFO2[row]] = kind | reg.PTOP_DEVICE_INFO2_INSTANCE.put(row)
        return table

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
        for at in range(0, len(data), 4):
            self.write_word(offset + at, int.from_bytes(data[at : at + 4], "little"))

    def read_bar1(self, count: int) -> bytes:
        """The framebuffer's window: blank."""
        return (b"\x00" if self.bars_answer else b"\xff") * count

    # --- config space ---------------------------------------------------------------------------------------------

    def read_config(self, offset: int, count: int) -> bytes:
        """All ones while the device does not answer.

        During a reset a read of the vendor id gives 0x0001: the root port's way of saying "retry" (Request Retry
        Status). Linux and NVIDIA's tool both wait for that value to go away.
        """
        if not self.dark:
            return bytes(self.config.data[offset : offset + count])
        if offset == 0 and count >= 2 and not self.off_bus:
            return b"\x01\x00" + b"\xff" * (count - 2)
        return b"\xff" * count

    def write_config(self, offset: int, data: bytes) -> None:
        """Dropped while the device does not answer."""
        if self.dark:
            return
        effect = self.config.write(offset, data)
        if effect is Effect.FLR:
            try:
                self.function_reset()
            except ResetRefused:
                self._host.note(self, "fault", action="reset_error")
        self._gate()

    # --- events and faults ----------------------------------------------------------------------------------------

    def fire(self, event: str, knob: str | None = None, region: str | None = None) -> list[Fault]:
        """Count an event, let the faults that strike take hold, return them.

        Faults of the connection raise `Dropped` from here: what was about to happen then does not.
        """
        faults = self._strike(event, knob, region)
        self._hand_over(faults)
        return faults

    def _strike(self, event: str, knob: str | None = None, region: str | None = None) -> list[Fault]:
        """The part that concerns the device itself; a boot that has begun must not be left half-way."""
        faults = self._host.fire(self, event, knob, region)
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
            "power": "D0" if self.config.in_d0 else "D3hot",
            "off_bus": self.off_bus,
            "recovery": self._recovery,
            "sec_fault": self._sec_fault,
            "hung": self.hung,
            "counters": asdict(self.counters),
        }
