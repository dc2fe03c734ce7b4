# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The words of config space that a recording holds: those listed here, found by walking the capabilities, and no other.

A mask says which bits of a word belong to the device. Left out are what the host chose (addresses, COMMAND), what
changes by itself (status, power state, health) and what could be a serial number: of a capability that is not listed,
only its place in the chain is kept. Sources: PCI Express Base 5.0, chapter 7; `extended.py` for NVIDIA's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ..config_space import VENDOR_NVIDIA
from ..models import Family
from .errors import RecordingError

# Reads the aligned dword at an offset.
ReadWord = Callable[[int], int]

ALL = 0xFFFFFFFF
IDS, COMMAND_STATUS, CLASS, HEADER_TYPE = 0x00, 0x04, 0x08, 0x0C
BARS, SUBSYSTEM, POINTER, INTERRUPT = 0x10, 0x2C, 0x34, 0x3C
END, EXTENDED, EXTENDED_END = 0x100, 0x100, 0x1000
STATUS_CAPABILITIES = 1 << 20
# What a BAR says of itself: I/O, 64 bits wide, prefetchable.
BAR_IO, BAR_WIDE, BAR_KIND = 0x1, 0x4, 0xF

HEADER = {
    IDS: ALL,
    # Status: readiness, capabilities, 66 MHz, fast back-to-back, DEVSEL timing. Nothing of COMMAND.
    COMMAND_STATUS: 0x06B10000,
    CLASS: ALL,
    HEADER_TYPE: 0x00FF0000,
    SUBSYSTEM: ALL,
    POINTER: 0x000000FC,
    # The pin; the line is the host's.
    INTERRUPT: 0x0000FF00,
}
# Id and next pointer, without its reserved bits.
LINK, EXTENDED_LINK = 0x0000FCFF, 0xFFCFFFFF
POWER, MSI, EXPRESS, MSI_X = 0x01, 0x05, 0x10, 0x11
SERIAL_NUMBER, VENDOR_SPECIFIC, SR_IOV, DESIGNATED = 0x03, 0x0B, 0x10, 0x23


class Part(NamedTuple):
    """A capability that is known: the bytes it has at least, and the masks of its words by their distance from it."""

    size: int
    masks: dict[int, int]


CAPABILITIES = {
    # The power state is left out, No_Soft_Reset is kept.
    POWER: Part(0x08, {0x00: 0xFFFFFCFF, 0x04: 0x00000008}),
    MSI: Part(0x0C, {0x00: 0x018EFCFF}),
    EXPRESS: Part(0x3C, {0x00: 0xFFFFFCFF, 0x04: ALL, 0x0C: ALL, 0x24: ALL, 0x2C: ALL}),
    # The table lies in a BAR: a host that knew only that there is one would look for it in the wrong place.
    MSI_X: Part(0x0C, {0x00: 0x07FFFCFF, 0x04: ALL, 0x08: ALL}),
}
EXTENDED_CAPABILITIES = {
    SERIAL_NUMBER: Part(0x0C, {}),
    VENDOR_SPECIFIC: Part(0x08, {0x04: ALL}),
    # What there is, not what is switched on.
    SR_IOV: Part(0x40, {0x04: ALL, 0x0C: ALL, 0x14: ALL, 0x18: 0xFFFF0000, 0x1C: ALL}),
    # The id is in the low half of the second word; NVIDIA's has a bit of the firewall above it.
    DESIGNATED: Part(0x0C, {0x04: ALL, 0x08: 0x0000FFFF}),
}
# Of these a device may have several. The word at +4 says how long each is.
REPEATED = frozenset({VENDOR_SPECIFIC, DESIGNATED})
# The health of a device is in the first bytes of NVIDIA's.
HEALTH_BYTES = 0x18


class Found(NamedTuple):
    """A capability and where it is."""

    id: int
    offset: int


