# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The registers that may be read of a device at rest, by family, and what they must say for it to be at rest.

Each is one that NVIDIA's gpu-admin-tools reads in every query (release 2025.11.21), so that reading it is known to
change nothing. Not among them: queues, mailboxes and the EMEM ports, whose reading can move a pointer; scratch words,
which tell of the host's last reset; the 64-bit unique id (PDI), which is a serial number.
"""

from __future__ import annotations

from collections.abc import Mapping

from .. import registers as reg
from ..models import CLASS_3D, CLASS_SWITCH, CLASS_VGA, Family
from .config_words import ReadWord
from .errors import RecordingError

# Device ids by family, first and last: NVIDIA's open kernel modules and gpu-admin-tools 2025.11.21.
DEVICE_IDS = (
    (0x22F0, 0x237F, Family.HOPPER),
    (0x2900, 0x297F, Family.BLACKWELL_1XX),
    (0x2980, 0x29FF, Family.BLACKWELL_1XX),
    (0x3180, 0x31FF, Family.BLACKWELL_1XX),
    (0x3200, 0x327F, Family.BLACKWELL_1XX),
    (0x2B80, 0x2BFF, Family.BLACKWELL_2XX),
    (0x2C00, 0x2C7F, Family.BLACKWELL_2XX),
    (0x2D00, 0x2DFF, Family.BLACKWELL_2XX),
    (0x2F00, 0x2F7F, Family.BLACKWELL_2XX),
)
# Architecture and implementation in `NV_PMC_BOOT_0`, by which a switch is known.
CHIP, CHIP_LS10 = reg.Field(31, 20), 0x007
# All fixed registers lie below.
REACH = 16 << 20

_FSP = (reg.FSP_MEMORY_PORTS, reg.FSP_MEMORY_SIZES, reg.FSP_EMEM_SIZE)
_STATUS = tuple(reg.FSP_STATUS[word] for word in range(4))
# What stays as it is for as long as the device is the same one.
IDENTITY: dict[Family, tuple[int, ...]] = {
    Family.HOPPER: (reg.PMC_BOOT_0, reg.PMC_BOOT_1, *reg.MODULE_STRAPS, *_FSP, reg.PTOP_DEVICE_INFO_CFG),
    Family.BLACKWELL_1XX: (reg.PMC_BOOT_0, reg.PMC_BOOT_1, *_FSP, reg.PTOP_DEVICE_INFO_CFG),
    Family.BLACKWELL_2XX: (reg.PMC_BOOT_0, reg.PMC_BOOT_1, *_FSP),
    Family.LS10: (reg.PMC_BOOT_0, *_FSP),
}
# What says that it is at rest: booted, and not in recovery.
CONDITION: dict[Family, tuple[int, ...]] = {
    Family.HOPPER: (reg.BOOT_COMPLETE, reg.BOOT_FLAGS, *_STATUS),
    Family.BLACKWELL_1XX: (reg.BOOT_COMPLETE, reg.BOOT_FLAGS, reg.BLACKWELL_RECOVERY, *_STATUS),
    Family.BLACKWELL_2XX: (reg.BOOT_COMPLETE_GB2XX, reg.BOOT_FLAGS_GB2XX, reg.BLACKWELL_RECOVERY, *_STATUS),
    Family.LS10: (reg.BOOT_COMPLETE_LS10, reg.BOOT_FLAGS_LS10, *_STATUS),
}
MODE = {
    Family.HOPPER: reg.HOPPER_MODE,
    Family.BLACKWELL_1XX: reg.BLACKWELL_MODE,
    Family.BLACKWELL_2XX: reg.BLACKWELL_MODE,
    Family.LS10: reg.LS10_MODE,
}
# The table of engines has 353 rows on Hopper.
MOST_ROWS = 512


def family_of(device_id: int, class_code: int, boot_0: int | None = None) -> Family | None:
    """The family by the ids in config space; of a switch by `NV_PMC_BOOT_0`, LS10 as long as that is not known."""
    if class_code == CLASS_SWITCH:
        return Family.LS10 if boot_0 is None or CHIP.get(boot_0) == CHIP_LS10 else None
    if class_code not in (CLASS_VGA, CLASS_3D):
        return None
    return next((family for first, last, family in DEVICE_IDS if first <= device_id <= last), None)


def read_registers(family: Family, read: ReadWord) -> dict[int, int]:
    """Read what may be read. Raises RecordingError for a table of engines that makes no sense."""
    found = {offset: read(offset) for offset in (*IDENTITY[family], *CONDITION[family], MODE[family])}
    if reg.PTOP_DEVICE_INFO_CFG in found:
        config = found[reg.PTOP_DEVICE_INFO_CFG]
        rows = 0 if is_bus_error(config) else reg.PTOP_DEVICE_INFO_CFG_NUM_ROWS.get(config)
        if rows > MOST_ROWS:
            raise RecordingError(f"register {reg.PTOP_DEVICE_INFO_CFG:#x}: {rows} engines are too many to be true")
        found.update({reg.PTOP_DEVICE_INFO2[row]: read(reg.PTOP_DEVICE_INFO2[row]) for row in range(rows)})
    return found


def is_bus_error(value: int) -> bool:
    """What the internal bus answers instead of data."""
    return value >> 16 == 0xBADF


def unrest(family: Family, registers: Mapping[int, int]) -> str:
    """Why the device is not at rest, '' if it is."""
    boot = CONDITION[family][0]
    if registers[boot] != reg.BOOT_COMPLETE_SUCCESS:
        return f"its firmware has not booted: register {boot:#x} reads {registers[boot]:#x}"
    if family.is_blackwell:
        status = reg.BLACKWELL_RECOVERY_STATUS.get(registers[reg.BLACKWELL_RECOVERY])
        return f"it is in recovery: register {reg.BLACKWELL_RECOVERY:#x} says {status}" if status > 1 else ""
    flags = CONDITION[family][1]
    recovering = reg.BOOT_FLAGS_RECOVERY.get(registers[flags])
    return f"it is in recovery: bit 30 of register {flags:#x} is 1" if recovering else ""


def is_virtual(registers: Mapping[int, int]) -> bool:
    """Whether `NV_PMC_BOOT_1` says that it is a virtual function."""
    return reg.PMC_BOOT_1_VGPU.get(registers.get(reg.PMC_BOOT_1, 0)) == reg.PMC_BOOT_1_VGPU_VF
