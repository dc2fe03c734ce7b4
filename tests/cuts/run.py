#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Mode changes cut at every single write, by killing the process and by cutting the device's power.

    python tests/cuts/run.py
    python tests/cuts/run.py --node one-h100 --from off --to on --cut kill --at 17

A change is run once to count what it writes to each device, then once more for every write with a cut at that write.
After each cut a plain second run must end in the request.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from nodes import BARE, DEVTOOLS, KILL, NODES, OFF, ON, POWER, PPCIE, Cut
from subject import Subject, running

# Most of the time is waited: NVIDIA's tool gives a command that was cut in two 5 s to be answered. So there are more
# workers than processors.
DEFAULT_WORKERS = 4 * (os.cpu_count() or 1)


def main() -> int:
    """Run what was asked for; 0 if every cut was recovered from."""
    options = arguments()
    began = time.monotonic()
    cuts = list(every_cut(options))
    if options.list:
        for change, count in Counter(cut.change for cut in cuts).items():
            print("%-20s %-9s -> %-9s %-6s %4d cuts" % (*change, count))
    else:
        print("%d cuts, %d workers" % (len(cuts), options.workers), flush=True)
    if options.list or not cuts:
        print("%d cuts" % len(cuts))
        return 0 if cuts else 1
    failures = Progress(cuts).follow(run_all(cuts, options.workers))
    for cut, why in failures:
        print("FAILED: %s\n    %s" % (why, cut.command()))
    print("%d/%d cuts recovered, %.0f s" % (len(cuts) - len(failures), len(cuts), time.monotonic() - began))
    return 1 if failures else 0


def arguments() -> argparse.Namespace:
    """The command line; what is left out means all."""
    parser = argparse.ArgumentParser(description="Cut mode changes at every write and recover from each cut.")
    modes = (OFF, ON, DEVTOOLS, PPCIE)
    parser.add_argument("--node", choices=NODES)
    parser.add_argument("--from", dest="start", choices=(*modes, *BARE), help="the mode before")
    parser.add_argument("--to", dest="desired", choices=modes, help="the mode that is wanted")
    parser.add_argument("--cut", choices=(KILL, POWER), help="kill the process, or cut the device's power")
    parser.add_argument("--device", help="the PCI address of the device whose write is cut")
    parser.add_argument("--at", type=int, help="the number of the write, from 1")
    parser.add_argument("--list", action="store_true", help="only say which changes are cut how often")
    parser.add_argument("--workers", type=int, default=DEFAULT_WORKERS, help="processes, each with an emulator")
    return parser.parse_args()


def every_cut(options: argparse.Namespace) -> Iterator[Cut]:
    """All cuts that were asked for: as many for each change as it writes."""
    for node in NODES.values():
        if options.node not in (None, node.name):
            continue
        with running(node) as subject:
            for start, desired in node.chosen(options.start, options.desired):
                writes = subject.writes(start, desired)
                for how in [options.cut] if options.cut else [KILL, POWER]:
                    for device, count in writes.items():
                        for at in range(1, count + 1):
                            if options.device in (None, device) and options.at in (None, at):
                                yield Cut(node.name, start, desired, how, device, at)


def run_all(cuts: Sequence[Cut], workers: int) -> Iterator[tuple[Cut, str]]:
    """Each cut with what is wrong, in the order in which they end. Raises RuntimeError when a worker dies."""
    fork = multiprocessing.get_context("fork")
    taken = fork.Value("i", 0)
    processes, pipes = [], []
    for _number in range(min(workers, len(cuts))):
        reader, writer = fork.Pipe(duplex=False)
        process = fork.Process(target=work, args=(cuts, taken, writer))
        process.start()
        writer.close()
        processes.append(process)
        pipes.append(reader)
    ended = 0
    while pipes:
        for ready in wait(pipes):
            assert isinstance(ready, Connection)
            try:
                index, why = ready.recv()
            except EOFError:
                pipes.remove(ready)
                continue
            ended += 1
            yield cuts[index], why
    for process in processes:
        process.join()
    if ended != len(cuts):
        raise RuntimeError("%d cuts were not run: a worker died (its words are above)" % (len(cuts) - ended))


def work(cuts: Sequence[Cut], taken: Any, results: Connection) -> None:
    """A worker: take the next cut until there is none, with a node of its own for each kind of node."""
    with contextlib.ExitStack() as stack:
        subjects: dict[str, Subject] = {}
        while True:
            with taken.get_lock():
                index = taken.value
                taken.value += 1
            if index >= len(cuts):
                return
            name = cuts[index].node
            if name not in subjects:
                subjects[name] = stack.enter_context(running(NODES[name]))
            results.send((index, subjects[name].run(cuts[index])))


class Progress:
    """A line for each change, when its last cut has ended."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        self._left = Counter(cut.change for cut in cuts)
        self._all = Counter(self._left)

    def follow(self, results: Iterator[tuple[Cut, str]]) -> list[tuple[Cut, str]]:
        """Print while the results come; return the failures."""
        failures = []
        for cut, why in results:
            if why:
                failures.append((cut, why))
            self._left[cut.change] -= 1
            if not self._left[cut.change]:
                failed = sum(other.change == cut.change for other, _why in failures)
                line = "%-20s %-9s -> %-9s %-6s" % cut.change
                print("%s %4d/%d" % (line, self._all[cut.change] - failed, self._all[cut.change]), flush=True)
        return failures


if __name__ == "__main__":
    sys.exit(main())
