# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""BAR0 registers with their bit fields, declared once; what they do is in `device.py`, `emem.py` and `mnoc.py`.

Names follow NVIDIA's published manuals (open-gpu-kernel-modules, `dev_boot.h`, `nv_ref.h`, `dev_fsp_pri.h`,
`dev_therm.h`) where those name the register; the others are known only from the behaviour of NVIDIA's
gpu-admin-tools, release 2025.11.21, and have descriptive names here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Field(NamedTuple):
    """Bits high..low of a register."""

    high: int
    low: int

    @property
    def mask(self) -> int:
        """The field's bits, in place."""
        return ((1 << (self.high - self.low + 1)) - 1) << self.low

    def get(self, word: int) -> int:
        """The field's value in a register's value."""
        return (word & self.mask) >> self.low

    def put(self, value: int) -> int:
        """A register's value that has this field and nothing else."""
        return (value << self.low) & self.mask


@dataclass(frozen=True, slots=True)
class Bank:
    """A register that repeats for each port or channel."""

    base: int
    stride: int

    def __getitem__(self, index: int) -> int:
        return self.base + self.stride * index


# --- identity ---------------------------------------------------------------------------------------------------
PMC_BOOT_0 = 0x0
PMC_BOOT_1 = 0x4
PMC_BOOT_1_VGPU = Field(17, 16)
PMC_BOOT_1_VGPU_REAL = 0
PMC_BOOT_1_VGPU_VF = 2
PDI_LOW = 0x820344
PDI_HIGH = 0x820348
# SXM position on Hopper: one strap bit in each of three GPIO registers, least significant first.
MODULE_STRAPS = (0x21224, 0x21244, 0x21248)
MODULE_STRAP_BIT = Field(14, 14)
# SXM position of an LS10: write which strap to look at, read it back in one bit.
LS10_GPIO = 0xD740
LS10_GPIO_INPUT = Field(9, 9)
# Which engines the chip has: a table of rows, from which the number of NVLink controllers is counted.
PTOP_DEVICE_INFO_CFG = 0x224FC
PTOP_DEVICE_INFO_CFG_VERSION = Field(3, 0)
PTOP_DEVICE_INFO_CFG_NUM_ROWS = Field(31, 20)
PTOP_DEVICE_INFO2 = Bank(0x22800, 4)
PTOP_DEVICE_INFO2_INSTANCE = Field(23, 16)
PTOP_DEVICE_INFO2_TYPE = Field(30, 24)
PTOP_TYPE_IOCTRL = 18
PTOP_TYPE_NVLINK_BLACKWELL = 0x1C

# --- firmware boot ----------------------------------------------------------------------------------------------
BOOT_COMPLETE_SUCCESS = 0xFF
BOOT_COMPLETE = 0x200BC
BOOT_COMPLETE_GB2XX = 0xAD00BC
BOOT_COMPLETE_LS10 = 0x660BC
BOOT_FLAGS = 0x20120
BOOT_FLAGS_GB2XX = 0xAD0120
BOOT_FLAGS_LS10 = 0x66120
BOOT_FLAGS_RECOVERY = Field(30, 30)
BLACKWELL_RECOVERY = 0x8AA128
BLACKWELL_RECOVERY_STATUS = Field(7, 0)
FSP_STATUS = Bank(0x8F0320, 4)
AMPERE_BOOT_COMPLETE = 0x118234
AMPERE_BOOT_COMPLETE_SUCCESS = 0x3FF

# --- active mode ------------------------------------------------------------------------------------------------
HOPPER_MODE = 0x1182CC
HOPPER_MODE_CC = Field(1, 0)
HOPPER_MODE_PPCIE = Field(5, 5)
BLACKWELL_MODE = 0x590
BLACKWELL_MODE_CC = Field(1, 0)
BLACKWELL_MODE_BAR0_FILTER = Field(2, 2)
LS10_MODE = 0x28C50
LS10_MODE_PPCIE = Field(0, 0)

# --- scratch words that show which reset took place -------------------------------------------------------------
SCRATCH = 0x1458
SCRATCH_LS10 = 0xDFE0
SCRATCH_SBR = 0x91288
SCRATCH_SBR_AMPERE = 0x88E10

# --- the FSP, as a falcon ---------------------------------------------------------------------------------------
FSP_MEMORY_PORTS = 0x8F012C
FSP_IMEM_PORTS = Field(11, 8)
FSP_DMEM_PORTS = Field(15, 12)
FSP_MEMORY_SIZES = 0x8F0278
FSP_IMEM_SIZE = Field(11, 0)
FSP_DMEM_SIZE = Field(27, 16)
FSP_EMEM_SIZE = 0x8F0ABC
FSP_EMEM_SIZE_BLOCKS = Field(8, 0)

# --- the FSP's EMEM transport -----------------------------------------------------------------------------------
PFSP_EMEMC = Bank(0x8F2AC0, 8)
PFSP_EMEMC_OFFSET_MASK = 0x00FFFFFC
PFSP_EMEMC_AINCW = Field(24, 24)
PFSP_EMEMC_AINCR = Field(25, 25)
PFSP_EMEMD = Bank(0x8F2AC4, 8)
PFSP_QUEUE_HEAD = Bank(0x8F2C00, 8)
PFSP_QUEUE_TAIL = Bank(0x8F2C04, 8)
PFSP_MSGQ_HEAD = Bank(0x8F2C80, 8)
PFSP_MSGQ_TAIL = Bank(0x8F2C84, 8)

# --- the FSP's MNOC transport -----------------------------------------------------------------------------------
MNOC_BASE = 0x8F1E00
MNOC_SEND_INFO = Bank(MNOC_BASE + 0x104, 12)
MNOC_SEND_DATA = Bank(MNOC_BASE + 0x108, 12)
MNOC_RECEIVE_INFO = Bank(MNOC_BASE + 0x184, 12)
MNOC_RECEIVE_DATA = Bank(MNOC_BASE + 0x188, 12)
MNOC_SIZE = Field(19, 0)
MNOC_START = Field(20, 20)
MNOC_READY = Field(24, 24)
MNOC_ERROR = Field(25, 25)
MNOC_CREDIT = Field(26, 26)

# --- the PMU of older chips, from which a loaded driver is recognised ------------------------------------------
PMU_MAILBOX = 0x10A080
PMU_ENGINE_RESET = 0x10A3C0

# --- what the internal bus answers instead of data --------------------------------------------------------------
ALL_ONES = 0xFFFFFFFF
BUS_ERROR = 0xBADF5040
BUS_ERROR_BOOTING = 0xBADF4100
BUS_ERROR_SECURITY = 0xBADF0200
