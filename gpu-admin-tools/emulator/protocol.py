# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The vfio-user messages, so that every offset of the wire format is written down once.

Source: libvfio-user, docs/vfio-user.rst (protocol 0.9.x), and linux/vfio.h for the structures inside the messages.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

# u16 message id, u16 command, u32 size including this header, u32 flags, u32 errno.
HEADER = struct.Struct("<HHIII")
# u64 offset, u32 region, u32 count, followed by the data of a write or of a read's reply.
REGION_ACCESS = struct.Struct("<QII")
# A read request or a write reply whole, so that the hot path needs one call.
READ_REQUEST = struct.Struct("<HHIIIQII")
# u16 major, u16 minor, followed by JSON and a NUL.
VERSION = struct.Struct("<HH")
# u32 argsz, flags, num_regions, num_irqs.
DEVICE_INFO = struct.Struct("<IIII")
# u32 argsz, flags, index, cap_offset, u64 size, offset.
REGION_INFO = struct.Struct("<IIIIQQ")
# u32 argsz, flags, index, count.
IRQ_INFO = struct.Struct("<IIII")

MAJOR = 0
# QEMU refuses a server whose minor version is above its own, which is 0.
MINOR = 0
# The largest payload of one access; both sides split longer ones.
MAX_DATA = 1 << 16
# No request is longer than a full write with its header; a longer one is garbage.
MAX_MESSAGE = HEADER.size + REGION_ACCESS.size + MAX_DATA
MAX_FDS = 8

TYPE_MASK = 0xF
TYPE_COMMAND = 0x0
TYPE_REPLY = 0x1
NO_REPLY = 0x10
ERROR = 0x20


class Command(IntEnum):
    """Message kinds; those not handled are answered with ENOTSUP."""

    VERSION = 1
    DMA_MAP = 2
    DMA_UNMAP = 3
    DEVICE_GET_INFO = 4
    DEVICE_GET_REGION_INFO = 5
    DEVICE_GET_IRQ_INFO = 7
    DEVICE_SET_IRQS = 8
    REGION_READ = 9
    REGION_WRITE = 10
    DEVICE_RESET = 13


class DeviceFlag(IntFlag):
    """VFIO_DEVICE_FLAGS_*."""

    RESET = 0x1
    PCI = 0x2


class RegionFlag(IntFlag):
    """VFIO_REGION_INFO_FLAG_*; no MMAP, so every access is seen here."""

    READ = 0x1
    WRITE = 0x2


REGION_BAR0 = 0
REGION_BAR1 = 2  # BAR0 is 64 bits wide and takes the register of region 1
REGION_CONFIG = 7
REGION_COUNT = 9
IRQ_COUNT = 5
REGION_NAMES = {0: "bar0", 1: "bar0-high", 2: "bar1", 3: "bar1-high", 6: "rom", 7: "config", 8: "vga"}


def reply(message_id: int, command: int, body: bytes = b"") -> bytes:
    """A successful answer."""
    return HEADER.pack(message_id, command, HEADER.size + len(body), TYPE_REPLY, 0) + body


def error_reply(message_id: int, command: int, errno: int) -> bytes:
    """An answer that carries an errno and nothing else."""
    return HEADER.pack(message_id, command, HEADER.size, TYPE_REPLY | ERROR, errno)
