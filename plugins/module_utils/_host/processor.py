# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The processor, as /proc/cpuinfo describes it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Processor(NamedTuple):
    """Its maker as it calls itself ('' where it has no such name, as on Arm), its flags, and whether it is an Arm."""

    vendor: str
    flags: frozenset[str]
    is_arm: bool = False


def read(root: Path) -> Processor:
    """The processor of the host below ``root``; every processor of a host has the same. Without the file, nothing."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="backslashreplace")
    except OSError:
        text = ""
    vendor, flags, is_arm = "", frozenset[str](), False
    for line in text.splitlines():
        name, _colon, value = line.partition(":")
        if name.strip() == "vendor_id":
            vendor = value.strip()
        elif name.strip() == "flags":
            flags = frozenset(value.split())
            break
        elif name.strip() == "CPU implementer":  # of Arm alone (arch/arm64/kernel/cpuinfo.c)
            is_arm = True
            break
    return Processor(vendor, flags, is_arm)
