# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which PCI functions are NVIDIA's GPUs and NVSwitches, by vendor and class."""

from __future__ import annotations

from .._pci.bus import Function

NVIDIA_VENDOR_ID = 0x10DE
# PCI Code and ID Assignment: VGA and 3D controllers; "other bridge" is what NVSwitches are.
GPU_CLASSES = (0x030000, 0x030200)
NVSWITCH_CLASS = 0x068000


def is_gpu(function: Function) -> bool:
    """True for a GPU; a virtual function is none of its own."""
    return function.class_code in GPU_CLASSES and not function.is_virtual


def is_nvswitch(function: Function) -> bool:
    """True for an NVSwitch."""
    return function.class_code == NVSWITCH_CLASS and not function.is_virtual


def is_identified(function: Function) -> bool:
    """False for a function that does not say what it is: it, or the kernel's entry of it, is on the way out."""
    if function.vendor_id == NVIDIA_VENDOR_ID:
        return function.class_code not in (0, 0xFFFFFF)
    return function.vendor_id not in (0, 0xFFFF)


def may_be_nvidia(function: Function) -> bool:
    """True for a GPU or NVSwitch of NVIDIA's, and for what cannot be told: it must not be passed over."""
    if not is_identified(function):
        return True
    return function.vendor_id == NVIDIA_VENDOR_ID and (is_gpu(function) or is_nvswitch(function))
