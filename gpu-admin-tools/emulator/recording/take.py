# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Record a device: look whether it can be read as it is, then read what may be read."""

from __future__ import annotations

from .. import registers as reg
from ..models import Family
from . import config_words as words
from .bar0_words import CONDITION, MODE, REACH, is_bus_error, read_registers
from .config_words import ConfigWords
from .errors import RecordingError
from .form import Recording, checked_family, make
from .source import Source

COMMAND_MEMORY = 0x2
GONE = "it has fallen off the bus or has no power; look for PCIe errors in the kernel's log, power-cycle the host"
# Blackwell's BAR firewall: distance from the capability of health, and the bit that is 1 while it is up.
FIREWALL = {Family.BLACKWELL_1XX: (0x08, 1 << 20), Family.BLACKWELL_2XX: (0x14, 1 << 24)}


def take(source: Source) -> Recording:
    """A recording without knobs. Raises RecordingError for a device that is not at rest; nothing is woken."""
    if source.config(words.IDS) & 0xFFFF == 0xFFFF:
        raise RecordingError(f"the device does not answer: its vendor id reads ffff; {GONE}")
    config = words.walk(source.config)
    family = checked_family(config)
    before = source.config(words.IDS), source.config(words.COMMAND_STATUS) & 0xFFFF
    _check_reachable(source, config, family)
    boot_0 = source.register(reg.PMC_BOOT_0)
    _check_boot_0(boot_0)
    family = checked_family(config, boot_0)
    registers = read_registers(family, source.register)
    again = words.IDS, words.COMMAND_STATUS
    state = [reg.PMC_BOOT_0, *CONDITION[family][:2], MODE[family]]
    if before != tuple(source.config(at) & mask for at, mask in zip(again, (words.ALL, 0xFFFF), strict=True)) or any(
        source.register(at) != registers[at] for at in state
    ):
        raise RecordingError("the device changed while it was read; wait until nobody works with it, and record again")
    return make(_bar_bytes(source, config), config, registers)


def _check_reachable(source: Source, config: ConfigWords, family: Family) -> None:
    """Whether registers can be read without a change to the device."""
    power = config.place(words.POWER)
    if power is not None and (state := source.config(power + 4) & 0x3):
        raise RecordingError(
            f"the device sleeps (D{state}), and a recorder wakes nothing; where nobody uses it, write `on` to its file "
            "power/control in sysfs, and record again"
        )
    if not source.config(words.COMMAND_STATUS) & COMMAND_MEMORY:
        raise RecordingError(
            "the device's memory space is off (COMMAND bit 1), and a recorder changes nothing; where nobody uses it, "
            "switch it on (`setpci -s ADDRESS COMMAND=2:2`), and record again"
        )
    health = config.health(family)
    if health is not None and family in FIREWALL:
        distance, bit = FIREWALL[family]
        if source.config(health.offset + distance) & bit:
            raise RecordingError("the device's BAR firewall is up: its firmware boots; wait, and record again")
    if source.bar_bytes(0) < REACH:
        raise RecordingError(f"BAR0 has {source.bar_bytes(0)} bytes, and not the {REACH} that these devices have")


def _check_boot_0(boot_0: int) -> None:
    if boot_0 == reg.ALL_ONES:
        raise RecordingError(f"the device does not answer: register 0x0 reads 0xffffffff; {GONE}")
    if is_bus_error(boot_0) or boot_0 >> 16 == 0xBAD0:
        raise RecordingError(f"it reports a security fault: register 0x0 reads {boot_0:#x}; power-cycle the host")


def _bar_bytes(source: Source, config: ConfigWords) -> tuple[int, int]:
    second = 2 if words.is_wide(config.words[words.BARS]) else 1
    return source.bar_bytes(0), source.bar_bytes(second)
