# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is sampled of the CC manager while its node is at rest, and how much of it may grow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .slopes import Quantity

MEMORY, DESCRIPTORS, THREADS = "memory", "file descriptors", "threads"
FILES, TRAIL, EVENTS, REQUESTS = "files", "audit trail", "Events", "requests of a change"
# The most that an attempt at a change writes to the trail: two records, whose size is that of the devices' names.
RECORDS_KIB = 4.0


def quantities(attempts_per_hour: float, asked_per_hour: float) -> list[Quantity]:
    """With limits for a run of this many attempts at changes, and of so many requests for a mode, in an hour."""
    return [
        # The GPU Operator gives the container 200 MiB, 140 more than it needs, and a node changes its mode some times a
        # day: with 4 MiB for hundreds of changes it is there in years. Samples differ by pages that the allocator kept.
        Quantity(MEMORY, "MiB", 2.0, 4.0, "the limit of the container is years away"),
        Quantity(DESCRIPTORS, "", 1.0, 0.0, "each is closed; a connection more or less is noise"),
        Quantity(THREADS, "", 1.0, 0.0, "each ends with its run or its watch"),
        Quantity(FILES, "KiB", 8.0, 0.0, "a run's folder goes with the run; noise: two blocks"),
        Quantity(TRAIL, "KiB", 8.0, attempts_per_hour * RECORDS_KIB, "two records for an attempt; in all 9 MiB"),
        Quantity(EVENTS, "", 2.0, asked_per_hour, "what is said again is counted up: fewer than what is asked for"),
        Quantity(REQUESTS, "", 3.0, 0.0, "the thousandth change asks for what the first did; noise: a repeated look"),
    ]


def of_process(pid: int) -> dict[str, float]:
    """Memory in MiB, descriptors and threads."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        MEMORY: int(status["VmRSS"].split()[0]) / 1024,
        DESCRIPTORS: float(len(os.listdir(f"/proc/{pid}/fd"))),
        THREADS: float(status["Threads"]),
    }


def children(pid: int) -> list[int]:
    """Processes that it started and that have not ended, or that nobody has waited for."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text().split())
        except FileNotFoundError:  # that thread has just ended
            continue
    return found


def disk_kib(folders: Iterable[Path]) -> float:
    """What files and folders below these take; sockets are the emulator's."""
    blocks = 0
    for folder in folders:
        for where, _folders, names in os.walk(folder):
            for path in (Path(where), *(Path(where, name) for name in names)):
                try:
                    found = path.lstat()
                except FileNotFoundError:  # it went meanwhile
                    continue
                blocks += 0 if path.is_socket() else found.st_blocks
    return blocks / 2
