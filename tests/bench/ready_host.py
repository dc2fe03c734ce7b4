#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure a run of the playbook site on a host that is ready, against a play of as many pings on the same host.

And the module kernel_cmdline, which finds nothing to do there, against the ping.

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

Task = dict[str, dict[str, object]]

MOST_TASKS = 40
LIMIT = 0.35
MODULE_LIMIT = 1.5
# Of the module and of the ping: so many that what a play costs by itself counts little.
MODULES = 10
PING: Task = {"ansible.builtin.ping": {}}
UNCHANGED: Task = {"confidential.gpu.kernel_cmdline": {"add": ["intel_iommu=on"]}}


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
        plays = {"site": (SITE, variables), f"{tasks} pings": (play(Path(name), PING, tasks), {})}
        plays["kernel_cmdline"] = (play(Path(name), UNCHANGED, MODULES), {})
        plays["ping"] = (play(Path(name), PING, MODULES), {})
        figures = measured(vm, plays, runs)
    return judged(first, figures, tasks)


def expected(run: Run, changes: bool) -> Run:
    """The same run, if it ended as it should."""
    if run.status or (run.recap["changed"] > 0) != changes:
        raise SystemExit(f"status {run.status}, {run.recap}:\n{run.output}")
    return run


def play(folder: Path, task: Task, times: int) -> Path:
    """A play that does one thing that often, as the same user."""
    path = folder / f"{next(iter(task))}-{times}.yml"
    path.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "become": True, "tasks": [task] * times}]))
    return path


def measured(vm: Vm, plays: Mapping[str, tuple[Path, Mapping[str, object]]], runs: int) -> dict[str, list[float]]:
    """Seconds of each play, in turns."""
    figures: dict[str, list[float]] = {name: [] for name in plays}
    for _run in range(runs):
        for name, (path, variables) in plays.items():
            figures[name].append(expected(vm.control.playbook(path, variables), changes=False).seconds)
    return figures


def judged(first: Run, figures: Mapping[str, list[float]], tasks: int) -> int:
    """Print what was measured; 0 when all limits are kept."""
    median = {name: statistics.median(seconds) for name, seconds in figures.items()}
    print(f"first run, with reboot: {first.seconds:.0f} s, {first.tasks} tasks")
    for name, seconds in figures.items():
        times = f"{MODULES} x " if name in ("kernel_cmdline", "ping") else ""
        print(
            f"{times}{name}: {median[name]:.1f} s (min {min(seconds):.1f}, max {max(seconds):.1f}, {len(seconds)} runs)"
        )
    of_runs = f"{len(figures['site'])} runs of each"
    site, module = median["site"] / median[f"{tasks} pings"], median["kernel_cmdline"] / median["ping"]
    limits = [
        Limit("tasks on a host that is ready", tasks, MOST_TASKS, "", "the second run"),
        Limit("run on a host that is ready / as many pings", site, LIMIT, "x", of_runs),
        Limit("kernel_cmdline, nothing to do / ping", module, MODULE_LIMIT, "x", of_runs),
    ]
    return conclude("ready-host", limits, {**figures, "first": first.seconds})


if __name__ == "__main__":
    sys.exit(main())
