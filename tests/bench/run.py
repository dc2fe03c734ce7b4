#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the module and the playbook against NVIDIA's command line, on emulated devices with the default timing.

    python -m tests.bench.run [--fast-runs 15] [--runs 5] [--slow-runs 3] [--quick]

Compared programs take turns, A B A B, and medians are compared. What each row means stands in docs/benchmarks.md. The
table goes to standard output, every single figure to tests/output/bench-run.json; the exit status is 1 when a limit is
missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from tests.bench.limits import Limit, conclude
from tests.bench.programs import Bench

# What no program can do faster: one function-level reset and one boot of the emulated device.
FLR_AND_BOOT_S = 2.1
SIZES = (1, 2, 4, 8, 16)
QUERY = ("--devices", "gpus", "--query-cc-mode")
SET_CC = ("--devices", "gpus", "--set-cc-mode=on", "--reset-after-cc-mode-switch")
SET_PPCIE = ("--devices", "gpus,nvswitches", "--set-ppcie-mode=on", "--reset-after-ppcie-mode-switch")

Figures = dict[str, list[float]]
Programs = Mapping[str, Callable[[], float]]


class Runs(NamedTuple):
    """How often each program runs: queries, our changes, NVIDIA's changes."""

    fast: int
    usual: int
    slow: int


def main() -> int:
    """Measure, print, write; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(description="Measure against NVIDIA's command line.")
    parser.add_argument("--runs", type=int, default=5, help="runs of each program")
    parser.add_argument("--slow-runs", type=int, default=3, help="runs of NVIDIA's changes, which take 17 s and more")
    parser.add_argument("--fast-runs", type=int, default=15, help="runs of the queries, which take half a second")
    parser.add_argument("--quick", action="store_true", help="one run of each")
    options = parser.parse_args()
    runs = Runs(options.fast_runs, options.runs, min(options.slow_runs, options.runs))
    if options.quick:
        runs = Runs(1, 1, 1)
    load = os.getloadavg()[0]
    if load > 0.5:
        print("The machine is not idle (load %.1f): figures may be too high." % load, flush=True)
    figures = measure(runs)
    show(figures)
    return conclude("run", judge(figures), figures)


def measure(runs: Runs) -> Figures:
    """Every program's seconds, run by run, by the names that ``judge`` uses."""
    with Bench.prepared() as bench:
        bench.use("8", "off")
        bench.build_payload()
        bench.nvidia(*QUERY)  # once unmeasured: files are cached, NVIDIA's modules compiled
        return Measurement(bench, runs).take()


class Measurement:
    """What is run how often."""

    def __init__(self, bench: Bench, runs: Runs) -> None:
        self._bench = bench
        self._runs = runs
        self._figures: Figures = {}

    def take(self) -> Figures:
        """All of it."""
        bench = self._bench
        query: Programs = {
            "module, already right": bench.module_already_right,
            "NVIDIA, query": partial(bench.nvidia, *QUERY),
            "NVIDIA, query and settings": partial(bench.nvidia, *QUERY, "--query-cc-settings"),
        }
        self._take_turns(self._runs.fast, "8", "on", query)
        ours: Programs = {"module, off to on": bench.module, "playbook, off to on": partial(bench.playbook, "on")}
        self._against("8", ours, {"NVIDIA, off to on": partial(bench.nvidia, *SET_CC)})
        ours = {"playbook, 8 + 4 to ppcie": partial(bench.playbook, "ppcie")}
        self._against("hgx-h100", ours, {"NVIDIA, 8 + 4 to ppcie": partial(bench.nvidia, *SET_PPCIE)})
        for _run in range(self._runs.usual):
            for size in SIZES:
                self._take_turns(1, str(size), "off", {"module, %d GPUs" % size: bench.module})
        return self._figures

    def _against(self, node: str, ours: Programs, theirs: Programs) -> None:
        """In turns for as long as NVIDIA's slow program runs, then ours alone."""
        self._take_turns(self._runs.slow, node, "off", {**ours, **theirs})
        self._take_turns(self._runs.usual - self._runs.slow, node, "off", ours)

    def _take_turns(self, runs: int, node: str, mode: str, programs: Programs) -> None:
        """Each program finds the node in the mode."""
        for _run in range(runs):
            for name, program in programs.items():
                self._bench.use(node, mode)
                self._figures.setdefault(name, []).append(program())


def judge(figures: Figures) -> list[Limit]:
    """Each limit with what was measured."""

    def median(name: str) -> float:
        return statistics.median(figures[name])

    def ratio(what: str, ours: str, theirs: str, limit: float) -> Limit:
        basis = "%.2f s (%d runs) / %.2f s (%d runs)" % (
            median(ours),
            len(figures[ours]),
            median(theirs),
            len(figures[theirs]),
        )
        return Limit(what, median(ours) / median(theirs), limit, "x", basis)

    ours = "module, off to on"
    over = Limit(
        "module, off to on, beyond reset and boot",
        median(ours) - FLR_AND_BOOT_S,
        0.7,
        "s",
        "%.2f s (%d runs) - %.1f s" % (median(ours), len(figures[ours]), FLR_AND_BOOT_S),
    )
    return [
        ratio("module, already right / NVIDIA, query", "module, already right", "NVIDIA, query", 2.5),
        over,
        ratio("module / NVIDIA, off to on", ours, "NVIDIA, off to on", 0.17),
        ratio("playbook / NVIDIA, off to on", "playbook, off to on", "NVIDIA, off to on", 0.25),
        ratio("playbook / NVIDIA, 8 + 4 to ppcie", "playbook, 8 + 4 to ppcie", "NVIDIA, 8 + 4 to ppcie", 0.2),
        ratio("module, 16 GPUs / 1 GPU", "module, 16 GPUs", "module, 1 GPUs", 1.2),
    ]


def show(figures: Figures) -> None:
    """The seconds, the curve among them."""
    print("%-32s %9s %9s %9s %5s" % ("eight H100 unless it says so", "median", "min", "max", "runs"))
    for name, seconds in figures.items():
        numbers = (statistics.median(seconds), min(seconds), max(seconds), len(seconds))
        print("%-32s %9.3f %9.3f %9.3f %5d" % (name, *numbers))


if __name__ == "__main__":
    sys.exit(main())
