#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the CC manager in a real Kubernetes: python -m tests.bench.cluster [--runs 5] [--image FILE] [--idle-s 60]

From the label's change to the verified state label, against what no program can do faster: the eviction of the
components as measured here, one function-level reset and one boot. What each row means stands in docs/benchmarks.md.
The table goes to standard output, every figure to tests/output/bench-cluster.json; the exit status is 1 when a limit
is missed. As root, with what tests/cluster needs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.limits import Limit, conclude
from tests.cluster.kube import workloads
from tests.cluster.kube.api import Object
from tests.cluster.kube.bed import PAUSED, Bed, bed, is_settled
from tests.cluster.kube.cluster import Cluster, running
from tests.cluster.kube.programs import check_machine
from tools import image
from tools.needs import NotPossible

FLR_S, BOOT_S = 0.1, 2.0
TIMES = 1.25
GPUS = [f"0000:{number:02x}:00.0" for number in (0x17, 0x3B, 0x4C, 0x5D, 0x9B, 0xBB, 0xCB, 0xDB)]
TIMING = {"flr_s": FLR_S, "boot_s": BOOT_S, "rpc_s": 0.002}
EIGHT = {"name": "eight", "timing": TIMING, "devices": [{"address": one, "model": "h100-sxm"} for one in GPUS]}
# Seconds, with the same emulated devices and three components, and MiB: k8s-cc-manager, main, August 2026.
REFERENCE = {"off -> on": 5.83, "on -> off": 5.41, "off -> ppcie": 6.53, "ppcie -> on": 9.45, "idle memory": 71.0}
IDLE_MEMORY_MIB, IDLE_CPU_MS_PER_MINUTE, PEAK_MIB = 55.0, 2.0, 160.0


def main() -> int:
    """Measure, print, write; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(description="Measure the CC manager in a real Kubernetes.")
    parser.add_argument("--runs", type=int, default=5, help="runs of each change")
    parser.add_argument("--idle-s", type=float, default=60.0, help="seconds of idling that are measured")
    parser.add_argument("--image", type=Path, help="a docker archive, instead of one built from the working tree")
    options = parser.parse_args()
    try:
        check_machine()
        with tempfile.TemporaryDirectory() as folder, running() as cluster:
            cluster.load(archive(options.image, Path(folder)))
            cluster.apply(workloads.namespace())
            figures = measure(cluster, options.runs, options.idle_s)
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    eviction = figures["eviction"]
    print(f"eviction {statistics.median(eviction):.2f} s ({min(eviction):.2f} to {max(eviction):.2f})")
    print(f"limit of a change: {TIMES} x (eviction + {FLR_S} s reset + {BOOT_S} s boot)")
    return conclude("cluster", judge(figures), figures)


def archive(given: Path | None, folder: Path) -> Path:
    """The image."""
    if given:
        return given.resolve()
    image.build(workloads.IMAGE, folder / "image.tar")
    return folder / "image.tar"


def measure(cluster: Cluster, runs: int, idle_s: float) -> dict[str, list[float]]:
    """Seconds, MiB and ms by name, run by run."""
    figures: dict[str, list[float]] = {"eviction": []}
    with ready(cluster, EIGHT, figures, runs) as node:
        alternate(node, ("on", "off"), runs, figures)
        rest(node, idle_s, figures)
    with ready(cluster, "hgx-h100", figures, 0) as node:
        for run in range(runs):
            for mode in ("ppcie", "on"):
                timed(node, mode, figures, run / runs)
            untimed(node, "off")
    return figures


@contextmanager
def ready(cluster: Cluster, devices: object, figures: dict[str, list[float]], evictions: int) -> Iterator[Bed]:
    """A node in the mode off with three components and the manager; before it comes, evictions are timed."""
    with bed(cluster, devices, **TIMING) as node:  # type: ignore[arg-type]
        node.start_node()
        # The validator's pod waits for the file that the manager will write.
        (node.run_nvidia / "validations").mkdir()
        (node.run_nvidia / "validations/.cc-manager-ctr-ready").touch()
        for run in range(evictions):
            figures["eviction"].append(evicted(node, run / evictions))
        # No default mode: with one, a host whose kvm module is not loaded, as this may be, is asked again each minute.
        settings = {"CC_MANAGER_BUS": "vfio-user:/run/nvidia/gpus", "CC_MANAGER_DRIFT_INTERVAL": "0"}
        cluster.apply(*workloads.manager(settings, default_mode=""))
        node.wait_for_manager()
        node.until(lambda found: is_settled(found, "off"))
        untimed(node, "off")
        yield node


def evicted(node: Bed, phase_s: float) -> float:
    """Seconds from the components' labels being paused until their pods are gone, with nothing else going on."""
    left = set(node.wait_for_components().values())
    time.sleep(phase_s)
    labels = [workloads.deploy_label(one) for one in workloads.KATA]
    began = time.monotonic()
    node.cluster.set_labels(dict.fromkeys(labels, PAUSED))
    for pod in node.cluster.api.watch(f"/api/v1/namespaces/{workloads.NAMESPACE}/pods", 60):
        if pod["deleted"]:
            left.discard(pod["metadata"]["uid"])
        if not left:
            break
    seconds = time.monotonic() - began
    node.cluster.set_labels(dict.fromkeys(labels, "true"))
    return seconds


