#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the device plugin's program beside a kubelet of the tests, once for each source of devices.

    python -m tests.bench.device_plugin [tee] [gpu] [--calls 1000] [--rest 10] [--cycles 200]

Memory, threads, allocations, rest, many slots, and what grows when devices go and come back. No root, no cluster; the
source gpu needs gcc, which builds a driver's library without a GPU. The exit status is 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "container"), str(ROOT / "tests")]

from fake_kubelet.node import Node  # noqa: E402

from tests.bench.limits import Limit, conclude  # noqa: E402
from tests.bench.plugin_devices import SLOTS, SOURCES, Devices, Shares  # noqa: E402

MANY = 10_000
FLIPS = 10
CLOCK = os.sysconf("SC_CLK_TCK")
# What a cycle may add. Less than a page now and then is an allocator's.
GROWTH_KIB = 2.0
PARTS = 10


class Growth(NamedTuple):
    """What a process had after each cycle: file descriptors, threads, and memory in KiB."""

    files: list[int]
    threads: list[int]
    kib: list[int]


def slope(values: Sequence[int]) -> float:
    """How much is more after each cycle, over all but the first fifth, in which caches fill."""
    counted = values[len(values) // 5 :]
    return statistics.linear_regression(range(len(counted)), counted).slope


def usual_growth(values: Sequence[int]) -> float:
    """The median of what a tenth of the cycles adds, by cycle, after two tenths: an allocator takes large pieces."""
    size = max(1, len(values) // PARTS)
    lows = [min(values[at : at + size]) for at in range(2 * size, len(values) - size + 1, size)]
    return statistics.median((after - before) / size for before, after in itertools.pairwise(lows))


class Figures(NamedTuple):
    """What was measured of one source. Times in seconds, memory in MiB."""

    start_s: float
    rss_mib: float
    threads: int
    allocate_ms: list[float]
    wakes: dict[str, int]  # by thread
    rest_s: float
    many_cpu_s: float
    many_rss_mib: float
    flip_cpu_s: float
    flip_s: float
    cycles: Growth
    again: Growth


def main() -> int:
    """Measure and print; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(description="Measure the device plugin.")
    parser.add_argument("sources", nargs="*", choices=[[], *SOURCES], help="all of them, unless some are named")
    parser.add_argument("--calls", type=int, default=1000, help="allocations")
    parser.add_argument("--rest", type=float, default=10.0, help="seconds of rest")
    parser.add_argument("--cycles", type=int, default=200, help="how often a device goes and comes back")
    options = parser.parse_args()
    limits: list[Limit] = []
    figures = {}
    for name in options.sources or SOURCES:
        found = asyncio.run(measured(name, options.calls, options.rest, options.cycles))
        limits += judged(name, found)
        figures[name] = found._asdict()
    return conclude("device-plugin", limits, figures)


def judged(name: str, figures: Figures) -> list[Limit]:
    """Each limit with what was measured."""
    ordered = sorted(figures.allocate_ms)
    calls = f"{len(ordered)} calls"
    about = SOURCES[name]
    rest = f"context switches in {figures.rest_s:g} s"
    others = sum(count for thread, count in figures.wakes.items() if thread != "main") / figures.rest_s
    rows = [
        Limit("start to allocatable", figures.start_s, 2.0, "s", "process start to the kubelet's count"),
        Limit("memory, registered", figures.rss_mib, 40.0, "MiB", "VmRSS after the allocations"),
        Limit("threads", figures.threads, about.threads, "", "/proc/PID/status"),
        Limit("Allocate, median", statistics.median(ordered), 20.0, "ms", calls),
        Limit("Allocate, 99th percentile", ordered[int(len(ordered) * 0.99)], 20.0, "ms", calls),
        Limit("wake-ups at rest", figures.wakes["main"], 0.0, "", f"{rest}, of the first thread"),
        *([Limit("wake-ups at rest, NVML's thread", others, about.wakes_per_s, "/s", rest)] if others else []),
        Limit(f"{MANY} slots, processor", figures.many_cpu_s, 1.0, "s", "start to allocatable, imports included"),
        Limit(f"{MANY} slots, memory", figures.many_rss_mib, 64.0, "MiB", "VmRSS; the chart's limit"),
        Limit(f"{MANY} slots, a change, processor", figures.flip_cpu_s, 1.0, "s", f"mean of {2 * FLIPS}"),
        Limit(f"{MANY} slots, a change told", figures.flip_s, 1.0, "s", about.flip),
        *grown("a device goes and comes back", figures.cycles),
        *(grown("the driver goes and comes back", figures.again) if figures.again.files else []),
    ]
    return [replace(limit, what=f"{name}: {limit.what}") for limit in rows]


def grown(what: str, growth: Growth) -> list[Limit]:
    """What is more after each cycle."""
    times = f"slope, {len(growth.files)} cycles"
    return [
        Limit(f"{what}: descriptors", slope(growth.files), 0.0, "", f"{times}, {growth.files[-1]} at the end"),
        Limit(f"{what}: threads", slope(growth.threads), 0.0, "", f"{times}, {growth.threads[-1]} at the end"),
        Limit(
            f"{what}: memory",
            usual_growth(growth.kib),
            GROWTH_KIB,
            "KiB",
            f"median of tenths, {growth.kib[-1] - growth.kib[0]} in all",
        ),
    ]


async def measured(name: str, calls: int, rest_s: float, cycles: int) -> Figures:
    """All of it, on two nodes."""
    again = Growth([], [], [])
    async with devices(name) as one, program(one, SLOTS) as (pid, slots, start_s):
        allocate_ms = [await allocation_ms(one) for _call in range(calls)]
        memory, threads = status(pid, "VmRSS") / 1024, status(pid, "Threads")
        wakes = await wakes_in(pid, rest_s)
        grown = await cycled(one, pid, slots, cycles)
        if isinstance(one, Shares):
            again = await reopened(one, pid, slots, cycles // 10)
    async with devices(name) as one, program(one, MANY) as (pid, slots, _start_s):
        many_cpu_s, many_memory = cpu_s(pid), status(pid, "VmRSS") / 1024
        flip_s = await flips(one, slots)
        flip_cpu_s = (cpu_s(pid) - many_cpu_s) / (2 * FLIPS)
    first = (start_s, memory, threads, allocate_ms, wakes, rest_s)
    return Figures(*first, many_cpu_s, many_memory, flip_cpu_s, flip_s, grown, again)


@contextlib.asynccontextmanager
async def devices(name: str) -> AsyncIterator[Devices]:
    """On a node whose kubelet runs."""
    with tempfile.TemporaryDirectory(prefix="dp") as folder:
        node = Node(Path(folder))
        made = SOURCES[name](node)
        await node.kubelet.start()
        try:
            yield made
        finally:
            await node.kubelet.kill()
            made.close()


@contextlib.asynccontextmanager
async def program(devices: Devices, slots: int) -> AsyncIterator[tuple[int, int, float]]:
    """The program: its process id, its slots, and the seconds from its start until all were allocatable."""
    devices.offer(slots)
    node = devices.node
    began = time.monotonic()
    with (node.root.parent / "log").open("wb") as log:
        environment = {**node.environment(), "DEVICE_PLUGIN_SOURCE": devices.source}
        process = subprocess.Popen([sys.executable, "-m", "device_plugin"], env=environment, stderr=log)
    try:
        await node.kubelet.until(lambda: node.kubelet.allocatable(devices.resource) >= slots, 30.0)
        taken = time.monotonic() - began
        yield process.pid, node.kubelet.allocatable(devices.resource), taken
    finally:
        process.terminate()
        process.wait(20)


async def allocation_ms(devices: Devices) -> float:
    """One pod comes and goes."""
    kubelet = devices.node.kubelet
    began = time.perf_counter()
    await kubelet.allocate(devices.resource, 1, "pod")
    taken = time.perf_counter() - began
    del kubelet.held["pod"]
    return taken * 1000


async def wakes_in(pid: int, rest_s: float) -> dict[str, int]:
    """How often each thread ran while nothing happened; the first one's name is `main`."""
    await asyncio.sleep(1.0)  # the last allocation is over
    before = switches(pid)
    await asyncio.sleep(rest_s)
    return {name: count - before.get(name, 0) for name, count in switches(pid).items()}


async def flips(devices: Devices, slots: int) -> float:
    """A device is unhealthy, and healthy again; the longest time until the kubelet knew, in seconds."""
    taken = []
    for _flip in range(FLIPS):
        sick = devices.sicken()
        taken.append(await devices.node.allocatable(slots - sick, devices.resource))
        devices.heal()
        taken.append(await devices.node.allocatable(slots, devices.resource))
    return max(taken)


async def cycled(devices: Devices, pid: int, slots: int, cycles: int) -> Growth:
    """A device goes and comes back, again and again."""

    def leave() -> int:
        return slots - devices.leave()

    return await repeated(devices, pid, slots, cycles, leave, devices.come_back)


async def reopened(devices: Shares, pid: int, slots: int, cycles: int) -> Growth:
    """The driver stops answering, and answers again: its library is loaded again each time."""

    def leave() -> int:
        devices.lose_driver()
        return 0

    return await repeated(devices, pid, slots, cycles, leave, devices.find_driver)


async def repeated(
    devices: Devices, pid: int, slots: int, cycles: int, leave: Callable[[], int], come_back: Callable[[], None]
) -> Growth:
    """``leave`` says how many slots are left. What the process has after each cycle."""
    found = Growth([], [], [])
    for _cycle in range(cycles):
        left = leave()
        await devices.node.allocatable(left, devices.resource)
        come_back()
        await devices.node.allocatable(slots, devices.resource)
        found.files.append(len(os.listdir(f"/proc/{pid}/fd")))
        found.threads.append(status(pid, "Threads"))
        found.kib.append(status(pid, "VmRSS"))
    return found


def status(pid: int, key: str, thread: str = "") -> int:
    """A number of /proc/PID/status, or of a thread's."""
    lines = Path(f"/proc/{pid}", f"task/{thread}" if thread else "", "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def switches(pid: int) -> dict[str, int]:
    """Context switches of each thread so far."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        keys = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
        found["main" if thread == str(pid) else thread] = sum(status(pid, key, thread) for key in keys)
    return found


def cpu_s(pid: int) -> float:
    """Processor time so far, of user and kernel."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / CLOCK


if __name__ == "__main__":
    sys.exit(main())
