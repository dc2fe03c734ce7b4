# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""BAR0 registers that only show who the device is and how it is: identity, boot, active mode, engines."""

from __future__ import annotations

from dataclasses import dataclass

from . import registers as reg
from .mode import ActiveMode
from .models import Family
from .spec import DeviceSpec

# What the boot register shows when firmware gave up.
BOOT_FAILED = 0x1
# In recovery Blackwell shows a status that is neither 0 nor 1.
BLACKWELL_IN_RECOVERY = 0x2
ENGINE_TYPE = {Family.HOPPER: reg.PTOP_TYPE_IOCTRL, Family.BLACKWELL_1XX: reg.PTOP_TYPE_NVLINK_BLACKWELL}
# Hopper counts NVLink controllers of six links each, Blackwell counts links.
LINKS_PER_ENGINE = {Family.HOPPER: 6, Family.BLACKWELL_1XX: 1}


@dataclass(frozen=True, slots=True)
class Condition:
    """How a device is."""

    up: bool
    failed_boot: bool
    recovery: bool
    active: ActiveMode


def shown(spec: DeviceSpec, how: Condition) -> dict[int, int]:
    """Offset to value."""
    family = spec.product.family
    values = {reg.PMC_BOOT_0: spec.boot_0}
    if spec.is_gpu:
        is_virtual = reg.PMC_BOOT_1_VGPU_VF if family is Family.VIRTUAL else reg.PMC_BOOT_1_VGPU_REAL
        values[reg.PMC_BOOT_1] = reg.PMC_BOOT_1_VGPU.put(is_virtual)
    if family is Family.VIRTUAL:
        return values
    values[reg.PDI_LOW], values[reg.PDI_HIGH] = spec.pdi & 0xFFFFFFFF, spec.pdi >> 32
    if family in (Family.AMPERE, Family.UNKNOWN):
        # The PMU is held in reset and its mailbox is empty: no driver is loaded.
        values[reg.PMU_ENGINE_RESET] = 1
        values[reg.PMU_MAILBOX] = 0
        values[reg.AMPERE_BOOT_COMPLETE] = reg.AMPERE_BOOT_COMPLETE_SUCCESS if how.up else 0
        return values
    values.update(_boot(family, how))
    # The active mode is not shown before the firmware has put it there.
    if (mode := (how.active if how.up else ActiveMode()).register(family)) is not None:
        values[mode[0]] = mode[1]
    values[reg.FSP_MEMORY_PORTS] = reg.FSP_IMEM_PORTS.put(1) | reg.FSP_DMEM_PORTS.put(1)
    values[reg.FSP_MEMORY_SIZES] = reg.FSP_IMEM_SIZE.put(0x300) | reg.FSP_DMEM_SIZE.put(0x200)
    values[reg.FSP_EMEM_SIZE] = reg.FSP_EMEM_SIZE_BLOCKS.put(32)
    values.update(_engine_table(family, spec.product.nvlinks))
    if family is Family.HOPPER and spec.product.sxm:
        straps = spec.module_id ^ spec.product.strap_flip
        for bit, offset in enumerate(reg.MODULE_STRAPS):
            values[offset] = reg.MODULE_STRAP_BIT.put(straps >> bit & 1)
    return values


def _boot(family: Family, how: Condition) -> dict[int, int]:
    boot_register, flags_register = _boot_registers(family)
    values = {boot_register: _boot_status(family, how), flags_register: 0}
    if family.is_blackwell:
        values[reg.BLACKWELL_RECOVERY] = BLACKWELL_IN_RECOVERY if how.recovery else 0
    else:
        values[flags_register] = reg.BOOT_FLAGS_RECOVERY.put(how.recovery)
    for word in range(4):
        values[reg.FSP_STATUS[word]] = 0xDEAD0000 | word if how.failed_boot or how.recovery else 0
    return values


def _boot_registers(family: Family) -> tuple[int, int]:
    if family is Family.LS10:
        return reg.BOOT_COMPLETE_LS10, reg.BOOT_FLAGS_LS10
    if family is Family.BLACKWELL_2XX:
        return reg.BOOT_COMPLETE_GB2XX, reg.BOOT_FLAGS_GB2XX
    return reg.BOOT_COMPLETE, reg.BOOT_FLAGS


def _boot_status(family: Family, how: Condition) -> int:
    """While it boots, Blackwell's register cannot be read at all, the others' shows 0."""
    if how.up:
        return reg.BOOT_COMPLETE_SUCCESS
    if how.failed_boot or how.recovery:
        return BOOT_FAILED
    return reg.BUS_ERROR_BOOTING if family.is_blackwell else 0


def _engine_table(family: Family, nvlinks: int) -> dict[int, int]:
    """Only the NVLink engines are listed; hardware has 353 rows, most of them empty."""
    engines = nvlinks // LINKS_PER_ENGINE[family] if family in ENGINE_TYPE else 0
    table = {
        reg.PTOP_DEVICE_INFO_CFG: reg.PTOP_DEVICE_INFO_CFG_VERSION.put(2)
        | reg.PTOP_DEVICE_INFO_CFG_NUM_ROWS.put(engines)
    }
    for row in range(engines):
        kind = reg.PTOP_DEVICE_INFO2_TYPE.put(ENGINE_TYPE[family])
        table[reg.PTOP_DEVICE_INFO2[row]] = kind | reg.PTOP_DEVICE_INFO2_INSTANCE.put(row)
    return table
