# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a PCI function is to the rest, whatever lies behind it, and how PCI addresses are written.

A bus finds functions; a function gives its config space, its BARs, a reset and its power control.
``sysfs`` and ``vfio_user`` are the two buses.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest

# PCI Express Base: config space registers that are needed before any driver or tool is.
VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
REVISION_AND_CLASS = 0x08
BAR_REGISTERS = 0x10
CAPABILITIES_POINTER = 0x34
COMMAND_MEMORY = 1 << 1
CAPABILITY_PM = 0x01
CAPABILITY_EXPRESS = 0x10
PM_CONTROL = 0x04
PM_NO_SOFT_RESET = 1 << 3
PM_STATE_MASK = 0x3
EXPRESS_DEVCAP = 0x04
EXPRESS_DEVCTL = 0x08
DEVCAP_FLR = 1 << 28
DEVCTL_FLR = 1 << 15

# A config offset that no hypervisor is known to intercept: all ones there means that nobody answers.
SANITY_OFFSET = 0xF0

_ADDRESS = re.compile(r"^(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])$")


def parse_address(text: str) -> str:
    """Any spelling ('17:00.0', '00000000:17:00.0', '10000:E1:00.0') as the kernel's: '0000:17:00.0', '10000:e1:00.0'.

    Raises InvalidRequest for what is no PCI address.
    """
    match = _ADDRESS.match(str(text).strip())
    if match is None:
        raise InvalidRequest(
            "%r is not a PCI address." % (text,),
            "Write it as domain:bus:device.function, such as 0000:17:00.0, or without the domain (17:00.0); "
            "in YAML put it in quotes.",
            value=str(text),
        )
    domain, bus, device, function = match.groups()
    return "%04x:%s:%s.%s" % (int(domain or "0", 16), bus.lower(), device.lower(), function)


class BarSpan(NamedTuple):
    """One memory BAR: address in bytes as the host programmed it, size in bytes, 64-bit or not, number of its register.

    A 64-bit BAR takes two registers, so BAR0 may be followed by BAR2.
    """

    start: int
    size: int
    is_64bit: bool
    number: int


class Space:
    """A run of little-endian registers (config space or a BAR), read and written 1, 2 or 4 bytes at a time.

    The method names are those that NVIDIA's tool calls on its own spaces.
    """

    size = 0

    def read(self, offset: int, size: int) -> int:
        """The unsigned value of ``size`` bytes at ``offset``."""
        raise NotImplementedError

    def write(self, offset: int, data: int, size: int) -> None:
        """Write the low ``size`` bytes of ``data`` at ``offset``."""
        raise NotImplementedError

    def read8(self, offset: int) -> int:
        """One byte."""
        return self.read(offset, 1)

    def read16(self, offset: int) -> int:
        """Two bytes."""
        return self.read(offset, 2)

    def read32(self, offset: int) -> int:
        """Four bytes."""
        return self.read(offset, 4)

    def write8(self, offset: int, data: int) -> None:
        """One byte."""
        self.write(offset, data, 1)

    def write16(self, offset: int, data: int) -> None:
        """Two bytes."""
        self.write(offset, data, 2)

    def write32(self, offset: int, data: int) -> None:
        """Four bytes."""
        self.write(offset, data, 4)


class Function:
    """One PCI function. Whoever opens it closes it."""

    address = ""
    vendor_id = 0
    device_id = 0
    class_code = 0

    def open(self) -> None:
        """Make config space and BARs reachable; raises an ExplainedError that says why not."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of everything ``open`` took."""
        raise NotImplementedError

    @property
    def config(self) -> Space:
        """The config space of an open function."""
        raise NotImplementedError

    def bars(self) -> Sequence[BarSpan]:
        """The memory BARs that have an address, in order."""
        raise NotImplementedError

    def map_bar(self, number: int) -> Space:
        """The registers behind the BAR of that number. Raises Bar0Unreadable, also for one without an address."""
        raise NotImplementedError

    def reset_method(self) -> Optional[str]:
        """How a reset would be done ('flr', 'bus', ...); None when there is no way."""
        raise NotImplementedError

    def reset(self) -> None:
        """Reset the function and return when config space answers again; raises ResetFailed, ResetUnavailable."""
        raise NotImplementedError

    def sysfs_path(self) -> Optional[Path]:
        """The kernel's folder of the function; None for one that this host's kernel does not know."""
        return None

    def virtual_functions(self) -> Sequence[Function]:
        """The virtual functions that the function has: they go and come with it."""
        return ()

    def siblings(self) -> Sequence[Function]:
        """The other functions of the same slot, bridges apart: a reset of the slot takes them along."""
        return ()

    def power_control(self) -> Optional[str]:
        """The kernel's runtime power setting, 'on' or 'auto'; None where there is no kernel to ask."""
        return None

    def set_power_control(self, setting: str) -> None:
        """Set it."""

    def driver(self) -> Optional[str]:
        """The kernel driver bound to the function."""
        return None

    def iommu_group(self) -> Optional[int]:
        """The number of the function's IOMMU group."""
        return None

    @property
    def is_virtual(self) -> bool:
        """True for a virtual function (SR-IOV): a part of its physical function, reset with it."""
        return False


Takes = Callable[[Function], bool]


def anything(_function: Function) -> bool:
    """Accepts every function."""
    return True


class Bus:
    """Where functions are found."""

    name = ""
    forgets = False  # True when a function that goes is taken off the list

    def find(self, takes: Takes = anything) -> list[Function]:
        """Every function that ``takes`` accepts, by address, not yet open.

        A bus that learns what a function is only when it is opened gives all.
        """
        raise NotImplementedError

    def lock_path(self) -> str:
        """The file whose lock says that a run is changing this bus's devices."""
        raise NotImplementedError


def capability(config: Space, wanted_id: int) -> Optional[int]:
    """The offset of a PCI capability in config space, or None."""
    offset = config.read8(CAPABILITIES_POINTER) & 0xFC
    for _unused in range(48):  # 192 bytes hold at most 48 capabilities: a loop in the chain ends here
        if offset in (0, 0xFC):
            return None
        header = config.read16(offset)
        if header & 0xFF == wanted_id:
            return offset
        offset = header >> 8 & 0xFC
    return None


def programmed(config: Space) -> list[tuple[int, int]]:
    """What the host has programmed into a type 0 header: (offset, value) of BARs and the rest, the command last."""
    return [(offset, config.read32(offset)) for offset in (*range(BAR_REGISTERS, 0x40, 4), COMMAND)]


def program(config: Space, header: Sequence[tuple[int, int]]) -> None:
    """Write it again where it differs, after a reset or a sleep that lost it."""
    for offset, value in header:
        if offset == COMMAND:
            config.write16(offset, value & 0xFFFF)  # the status half is write-one-to-clear
        elif config.read32(offset) != value:
            config.write32(offset, value)


def has_flr(config: Space) -> bool:
    """True when the function can do a function-level reset (PCIe DEVCAP bit 28)."""
    express = capability(config, CAPABILITY_EXPRESS)
    return express is not None and bool(config.read32(express + EXPRESS_DEVCAP) & DEVCAP_FLR)
