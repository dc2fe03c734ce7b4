# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The extended capabilities of config space, from 0x100 up.

Sources: PCI Express Base 5.0, 7.9 (serial number, vendor-specific), 7.8 (ARI) and 9.3.3 (SR-IOV).
"""

from __future__ import annotations

from dataclasses import dataclass

from .config_space import BAR_FLAGS, VENDOR_NVIDIA, Capability, ConfigSpace


@dataclass(frozen=True, slots=True)
class SerialNumber(Capability):
    """Device serial number: the first extended capability of every device here."""

    serial: int
    offset: int = 0x100

    def place(self, space: ConfigSpace) -> None:
        space.chain_extended(0x03, 1, self.offset)
        space.put(self.offset + 4, self.serial, 8)


@dataclass(frozen=True, slots=True)
class HealthVsec(Capability):
    """NVIDIA's vendor-specific capability, id 1, revision 1 (Hopper, GB2xx).

    Holds the code of a security fault at +0x10 and, on GB2xx, bit 24 at +0x14 while the BAR firewall is up.
    """

    firewall: bool
    offset: int = 0x120
    length: int = 0x18

    def place(self, space: ConfigSpace) -> None:
        space.chain_extended(0x0B, 1, self.offset)
        space.put(self.offset + 4, 0x1 | 0x1 << 16 | self.length << 20, 4)

    def show(self, space: ConfigSpace, firewall_up: bool, sec_fault: int) -> None:
        """Reflect the device's health."""
        space.patch(self.offset + 0x10, sec_fault)
        space.patch(self.offset + 0x14, (firewall_up and self.firewall) << 24)


@dataclass(frozen=True, slots=True)
class HealthDvsec(Capability):
    """NVIDIA's designated vendor-specific capability, id 0 (GB1xx).

    Bit 20 at +0x8 is set while the BAR firewall is up, the code of a security fault is at +0x14.
    """

    offset: int = 0x120
    length: int = 0x18

    def place(self, space: ConfigSpace) -> None:
        space.chain_extended(0x23, 1, self.offset)
        space.put(self.offset + 4, VENDOR_NVIDIA | self.length << 20, 4)

    def show(self, space: ConfigSpace, firewall_up: bool, sec_fault: int) -> None:
        """Reflect the device's health."""
        space.patch(self.offset + 0x08, firewall_up << 20)
        space.patch(self.offset + 0x14, sec_fault)


@dataclass(frozen=True, slots=True)
class SingleRootIov(Capability):
    """SR-IOV: where the virtual functions are, and the bit that lets them be. A reset takes them away."""

    device_id: int
    total: int
    first_offset: int
    stride: int
    bar0_bytes: int
    offset: int = 0x180

    def place(self, space: ConfigSpace) -> None:
        at = self.offset
        space.chain_extended(0x10, 1, at)
        # VF Enable, VF Memory Space Enable, ARI Capable Hierarchy.
        space.put(at + 0x08, 0, 2, writable=0x19)
        space.put(at + 0x0C, self.total, 2)
        space.put(at + 0x0E, self.total, 2)
        space.put(at + 0x10, 0, 2, writable=0xFFFF)
        space.put(at + 0x14, self.first_offset, 2)
        space.put(at + 0x16, self.stride, 2)
        space.put(at + 0x1A, self.device_id, 2)
        # Pages of 4 KiB are both what is supported and what is in use.
        space.put(at + 0x1C, 0x1, 4)
        space.put(at + 0x20, 0x1, 4)
        space.put(at + 0x24, BAR_FLAGS, 8, writable=-self.bar0_bytes & 0xFFFFFFFFFFFFFFFF)

    def enable(self, space: ConfigSpace, bar0: int) -> None:
        """As the host's administrator left it: every virtual function is there, their BAR0s lie one after another."""
        space.data[self.offset + 0x08] = 0x19
        space.data[self.offset + 0x10 : self.offset + 0x12] = self.total.to_bytes(2, "little")
        space.data[self.offset + 0x24 : self.offset + 0x2C] = (bar0 | BAR_FLAGS).to_bytes(8, "little")

    def enabled(self, space: ConfigSpace) -> int:
        """How many virtual functions there are now."""
        return space.get(self.offset + 0x10, 2) if space.data[self.offset + 0x08] & 0x1 else 0


@dataclass(frozen=True, slots=True)
class AlternativeRouting(Capability):
    """ARI: the extended capability that every virtual function has, as their numbers go beyond 7."""

    offset: int = 0x100

    def place(self, space: ConfigSpace) -> None:
        space.chain_extended(0x0E, 1, self.offset)
