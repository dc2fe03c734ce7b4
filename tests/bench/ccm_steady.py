#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure the cloud controller manager while nothing happens: python -m tests.bench.ccm_steady [--nodes 100 10000]

Nodes that are as they should be, in a real API server; their kubelets report once in five minutes each. What is asked
of the bare-metal manager (emulated), what is written, and the memory.
"""

from __future__ import annotations

import argparse
import http.client
import ipaddress
import itertools
import json
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests", ROOT / "container"):
    sys.path.insert(0, str(folder))

from bmm_emulator.launch import launch  # noqa: E402

from tests.bench.limits import Limit, conclude  # noqa: E402
from tests.cloud.programs import ORG, SITE, TENANT, condition, grant, kubelet_node, start_ours  # noqa: E402
from tests.cloud.server import Child, Refused, Server, running  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

# The most that the process may ever have, in MiB, by the number of nodes.
MOST_MIB = {100: 45.0, 10_000: 150.0}
# A kubelet reports where nothing changes, and the manager lists; both by default.
PERIOD_S = 300.0
PAGE = 100


def main() -> int:
    """Measure, print, write; 0 when the limits are kept."""
    parser = argparse.ArgumentParser(description="Measure the cloud controller manager while nothing happens.")
    parser.add_argument("--nodes", type=int, nargs="+", default=[100, 10_000], help="how many there are")
    parser.add_argument("--seconds", type=float, default=310.0, help="how long they are looked at")
    options = parser.parse_args()
    limits: list[Limit] = []
    figures: dict[str, Any] = {}
    try:
        with running() as server, tempfile.TemporaryDirectory() as name:
            grant(server, Path(name))
            for count in options.nodes:
                found = figures[str(count)] = steady(server, count, options.seconds)
                basis = f"{count} nodes, {options.seconds:.0f} s, {found['reports']} reports of kubelets"
                # One at the start, and one after each period.
                rounds = 1 + options.seconds // PERIOD_S
                limits += [
                    Limit("lists in a period", found["lists"] / rounds, -(-count // PAGE), "", basis),
                    Limit("other requests for instances", found["others"], 0, "", basis),
                    Limit("writes", found["writes"], 0, "", basis),
                    Limit("memory", found["peak_mib"], MOST_MIB.get(count, 150.0), "MiB", basis),
                ]
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return conclude("ccm-steady", limits, figures)


def steady(server: Server, count: int, seconds: float) -> dict[str, Any]:
    """What the manager asks, writes and has."""
    server.clear()
    entry = {"name": "gpu-{n}", "count": count, "type": "gpu.8xh100", "addresses": ["10.0.0.0/16", "fd00::/64"]}
    with launch({"instances": [entry]}) as emulator:
        nodes = [node_of(record) for record in emulator.world.instances.values()]
        began = time.monotonic()
        in_parts(server, nodes)
        made_s = time.monotonic() - began
        server.forget()
        emulator.forget_requests()
        child = start_ours(server, emulator)
        try:
            reports = let_report(server, [one["metadata"]["name"] for one in nodes], seconds, child)
            asked = [str(one["path"]) for one in emulator.requests]
            about = [path for path in asked if path.startswith("instance")]
            writes = [
                one
                for one in server.audit("ccm")
                if one["verb"] in ("patch", "delete", "create", "update") and one["objectRef"]["resource"] != "leases"
            ]
            return {
                "lists": about.count("instance"),
                "others": len(about) - about.count("instance"),
                "writes": len(writes),
                "reports": reports,
                "peak_mib": memory_mib(child, "VmHWM"),
                "mib": memory_mib(child, "VmRSS"),
                "cpu_s": cpu_s(child),
                "made_s": made_s,
            }
        finally:
            child.end()


def node_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A node that is as the manager wants it."""
    found = [one for interface in record["interfaces"] for one in interface["ipAddresses"]]
    addresses = [{"type": "InternalIP", "address": str(ipaddress.ip_address(one))} for one in found]
    name = record["name"]
    return kubelet_node(
        name,
        provider_id=f"nvidia-bmm://{ORG}/{TENANT}/{SITE}/{record['id']}",
        taints=[],
        addresses=[*addresses, {"type": "Hostname", "address": name}],
    )


class Keeper:
    """A connection to the API server that is kept, as its administrator."""

    def __init__(self, server: Server) -> None:
        context = ssl.create_default_context(cafile=str(server.folder / "certificates/apiserver.crt"))
        self._http = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=30)
        self._headers = {"Authorization": f"Bearer {server.tokens['admin']}"}

    def __call__(self, method: str, path: str, body: object, kind: str = "application/json") -> None:
        """One request. Raises Refused."""
        self._http.request(method, path, json.dumps(body), {**self._headers, "Content-Type": kind})
        answer = self._http.getresponse()
        text = answer.read().decode()
        if answer.status >= 300:
            raise Refused(answer.status, text)


def in_parts(server: Server, nodes: list[dict[str, Any]], parts: int = 4) -> None:
    """Make all nodes."""

    def make(some: list[dict[str, Any]]) -> None:
        keeper = Keeper(server)
        for one in some:
            keeper("POST", "/api/v1/nodes", one)

    threads = [threading.Thread(target=make, args=(nodes[number::parts],)) for number in range(parts)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(server.nodes()) == len(nodes)


def let_report(server: Server, names: list[str], seconds: float, child: Child) -> int:
    """What kubelets do: each says once in a period that all is well; how many did."""
    keeper = Keeper(server)
    ends = time.monotonic() + seconds
    for number, name in enumerate(itertools.cycle(names)):
        due = ends - seconds + number * PERIOD_S / len(names)
        if due >= ends:
            time.sleep(max(0.0, ends - time.monotonic()))
            return number
        child.check()
        time.sleep(max(0.0, due - time.monotonic()))
        change = {"status": {"conditions": [condition(ready=True)]}}
        keeper("PATCH", f"/api/v1/nodes/{name}/status", change, "application/merge-patch+json")
    raise AssertionError("there are no nodes")


def memory_mib(child: Child, what: str) -> float:
    """VmHWM: the most it ever had; VmRSS: what it has."""
    for line in Path(f"/proc/{child.process.pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the memory")


def cpu_s(child: Child) -> float:
    """Processor time that it has had."""
    words = Path(f"/proc/{child.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / 100


if __name__ == "__main__":
    sys.exit(main())