@dataclass(frozen=True, slots=True)
class ConfigWords:
    """The words by offset, masked, and the chains in their order."""

    words: dict[int, int]
    capabilities: list[Found]
    extended: list[Found]
    masks: dict[int, int] = field(compare=False)

    def place(self, capability: int) -> int | None:
        """Where a capability below 0x100 is."""
        return next((found.offset for found in self.capabilities if found.id == capability), None)

    def health(self, family: Family) -> Found | None:
        """NVIDIA's capability of health: DVSEC id 0 of vendor 10de on GB1xx, elsewhere VSEC id 1, revision 1."""
        wanted = DESIGNATED if family is Family.BLACKWELL_1XX else VENDOR_SPECIFIC
        return next((found for found in self.extended if found.id == wanted and self._is_health(found)), None)

    def _is_health(self, found: Found) -> bool:
        head = self.words[found.offset + 4]
        if head >> 20 < HEALTH_BYTES:
            return False
        if found.id == DESIGNATED:
            return head & 0xFFFF == VENDOR_NVIDIA and not self.words[found.offset + 8]
        return head & 0x000FFFFF == 0x00010001


def walk(read: ReadWord) -> ConfigWords:
    """Read what may be read. Raises RecordingError for chains that make no sense."""
    return _Walk(read).run()


class _Walk:
    def __init__(self, read: ReadWord) -> None:
        self._read = read
        self.words: dict[int, int] = {}
        self.masks: dict[int, int] = {}
        self._taken: set[int] = set()

    def run(self) -> ConfigWords:
        for offset, mask in HEADER.items():
            self._keep(offset, mask)
        for offset in self._bars():
            self._keep(offset, BAR_KIND)
        has_chain = self.words[COMMAND_STATUS] & STATUS_CAPABILITIES
        chain = list(self._chain()) if has_chain else []
        return ConfigWords(self.words, chain, list(self._extended_chain()), self.masks)

    def _keep(self, offset: int, mask: int) -> int:
        self.masks[offset] = mask
        self.words[offset] = value = self._read(offset) & mask
        return value

    def _bars(self) -> Iterator[int]:
        """BAR0 and the one after it: the only ones that are emulated."""
        yield BARS
        yield BARS + (8 if is_wide(self.words[BARS]) else 4)

    def _chain(self) -> Iterator[Found]:
        offset = self.words[POINTER]
        seen: set[int] = set()
        while offset:
            self._check(offset, 0x40, END)
            word = self._read(offset)
            part = CAPABILITIES.get(word & 0xFF, Part(4, {0: LINK}))
            self._take(word & 0xFF, offset, part, seen, END)
            for distance, mask in part.masks.items():
                self._keep(offset + distance, mask)
            yield Found(word & 0xFF, offset)
            offset = word >> 8 & 0xFC

    def _extended_chain(self) -> Iterator[Found]:
        offset = EXTENDED
        seen: set[int] = set()
        while offset:
            self._check(offset, EXTENDED, EXTENDED_END)
            word = self._keep(offset, EXTENDED_LINK)
            # An empty list is one capability with id 0, version 0 and no next (7.6.2).
            if not word and offset == EXTENDED:
                return
            part = EXTENDED_CAPABILITIES.get(word & 0xFFFF, Part(4, {}))
            self._take(word & 0xFFFF, offset, part, seen, EXTENDED_END)
            for distance, mask in part.masks.items():
                self._keep(offset + distance, mask)
            yield Found(word & 0xFFFF, offset)
            offset = word >> 20

    def _check(self, offset: int, first: int, end: int) -> None:
        if offset & 3 or not first <= offset < end or offset in self._taken:
            raise RecordingError(f"config space: a capability at {offset:#x} is not possible; is the device well?")

    def _take(self, capability: int, offset: int, part: Part, seen: set[int], end: int) -> None:
        """Every word belongs to one capability, every capability that is understood is there once."""
        known = CAPABILITIES if end == END else EXTENDED_CAPABILITIES
        repeated = end == EXTENDED_END and capability in REPEATED
        size = max(part.size, self._read(offset + 4) >> 20) if repeated and offset + 4 < end else part.size
        room = set(range(offset, offset + size, 4))
        if offset + size > end or room & self._taken:
            raise RecordingError(f"config space: the capability {capability:#x} at {offset:#x} has no room there")
        if capability in seen and capability in known and not repeated:
            raise RecordingError(f"config space: the capability {capability:#x} is there twice, again at {offset:#x}")
        self._taken |= room
        seen.add(capability)


def is_wide(bar: int) -> bool:
    """Whether a BAR is memory with a 64-bit address."""
    return not bar & BAR_IO and bool(bar & BAR_WIDE)
