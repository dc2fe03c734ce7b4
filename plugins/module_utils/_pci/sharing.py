# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What shares an IOMMU group with the devices that are meant: what comes along, what stays, what needs a word.

A group is given to a virtual machine as a whole: vfio lets nobody open it while another driver has one of its functions
(drivers/iommu/iommu.c, iommu_device_use_default_domain). A function without a driver does not matter, nor does a bridge
with the kernel's own (drivers that declare driver_managed_dma).
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

from .functions import PciFunction
from .sysfs import BRIDGES
from .use import VFIO_DRIVERS

NVIDIA = 0x10DE
# PCI Code and ID Assignment: what a host may run from, by the first digits of the class; the longest that fits counts.
HOST_CLASSES = {
    "01": "mass storage",
    "02": "network",
    "03": "display, such as a BMC's",
    "05": "memory controller",
    "07": "serial port or other communication",
    "08": "system peripheral",
    "0b": "processor",
    "0c": "serial bus",
    "0c03": "USB controller",
    "0c07": "IPMI",
    "10": "encryption controller, such as AMD's secure processor",
}
# NVIDIA made these, too, and none of them is a part of a GPU.
NEVER_OF_A_GPU = ("01", "02")


class Group(NamedTuple):
    """The others of the groups: those that come along, bridges, and what the host needs and has no driver for now."""

    added: tuple[PciFunction, ...] = ()
    bridges: tuple[PciFunction, ...] = ()
    left: tuple[PciFunction, ...] = ()


def companions(present: Sequence[PciFunction], chosen: Sequence[PciFunction], named: Sequence[str]) -> Group:
    """The others of the groups of ``chosen``; those whose address is ``named`` come along whatever they are."""
    groups = {function.iommu_group() for function in chosen} - {None}
    meant = {function.address for function in chosen}
    others = [one for one in present if one.address not in meant and one.iommu_group() in groups]
    bridges = [one for one in others if _is_bridge(one)]
    left = [one for one in others if one not in bridges and one.address not in named and _is_idle_part(one, chosen)]
    return Group(tuple(one for one in others if one not in (*bridges, *left)), tuple(bridges), tuple(left))


def needs_word(function: PciFunction, chosen: Sequence[PciFunction]) -> bool:
    """Whether a companion has a driver of the host's and is neither NVIDIA's nor of the same card."""
    return function.driver() not in (None, *VFIO_DRIVERS) and not _belongs(function, chosen)


def host_use(function: PciFunction) -> Optional[str]:
    """What a host uses functions of this class for; None for what it can do without."""
    digits = "%06x" % function.class_code
    return HOST_CLASSES.get(digits[:4], HOST_CLASSES.get(digits[:2]))


def is_main(function: PciFunction) -> bool:
    """Whether it is what its group is about, a GPU or an NVSwitch, and not a companion such as its sound."""
    return function.vendor_id == NVIDIA and function.class_code >> 16 in (0x03, BRIDGES)


def _is_bridge(function: PciFunction) -> bool:
    """Of "other bridges" only NVIDIA's are endpoints: NVSwitches."""
    return function.class_code >> 16 == BRIDGES and (function.is_bridge or function.vendor_id != NVIDIA)


def _is_idle_part(function: PciFunction, chosen: Sequence[PciFunction]) -> bool:
    """Whether the host may want it later and nobody has begun to give it away."""
    untouched = function.driver() is None and function.driver_override() is None
    return untouched and host_use(function) is not None and not _belongs(function, chosen)


def _belongs(function: PciFunction, chosen: Sequence[PciFunction]) -> bool:
    slots = {one.address.rpartition(".")[0] for one in chosen}
    if function.address.rpartition(".")[0] in slots:
        return True
    return function.vendor_id == NVIDIA and not ("%06x" % function.class_code).startswith(NEVER_OF_A_GPU)
