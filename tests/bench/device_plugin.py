#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the device plugin's program beside a kubelet of the tests: memory, threads, allocations, rest, many slots.

    python -m tests.bench.device_plugin [--calls 1000] [--rest 10]

No root, no cluster. The exit status is 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "container"), str(ROOT / "tests")]

from fake_kubelet.node import CONFIG, TDX, Node, node_with_kubelet  # noqa: E402

from tests.bench.limits import Limit, conclude  # noqa: E402

MANY = 10_000
FLIPS = 10
CLOCK = os.sysconf("SC_CLK_TCK")


class Figures(NamedTuple):
    """What was measured. Times in seconds, memory in MiB."""

    start_s: float
    rss_mib: float
    threads: int
    allocate_ms: list[float]
    wakes: int
    rest_s: float
    many_cpu_s: float
    many_rss_mib: float
    flip_cpu_s: float
    flip_s: float


def main() -> int:
    """Measure and print; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(description="Measure the device plugin.")
    parser.add_argument("--calls", type=int, default=1000, help="allocations")
    parser.add_argument("--rest", type=float, default=10.0, help="seconds of rest")
    options = parser.parse_args()
    figures = asyncio.run(measured(options.calls, options.rest))
    ordered = sorted(figures.allocate_ms)
    p99 = ordered[int(len(ordered) * 0.99)]
    calls = f"{len(ordered)} calls"
    limits = [
        Limit("start to allocatable", figures.start_s, 2.0, "s", "process start to the kubelet's count"),
        Limit("memory, registered", figures.rss_mib, 40.0, "MiB", "VmRSS after the allocations"),
        Limit("threads", figures.threads, 1.0, "", "/proc/PID/status"),
        Limit("Allocate, median", statistics.median(ordered), 20.0, "ms", calls),
        Limit("Allocate, 99th percentile", p99, 20.0, "ms", calls),
        Limit("wake-ups at rest", figures.wakes, 0.0, "", f"context switches in {figures.rest_s:g} s"),
        Limit(f"{MANY} slots, processor", figures.many_cpu_s, 1.0, "s", "start to allocatable, imports included"),
        Limit(f"{MANY} slots, memory", figures.many_rss_mib, 64.0, "MiB", "VmRSS; the chart's limit"),
        Limit(f"{MANY} slots, a change, processor", figures.flip_cpu_s, 1.0, "s", f"mean of {2 * FLIPS}"),
        Limit(f"{MANY} slots, a change told", figures.flip_s, 1.0, "s", "the longest"),
    ]
    return conclude("device-plugin", limits, figures._asdict())


async def measured(calls: int, rest_s: float) -> Figures:
    """All of it, on two nodes."""
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        async with node_with_kubelet(Path(name)) as node, program(node, 110) as (pid, start_s):
            allocate_ms = [await allocation_ms(node) for _call in range(calls)]
            memory, threads = status(pid, "VmRSS") / 1024, status(pid, "Threads")
            wakes = await wakes_in(pid, rest_s)
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        async with node_with_kubelet(Path(name)) as node, program(node, MANY) as (pid, _start_s):
            many_cpu_s, many_memory = cpu_s(pid), status(pid, "VmRSS") / 1024
            flip_s = await flips(node)
            flip_cpu_s = (cpu_s(pid) - many_cpu_s) / (2 * FLIPS)
    return Figures(start_s, memory, threads, allocate_ms, wakes, rest_s, many_cpu_s, many_memory, flip_cpu_s, flip_s)


@contextlib.asynccontextmanager
async def program(node: Node, slots: int) -> AsyncIterator[tuple[int, float]]:
    """The program: its process id, and the seconds from its start until everything was allocatable."""
    node.configure({"resources": [{**CONFIG["resources"][0], "slots": slots}]})
    began = time.monotonic()
    with (node.root.parent / "log").open("wb") as log:
        command = [sys.executable, "-m", "device_plugin"]
        process = subprocess.Popen(command, env=node.environment(), stderr=log)
    try:
        await node.allocatable(slots, within_s=30.0)
        yield process.pid, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(20)


async def allocation_ms(node: Node) -> float:
    """One pod comes and goes."""
    began = time.perf_counter()
    await node.kubelet.allocate(TDX, 1, "pod")
    taken = time.perf_counter() - began
    del node.kubelet.held["pod"]
    return taken * 1000


async def wakes_in(pid: int, rest_s: float) -> int:
    """How often the process ran while nothing happened."""
    await asyncio.sleep(1.0)  # the last allocation is over
    before = switches(pid)
    await asyncio.sleep(rest_s)
    return switches(pid) - before


async def flips(node: Node) -> float:
    """The device goes and comes back; the longest time until the kubelet knew, in seconds."""
    taken = []
    for _flip in range(FLIPS):
        node.remove_device()
        taken.append(await node.allocatable(0))
        node.add_device()
        taken.append(await node.allocatable(MANY))
    return max(taken)


def status(pid: int, key: str) -> int:
    """A number of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def switches(pid: int) -> int:
    """Context switches so far."""
    return status(pid, "voluntary_ctxt_switches") + status(pid, "nonvoluntary_ctxt_switches")


def cpu_s(pid: int) -> float:
    """Processor time so far, of user and kernel."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / CLOCK


if __name__ == "__main__":
    sys.exit(main())
