#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the cloud controller manager: python -m tests.bench.ccm [--nodes 300 1000] [--singles 40] [--oracle]

Nodes wait in a real API server when the program starts; how long until all are initialised is measured, what it asks of
the bare-metal manager (emulated), and its memory. Then nodes come one at a time. ``--oracle`` measures Kubernetes' own
controllers beside it, with as many nodes as the first of ``--nodes``.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests", ROOT / "container"):
    sys.path.insert(0, str(folder))

from bmm_emulator.launch import launch  # noqa: E402
from bmm_emulator.server import Emulator  # noqa: E402

from tests.bench.ccm_steady import cpu_s, memory_mib  # noqa: E402
from tests.bench.limits import Limit, conclude  # noqa: E402
from tests.cloud.programs import (  # noqa: E402
    grant,
    kubelet_node,
    oracle,
    provider_id,
    start_oracle,
    start_ours,
    untainted,
)
from tests.cloud.server import Child, Server, running, until  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

MOST_S = {300: 10.0, 1000: 15.0}
MOST_MIB = 60.0
P50_S, P99_S = 1.0, 3.0


def main() -> int:
    """Measure, print, write; 0 when the limits are kept."""
    parser = argparse.ArgumentParser(description="Measure the cloud controller manager.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[300, 1000], help="how many wait")
    parser.add_argument("--singles", type=int, default=40, help="how many come one at a time")
    parser.add_argument("--oracle", action="store_true", help="Kubernetes' own controllers, too")
    options = parser.parse_args()
    limits: list[Limit] = []
    figures: dict[str, Any] = {}
    try:
        with running() as server, tempfile.TemporaryDirectory() as name:
            grant(server, Path(name))
            theirs = waiting(server, options.nodes[0], start_oracle, ()) if options.oracle and oracle() else None
            figures["Kubernetes' own"] = theirs
            for count in options.nodes:
                found = figures[str(count)] = waiting(server, count, start_ours, (), options.singles)
                basis = f"{count} nodes that wait"
                reference = theirs["seconds"] if theirs and count == options.nodes[0] else None
                most = MOST_S.get(count, count / 50)
                limits += [
                    Limit("all initialised", found["seconds"], most, "s", basis, reference),
                    Limit("requests to the API", found["calls"], -(-count // 100) + 1, "", basis),
                    Limit("memory", found["mib"], MOST_MIB, "MiB", basis, theirs["mib"] if theirs else None),
                    Limit("a new node, p50", found["p50"], P50_S, "s", f"{options.singles} one at a time"),
                    Limit("a new node, p99", found["p99"], P99_S, "s", f"{options.singles} one at a time"),
                ]
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return conclude("ccm", limits, figures)


def waiting(server: Server, count: int, start: Any, flags: tuple[str, ...], singles: int = 0) -> dict[str, Any]:
    """Seconds from the start of the program until as many nodes are initialised; its calls and its memory."""
    server.clear()
    instances = [{"name": "gpu-{n}", "count": count + singles, "type": "gpu.8xh100", "addresses": ["10.0.0.0/16"]}]
    with launch({"instances": instances}) as emulator:
        names = [f"gpu-{number}" for number in range(count)]
        register(server, emulator, names)
        emulator.forget_requests()
        server.forget()
        began = time.time()
        child: Child = start(server, emulator, *flags)
        try:
            while not untainted(server, names)():
                child.check()
                time.sleep(1.0)  # each look at all nodes costs the server what it costs the program
            found: dict[str, Any] = {"seconds": last_write(server) - began}
            found["calls"] = len([one for one in emulator.requests if str(one["path"]).startswith("instance")])
            found["mib"] = memory_mib(child, "VmHWM")
            found["cpu_s"] = cpu_s(child)  # says more than the clock where the machine has other work
            taken = sorted(one_at_a_time(server, emulator, count, singles))
            if taken:
                found |= {"p50": statistics.median(taken), "p99": taken[-1 - len(taken) // 100]}
            return found
        finally:
            child.end()


def last_write(server: Server) -> float:
    """When a node was last changed by the program, in seconds since 1970."""
    found = [one for who in ("ccm", "oracle") for one in server.audit(who) if one["verb"] in ("patch", "update")]
    last = max(one["stageTimestamp"] for one in found if one["objectRef"]["resource"] == "nodes")
    return datetime.datetime.fromisoformat(last).timestamp()


def register(server: Server, emulator: Emulator, names: list[str]) -> None:
    """All nodes, with their ids."""
    ids = {name: provider_id(emulator, name) for name in names}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: server.register(kubelet_node(name, provider_id=ids[name])), names))


def one_at_a_time(server: Server, emulator: Emulator, first: int, singles: int) -> list[float]:
    """Seconds from each node's registration until its taint is gone."""
    taken = []
    for number in range(first, first + singles):
        name = f"gpu-{number}"
        node = kubelet_node(name, provider_id=provider_id(emulator, name))
        began = time.monotonic()
        server.register(node)

        def is_done(name: str = name) -> bool:
            found = server.request("GET", f"/api/v1/nodes/{name}")
            return not any("uninitialized" in one["key"] for one in found["spec"].get("taints") or [])

        until(is_done)
        taken.append(time.monotonic() - began)
    return taken


if __name__ == "__main__":
    sys.exit(main())
