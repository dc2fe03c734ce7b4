#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure how Ansible's forks carry many hosts, each with one H100 behind a socket: off to on by the playbook cc_mode.

    python -m tests.bench.fleet [--runs 3]

All hosts are this machine, so they share its processors; what overlaps is the devices' own time, two seconds of boot
each. The curve goes to standard output; the exit status is 1 when the limit is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.limits import Limit, conclude
from tests.bench.programs import ROOT, Emulator, demo, gpus, launch

SIZES = (1, 2, 5, 10, 20)
# All at once against one after the other.
LIMIT = 0.6
CC_MODE = ROOT / "playbooks/cc_mode.yml"


class Fleet:
    """Hosts of the inventory, each with an emulator of its own. ``folder``: for their files."""

    def __init__(self, folder: Path, emulators: Sequence[Emulator]) -> None:
        self.folder = folder
        self._emulators = list(emulators)
        self._environment = demo.ansible_environment(folder)

    @classmethod
    @contextlib.contextmanager
    def of(cls, size: int) -> Iterator[Fleet]:
        """That many hosts, gone at the end."""
        with tempfile.TemporaryDirectory(prefix="confidential-gpu-fleet-") as name, contextlib.ExitStack() as stack:
            yield cls(Path(name), [stack.enter_context(launch(gpus(1))) for _host in range(size)])

    def seconds(self, size: int, forks: int) -> float:
        """The first ``size`` hosts from off to on, ``forks`` at a time."""
        self.put("off", size)
        took, text = self.play(CC_MODE, size, forks)
        modes = {state["mode"] for emulator in self._emulators[:size] for state in emulator.control.state().values()}
        if modes != {"on"}:
            raise SystemExit("modes %s:\n%s" % (modes, text))
        return took

    def play(self, playbook: Path, size: int, forks: int) -> tuple[float, str]:
        """Seconds of a playbook on the first ``size`` hosts, ``forks`` at a time, and what it said."""
        command = [str(Path(sys.executable).parent / "ansible-playbook"), "--forks", str(forks)]
        command += ["--inventory", str(self._inventory(size)), str(playbook)]
        began = time.monotonic()
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.monotonic() - began
        if done.returncode:
            raise SystemExit("status %d:\n%s%s" % (done.returncode, done.stdout, done.stderr))
        return took, done.stdout

    def put(self, mode: str, size: int | None = None) -> None:
        """All GPUs of the first ``size`` hosts in a mode."""
        for emulator in self._emulators[:size]:
            emulator.control.restore()
            emulator.control.set(mode=mode)

    def _inventory(self, size: int) -> Path:
        """The first ``size`` hosts, as JSON; each is asked for the mode on."""
        hosts = {
            "node%03d" % number: {
                "cc_mode_bus": "vfio-user:%s" % emulator.sockets,
                "cc_mode_fact_file": str(self.folder / ("facts%03d" % number) / "confidential_gpu.fact"),
            }
            for number, emulator in enumerate(self._emulators[:size])
        }
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "cc_mode_become": False,
            "cc_mode_mode": "on",
        }
        path = self.folder / "inventory.json"
        path.write_text(json.dumps({"all": {"hosts": hosts, "vars": shared}}))
        return path


def main() -> int:
    """Measure and print; 0 when the limit is kept."""
    parser = argparse.ArgumentParser(description="Measure many hosts at once.")
    parser.add_argument("--runs", type=int, default=3, help="runs of each size")
    runs = parser.parse_args().runs
    largest = SIZES[-1]
    with Fleet.of(largest) as fleet:
        fleet.seconds(1, 1)  # once unmeasured: files are cached
        # Compared ones take turns.
        together: dict[int, list[float]] = {size: [] for size in SIZES}
        alone: list[float] = []
        for _run in range(runs):
            for size in SIZES:
                together[size].append(fleet.seconds(size, size))
            alone.append(fleet.seconds(largest, 1))
    print("hosts, all at once    seconds  per host")
    for size, seconds in together.items():
        median = statistics.median(seconds)
        print("%-18d %10.2f %9.2f" % (size, median, median / size))
    one_by_one = statistics.median(alone)
    print("%-18s %10.2f %9.2f" % ("%d, forks=1" % largest, one_by_one, one_by_one / largest))
    ratio = statistics.median(together[largest]) / one_by_one
    what = "%d hosts, all at once / one after the other" % largest
    limit = Limit(what, ratio, LIMIT, "x", "%d runs, %d processors" % (runs, os.cpu_count() or 0))
    return conclude("fleet", [limit], {"all at once": together, "one after the other": alone})


if __name__ == "__main__":
    sys.exit(main())
