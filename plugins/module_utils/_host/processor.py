# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The processor, as /proc/cpuinfo describes it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Processor(NamedTuple):
    """Its maker as it calls itself ('' where it has no such name, as on Arm), and its flags."""

    vendor: str
    flags: frozenset[str]


def read(root: Path) -> Processor:
    """The processor of the host below ``root``; every processor of a host has the same. Without the file, nothing."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="backslashreplace")
    except OSError:
        text = ""
    vendor, flags = "", frozenset[str]()
    for line in text.splitlines():
        name, _colon, value = line.partition(":")
        if name.strip() == "vendor_id":
            vendor = value.strip()
        elif name.strip() == "flags":
            flags = frozenset(value.split())
            break
    return Processor(vendor, flags)
