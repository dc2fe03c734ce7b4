# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The tree that a real kernel showed (tests/vm/facts), laid out again: what was read there, with its own links."""

from __future__ import annotations

import re
from pathlib import Path

FACTS = Path(__file__).parents[3] / "vm/facts"
ADDRESS = "0000:01:00.0"
LISTED = "/sys/bus/pci/devices/" + ADDRESS
# Where the kernel keeps it: behind a root port, as its relative links say.
PLACE = "sys/devices/pci0000:00/0000:00:02.0/" + ADDRESS


def lay_out(name: str, root: Path) -> None:
    """Build the tree of one file of facts below ``root``."""
    said = dict(re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", (FACTS / name).read_text(), re.MULTILINE))
    device = root / PLACE
    device.mkdir(parents=True)
    (root / LISTED.lstrip("/")).parent.mkdir(parents=True)
    (root / LISTED.lstrip("/")).symlink_to("../../../devices/pci0000:00/0000:00:02.0/" + ADDRESS)
    listing = next(text for command, text in said.items() if command.startswith("ls -l " + LISTED))
    for line in listing.split("\n"):
        _lay_out_entry(device, line)
    for command, text in said.items():
        words = command.split()
        if words[0] == "cat" and len(words) == 2:
            path = root / words[1].replace(LISTED, PLACE).lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.removesuffix("\n"))
        elif command == "ls /sys/kernel/iommu_groups":
            for group in text.split():
                (root / "sys/kernel/iommu_groups" / group / "devices").mkdir(parents=True)
        elif words[0] == "lsmod":
            for line in text.strip().split("\n"):
                (root / "sys/module" / line.split(" ")[0]).mkdir(parents=True, exist_ok=True)
        elif command == "uname -r":
            (root / "proc/sys/kernel").mkdir(parents=True)
            (root / "proc/sys/kernel/osrelease").write_text(text.strip() + "\n")


def _lay_out_entry(device: Path, line: str) -> None:
    """One line of the listing: mode, size, name, and a link's target."""
    words = line.split()
    if not words:
        return
    path = device / words[2]
    if words[0].startswith("l"):
        path.symlink_to(words[4])
    elif words[0].startswith("d"):
        path.mkdir()
    elif not path.exists():
        path.touch()