def alternate(node: Bed, modes: tuple[str, ...], runs: int, figures: dict[str, list[float]]) -> None:
    """Each mode after the other, again and again."""
    for run in range(runs):
        for mode in modes:
            timed(node, mode, figures, run / runs)


def timed(node: Bed, mode: str, figures: dict[str, list[float]], phase_s: float) -> None:
    """A change, its seconds, and the most memory that the manager's cgroup had during it.

    A kubelet looks at its containers once a second, and the components have just been seen running: how long they take
    to go depends on when in that second they are told. So evictions and changes begin at phases spread over it.
    """
    before = state(node.cluster.node())
    pod = node.manager()
    node.cluster.forget_memory_peak(pod)
    time.sleep(phase_s)
    seconds = node.change(mode)
    figures.setdefault(f"{before} -> {mode}", []).append(seconds)
    figures.setdefault("cgroup peak", []).append(node.cluster.memory_peak_bytes(pod) / 2**20)
    if node.modes() != {mode}:
        raise RuntimeError(f"the label says {mode}, the devices are in {node.modes()}")
    node.wait_for_components()


def untimed(node: Bed, mode: str) -> None:
    """Back to where a row begins."""
    node.change(mode)
    node.wait_for_components()


def rest(node: Bed, idle_s: float, figures: dict[str, list[float]]) -> None:
    """Memory and processor time while nothing happens, after a while in which what was freed is given back."""
    pid = node.cluster.container_pid(node.manager())
    time.sleep(10)
    before, began = node.cluster.cpu_ns(node.manager()), time.monotonic()
    time.sleep(idle_s)
    spent_ms = (node.cluster.cpu_ns(node.manager()) - before) / 1e6
    figures["idle processor time"] = [spent_ms * 60 / (time.monotonic() - began)]
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    figures["idle memory"] = [int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024]


def state(node: Object) -> str:
    """The state label."""
    found: str = node["metadata"]["labels"]["nvidia.com/cc.mode.state"]
    return found


def judge(figures: dict[str, list[float]]) -> list[Limit]:
    """Each limit with what was measured."""
    least_s = statistics.median(figures["eviction"]) + FLR_S + BOOT_S
    limits = [
        median(name, figures[name], TIMES * least_s, "s")
        for name in ("off -> on", "on -> off", "off -> ppcie", "ppcie -> on")
    ]
    limits.append(median("idle memory", figures["idle memory"], IDLE_MEMORY_MIB, "MiB"))
    limits.append(median("idle processor time", figures["idle processor time"], IDLE_CPU_MS_PER_MINUTE, "ms/min"))
    peaks = figures["cgroup peak"]
    limits.append(Limit("cgroup peak in a change", max(peaks), PEAK_MIB, "MiB", f"the most of {len(peaks)} changes"))
    return limits


def median(name: str, figures: list[float], most: float, unit: str) -> Limit:
    """One limit, kept by the median."""
    basis = f"{min(figures):.2f} to {max(figures):.2f}, {len(figures)} runs"
    return Limit(name, statistics.median(figures), most, unit, basis, REFERENCE.get(name))


if __name__ == "__main__":
    sys.exit(main())
