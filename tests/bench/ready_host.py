#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure a run of the playbook site on a host that is ready, against a play of as many pings on the same host.

    python -m tests.bench.ready_host [--runs 3]

The host is a virtual machine with two H100 (tests/vm), made ready by the playbook itself, which takes minutes. The exit
status is 1 when a limit is missed, 2 when this machine cannot run such a machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# The emulator, which tests.vm imports.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "gpu-admin-tools"))

from tests.bench.limits import Limit, conclude
from tests.vm.bench import image
from tests.vm.bench.control import SITE, Run, site_variables, wheels
from tests.vm.conftest import Vm, running
from tools.needs import NotPossible

MOST_TASKS = 40
LIMIT = 1.6


def main() -> int:
    """Measure and print; 0 when both limits are kept."""
    parser = argparse.ArgumentParser(description="Measure the playbook site on a host that is ready.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, taking turns")
    runs = parser.parse_args().runs
    try:
        stock = image.build()
    except NotPossible as reason:
        print(f"ready_host: did not run: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name, running(stock, Path(name), ["h100-pcie", "h100-pcie"]) as vm:
        variables = site_variables(wheels())
        first = expected(vm.control.playbook(SITE, variables), changes=True)
        tasks = expected(vm.control.playbook(SITE, variables), changes=False).tasks
        site, ping = measured(vm, variables, ping_play(Path(name), tasks), runs)
    return judged(first, site, ping, tasks)


def expected(run: Run, changes: bool) -> Run:
    """The same run, if it ended as it should."""
    if run.status or (run.recap["changed"] > 0) != changes:
        raise SystemExit(f"status {run.status}, {run.recap}:\n{run.output}")
    return run


def ping_play(folder: Path, tasks: int) -> Path:
    """A play that does nothing that often, as the same user."""
    path = folder / "ping.yml"
    play = {"hosts": "all", "gather_facts": False, "become": True, "tasks": [{"ansible.builtin.ping": {}}] * tasks}
    path.write_text(json.dumps([play]))
    return path


def measured(vm: Vm, variables: Mapping[str, object], ping: Path, runs: int) -> tuple[list[float], list[float]]:
    """Seconds of the playbook and of the pings, in turns."""
    figures: tuple[list[float], list[float]] = ([], [])
    for _run in range(runs):
        figures[0].append(expected(vm.control.playbook(SITE, variables), changes=False).seconds)
        figures[1].append(expected(vm.control.playbook(ping, {}), changes=False).seconds)
    return figures


def judged(first: Run, site: list[float], ping: list[float], tasks: int) -> int:
    """Print what was measured; 0 when both limits are kept."""
    ratio = statistics.median(site) / statistics.median(ping)
    print(f"first run, with reboot: {first.seconds:.0f} s, {first.tasks} tasks")
    for name, seconds in (("run on a host that is ready", site), (f"{tasks} pings", ping)):
        low, high = min(seconds), max(seconds)
        print(f"{name}: {statistics.median(seconds):.1f} s (min {low:.1f}, max {high:.1f}, {len(seconds)} runs)")
    limits = [
        Limit("tasks on a host that is ready", tasks, MOST_TASKS, "", "the second run"),
        Limit("run on a host that is ready / as many pings", ratio, LIMIT, "x", f"{len(site)} runs of each"),
    ]
    return conclude("ready-host", limits, {"site": site, "pings": ping, "first": first.seconds})


if __name__ == "__main__":
    sys.exit(main())
