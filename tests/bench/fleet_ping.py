#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure what the playbook cc_mode costs beyond a play of ping on the same hosts, each with one H100 behind a socket.

    python -m tests.bench.fleet_ping [--sizes 1 20 100 200] [--runs 3] [--forks 50]

The GPUs are in the mode already, so no device's own time counts: what is left is what Ansible, the payload and the
module take. All hosts are this machine; on a real fleet the hosts' part is carried by the hosts. The curve goes to
standard output; the exit status is 1 when the limit is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
from pathlib import Path
from typing import Any

from tests.bench.fleet import CC_MODE, Fleet
from tests.bench.limits import Limit, conclude

LIMIT = 1.3
PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
"""


def main() -> int:
    """Measure and print; 0 when the limit is kept."""
    parser = argparse.ArgumentParser(description="Measure the playbook cc_mode against a play of ping.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 20, 100, 200], help="how many hosts")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--forks", type=int, default=50, help="hosts at once")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with Fleet.of(max(options.sizes)) as fleet:
        ping = fleet.folder / "ping.yml"
        ping.write_text(PLAY)
        plays = {"ping": ping, "cc_mode": CC_MODE}
        fleet.put("on")
        for play in plays.values():
            timed(fleet, play, 1, 1)  # once unmeasured: files are cached
        print("hosts       ping    cc_mode   ratio   processor time: ping    cc_mode   ratio")
        for size in options.sizes:
            taken: dict[str, list[tuple[float, float]]] = {name: [] for name in plays}
            for _run in range(options.runs):
                for name, play in plays.items():
                    taken[name].append(timed(fleet, play, size, options.forks))
            figures[str(size)] = dict(taken)
            wall, processor = ({name: median(runs, of) for name, runs in taken.items()} for of in (0, 1))
            row = (*wall.values(), ratio(wall), *processor.values(), ratio(processor))
            print("%-6d %9.2f %10.2f %7.2f %22.2f %10.2f %7.2f" % (size, *row), flush=True)
    what = "%d hosts, the playbook cc_mode where nothing is to be changed / ping" % options.sizes[-1]
    basis = "%d runs, %d forks, %d processors" % (options.runs, options.forks, os.cpu_count() or 0)
    return conclude("fleet-ping", [Limit(what, ratio(wall), LIMIT, "x", basis)], figures)


def timed(fleet: Fleet, play: Path, size: int, forks: int) -> tuple[float, float]:
    """Seconds of the wall clock, and of all processors, without those of the emulators."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took, text = fleet.play(play, size, forks)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if text.count("changed=0 ") != size:
        raise SystemExit("something was changed:\n%s" % text)
    return took, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime


def median(runs: list[tuple[float, float]], of: int) -> float:
    """Of one of both figures."""
    return statistics.median(run[of] for run in runs)


def ratio(of: dict[str, float]) -> float:
    """cc_mode against ping."""
    return of["cc_mode"] / of["ping"]


if __name__ == "__main__":
    sys.exit(main())
