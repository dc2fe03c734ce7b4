# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""PCI config space: a type 0 header and a chain of capabilities, each a class that fills in its bytes.

Every byte has a mask of the bits that software may write; writes change those and nothing else. Sources: PCI Local
Bus 3.0, PCI Express Base (capability layouts, which bits a function-level reset leaves alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

SIZE = 4096
VENDOR_NVIDIA = 0x10DE

VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION = 0x08
CACHE_LINE = 0x0C
HEADER_TYPE = 0x0E
BAR0 = 0x10
BAR1 = 0x18
SUBSYSTEM_VENDOR = 0x2C
SUBSYSTEM_ID = 0x2E
CAPABILITIES = 0x34
INTERRUPT_LINE = 0x3C

COMMAND_MEMORY = 0x2
# Memory, bus master, parity, SERR, INTx disable; there is no I/O space to enable.
COMMAND_WRITABLE = 0x0546
STATUS_CAPABILITIES = 0x10
# Memory, 64 bits wide, prefetchable.
BAR_FLAGS = 0xC


class Effect(Enum):
    """What a write to config space sets off besides changing bits."""

    FLR = auto()
    # From D3hot to D0 by a function that has no No_Soft_Reset: its internal state is lost.
    SOFT_RESET = auto()


class ConfigSpace:
    """4096 bytes with write masks; capabilities append themselves."""

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self._writable = bytearray(SIZE)
        # Bits that a function-level reset leaves as they are.
        self._sticky = bytearray(SIZE)
        self._reset_values = bytes(SIZE)
        self._last_pointer = CAPABILITIES
        self._last_extended: int | None = None
        self.pm: PowerManagement | None = None
        self.express: Express | None = None

    def put(self, offset: int, value: int, size: int, writable: int = 0, sticky: int = 0) -> None:
        """Set a field and say which of its bits can be written and which survive a reset."""
        self.data[offset : offset + size] = value.to_bytes(size, "little")
        self._writable[offset : offset + size] = writable.to_bytes(size, "little")
        self._sticky[offset : offset + size] = sticky.to_bytes(size, "little")

    def get(self, offset: int, size: int) -> int:
        """A field's value."""
        return int.from_bytes(self.data[offset : offset + size], "little")

    def patch(self, offset: int, value: int) -> None:
        """Change a dword from inside the device."""
        self.data[offset : offset + 4] = value.to_bytes(4, "little")

    def fix(self, offset: int, word: int, mask: int) -> None:
        """Give some bits of a dword values that neither software nor a reset changes."""
        self.patch(offset, self.get(offset, 4) & ~mask | word & mask)
        for index, bits in enumerate(mask.to_bytes(4, "little"), offset):
            self._writable[index] &= ~bits & 0xFF
            self._sticky[index] &= ~bits & 0xFF

    def chain(self, capability: int, offset: int) -> None:
        """Append to the list of capabilities."""
        self.data[self._last_pointer] = offset
        self.put(offset, capability, 1)
        self._last_pointer = offset + 1

    def chain_extended(self, capability: int, version: int, offset: int) -> None:
        """Append to the list of extended capabilities, which starts at 0x100."""
        self.put(offset, capability | version << 16, 4)
        if self._last_extended is not None:
            self.patch(self._last_extended, self.get(self._last_extended, 4) | offset << 20)
        self._last_extended = offset

    def seal(self, capabilities: Sequence[Capability]) -> None:
        """Lay out the capabilities; what is there now is what a reset returns to."""
        for capability in capabilities:
            capability.place(self)
        self._reset_values = bytes(self.data)

    def write(self, offset: int, payload: bytes) -> Effect | None:
        """Software's write; tells of a side effect."""
        effect = self.express.on_write(offset, payload) if self.express else None
        if effect is None and self.pm is not None:
            effect = self.pm.on_write(self, offset, payload)
        for index, byte in enumerate(payload, offset):
            mask = self._writable[index]
            if mask:
                self.data[index] = self.data[index] & ~mask & 0xFF | byte & mask
        return effect

    def reset(self) -> None:
        """Back to the reset values, sticky bits excepted."""
        for index, (mask, value) in enumerate(zip(self._sticky, self._reset_values, strict=True)):
            if mask or self.data[index] != value:
                self.data[index] = self.data[index] & mask | value & ~mask & 0xFF

    def snapshot(self) -> bytes:
        """All bytes, for a restore after a reset."""
        return bytes(self.data)

    def restore(self, image: bytes) -> None:
        """Write back what the reset took, as the kernel does after it has reset a device."""
        for index, mask in enumerate(self._writable):
            if mask:
                self.data[index] = self.data[index] & ~mask & 0xFF | image[index] & mask

    @property
    def memory_decode(self) -> bool:
        """The device answers at its BARs."""
        return bool(self.data[COMMAND] & COMMAND_MEMORY)

    @property
    def in_d0(self) -> bool:
        """Powered up."""
        return self.pm is None or self.pm.state(self) == 0


class Capability:
    """A part of config space that knows where and how to put itself."""

    def place(self, space: ConfigSpace) -> None:
        """Fill in the bytes and link them in."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Header(Capability):
    """The first 64 bytes: identity, COMMAND, BARs."""

    device_id: int
    subsystem_id: int
    class_code: int
    bar0_bytes: int
    bar1_bytes: int

    def place(self, space: ConfigSpace) -> None:
        space.put(VENDOR_ID, VENDOR_NVIDIA, 2)
        space.put(DEVICE_ID, self.device_id, 2)
        space.put(COMMAND, 0, 2, writable=COMMAND_WRITABLE)
        space.put(STATUS, STATUS_CAPABILITIES, 2)
        space.put(REVISION, 0xA1 | self.class_code << 8, 4)
        space.put(CACHE_LINE, 0, 1, writable=0xFF)
        space.put(HEADER_TYPE, 0, 1)
        # The address bits below the size cannot be written: that is how software finds the size.
        for offset, size in ((BAR0, self.bar0_bytes), (BAR1, self.bar1_bytes)):
            space.put(offset, BAR_FLAGS, 8, writable=-size & 0xFFFFFFFFFFFFFFFF)
        space.put(SUBSYSTEM_VENDOR, VENDOR_NVIDIA, 2)
        space.put(SUBSYSTEM_ID, self.subsystem_id, 2)
        space.put(INTERRUPT_LINE, 0, 1, writable=0xFF)


@dataclass(frozen=True, slots=True)
class PowerManagement(Capability):
    """PCI power management: D0 and D3hot.

    With No_Soft_Reset, as on NVIDIA's data-centre GPUs, going back to D0 keeps the registers; without it the function
    is as after a reset (PCI Express Base, 5.3.1.4.1).
    """

    no_soft_reset: bool = True
    offset: int = 0x60

    def place(self, space: ConfigSpace) -> None:
        space.chain(0x01, self.offset)
        space.put(self.offset + 2, 0x0003, 2)
        space.put(self.offset + 4, self.no_soft_reset << 3, 2, writable=0x3)
        space.pm = self

    def state(self, space: ConfigSpace) -> int:
        """PMCSR bits 1:0; the unsupported D1 and D2 count as awake."""
        return 3 if space.data[self.offset + 4] & 0x3 == 3 else 0

    def on_write(self, space: ConfigSpace, offset: int, payload: bytes) -> Effect | None:
        """The power state is in the low byte of PMCSR."""
        if self.no_soft_reset:
            return None
        index = self.offset + 4 - offset
        if 0 <= index < len(payload) and payload[index] & 0x3 != 3 and self.state(space) == 3:
            return Effect.SOFT_RESET
        return None

    def set_state(self, space: ConfigSpace, state: int) -> None:
        """Change the power state from inside, for a device that starts asleep."""
        space.data[self.offset + 4] = space.data[self.offset + 4] & 0xFC | state


@dataclass(frozen=True, slots=True)
class Express(Capability):
    """PCI Express endpoint, version 2, Gen5 x16, with function-level reset if the device has it."""

    flr: bool
    offset: int = 0x78

    def place(self, space: ConfigSpace) -> None:
        space.chain(0x10, self.offset)
        at = self.offset
        space.put(at + 0x02, 0x0002, 2)
        # 256 bytes payload, extended tags, role based error reporting, FLR.
        space.put(at + 0x04, 0x1 | 1 << 5 | 1 << 15 | self.flr << 28, 4)
        # DEVCTL bit 15 starts an FLR and always reads 0; Max_Payload_Size survives the FLR.
        space.put(at + 0x08, 0x2910, 2, writable=0x7FFF, sticky=0x00E0)
        space.put(at + 0x0C, 0x00400105, 4)
        # Link control belongs to the link, not to the function: an FLR leaves it alone.
        space.put(at + 0x10, 0x0040, 2, writable=0x0FFB, sticky=0x0FFB)
        space.put(at + 0x12, 0x1105, 2)
        space.put(at + 0x24, 0x00001000, 4)
        space.put(at + 0x28, 0x0000, 2, writable=0x00FF)
        space.put(at + 0x2C, 0x0000003E, 4)
        space.put(at + 0x30, 0x0005, 2, writable=0x000F, sticky=0x000F)
        space.express = self

    def on_write(self, offset: int, payload: bytes) -> Effect | None:
        """Bit 15 of DEVCTL is in its second byte."""
        index = self.offset + 0x09 - offset
        if self.flr and 0 <= index < len(payload) and payload[index] & 0x80:
            return Effect.FLR
        return None
