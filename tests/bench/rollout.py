# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure a rollout over a thousand nodes: python -m tests.bench.rollout [--nodes 1000] [--budget 10%]

etcd and an API server on loopback, without kubelets; the CC managers are those of tests/bench/simulated.py, which ask
of the API what the real one asks. First every node is labelled at once, then a new fleet by kubectl cc: the time,
the requests (from the API server's log), and the most nodes that are out of service at one moment. Needs what
tests/cloud needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "container"))

from kube.client import MERGE_PATCH, Kube
from kube.connection import of_file

from tests.bench.limits import Limit, conclude
from tests.bench.simulated import COMPONENTS, MODE, STATE, Job
from tests.cloud.server import Server, running
from tools.cache import ROOT
from tools.needs import NotPossible

WHO = "rollout"
ZONES = "abcd"
# Eviction, reset and boot of a real node.
CHANGE_S = 3.15
MIB_MAX = 64.0
REQUESTS_MAX = 3.2  # for each node: look, take, let go; and what all share


def main() -> int:
    """Measure, print, write; 0 when the limits are kept."""
    parser = argparse.ArgumentParser(description="Measure a rollout over many nodes.")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--budget", default="10%")
    parser.add_argument("--light", action="store_true", help="one process is all CC managers: tests/bench/light.py")
    parser.add_argument("--zone-budget", action="store_true", help="the budget is that of each zone")
    options = parser.parse_args()
    try:
        with running() as server:
            grant(server)
            found: dict[str, Any] = {"nodes": options.nodes, "budget": options.budget, "of them slept, s": CHANGE_S}
            with fleet(server, options.nodes, options.light) as managers:
                found["all labelled at once"] = measured(
                    server, options.nodes, lambda: label_all(server, options.nodes)
                )
                check(managers, options.light)
            per = ["--budget-per", "topology.kubernetes.io/zone"] if options.zone_budget else []
            with fleet(server, options.nodes, options.light) as managers:
                words = ["rollout", "start", "--mode", "on", "--budget", options.budget, *per]
                found["rollout"] = measured(server, options.nodes, lambda: plugin(server, *words))
                check(managers, options.light)
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=1))
    asked = sum(count for what, count in found["rollout"]["requests"].items() if not what.endswith("leases"))
    return conclude(
        "rollout",
        [
            Limit(
                "memory of kubectl cc rollout",
                found["rollout"]["memory, MiB"],
                MIB_MAX,
                "MiB",
                f"{options.nodes} nodes",
            ),
            Limit(
                "requests of it for each node, without its lock",
                asked / options.nodes,
                REQUESTS_MAX,
                "",
                f"{options.nodes} nodes",
            ),
        ],
        found,
    )


def grant(server: Server) -> None:
    """Rights of an administrator: what is counted is who asks."""
    group = "rbac.authorization.k8s.io"
    role = {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"}
    subjects = [{"kind": "User", "apiGroup": group, "name": WHO}]
    binding = {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": WHO}, "roleRef": role}
    server.apply({**binding, "subjects": subjects})


@contextlib.contextmanager
def fleet(server: Server, count: int, light: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Nodes that are off, and their CC managers, which all watch."""
    server.request("DELETE", "/api/v1/nodes")
    kube = Kube(of_file(str(server.kubeconfig("admin"))))
    names = [f"gpu-{number}" for number in range(count)]
    ready = {"type": "Ready", "status": "True", "reason": "Simulated", "message": ""}
    for number, name in enumerate(names):
        zone = ZONES[number % len(ZONES)]
        labels = {**dict.fromkeys(COMPONENTS, "true"), MODE: "off", STATE: "off", "topology.kubernetes.io/zone": zone}
        metadata = {"name": name, "labels": labels}
        kube.request("POST", "/api/v1/nodes", None, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
        status = {"status": {"conditions": [ready]}}
        kube.request("PATCH", f"/api/v1/nodes/{name}/status", None, status, content_type=MERGE_PATCH)
    kube.close()
    for name in ("started", "answer.json"):
        (server.folder / name).unlink(missing_ok=True)
    job = Job(
        host="127.0.0.1",
        port=server.port,
        ca_file=str(server.folder / "certificates/apiserver.crt"),
        token=server.tokens["admin"],
        nodes=names,
        components_namespace="default",
        change_s=CHANGE_S,
        seconds=1800,
        started_file=str(server.folder / "started"),
        answer_file=str(server.folder / "answer.json"),
    )
    path = server.folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    words = ["prlimit", "--nofile=16384", sys.executable, "-m", "tests.bench.simulated", str(path)]
    if light:
        kubeconfig = str(server.kubeconfig("admin"))
        words = [sys.executable, "-m", "tests.bench.light", kubeconfig, str(CHANGE_S), job.started_file]
    with (server.folder / "cc-managers.log").open("wb") as log:
        managers = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 300
        while not os.path.exists(job.started_file):
            if managers.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"the CC managers do not all watch: {(server.folder / 'cc-managers.log').read_text()}"
                )
            time.sleep(0.1)
        yield managers
    finally:
        managers.terminate()
        managers.wait()


def check(managers: subprocess.Popen[bytes], light: bool) -> None:
    """Those that end have come to their end; none has ended otherwise."""
    status = managers.poll() if light else managers.wait(60)
    if status:
        raise RuntimeError(f"the CC managers ended with status {status}")


def measured(server: Server, count: int, work: Callable[[], float]) -> dict[str, Any]:
    """Time until every node is in the mode, requests, and the most nodes that were out at one moment."""
    server.forget()
    with Look(server) as look:
        began = time.monotonic()
        memory_mib = work()
        done = time.monotonic()
        while look.states.get("on", 0) < count:
            if time.monotonic() > done + 600:
                raise RuntimeError(f"not all nodes are in the mode: {look.states}")
            time.sleep(0.2)
        seconds = time.monotonic() - began
    return {
        "seconds": round(seconds, 1),
        "nodes out at once, at most": look.most_out,
        "requests": dict(server.counted(WHO)),
        "memory, MiB": round(memory_mib, 1),
    }


class Look:
    """Looks at all nodes every two seconds, as the administrator, whose requests are not counted."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.states: dict[str, int] = {}
        self.most_out = 0

    def __enter__(self) -> Look:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(2.0):
            states: dict[str, int] = {}
            out = 0
            for node in self._server.nodes().values():
                labels = node["metadata"]["labels"]
                state = labels.get(STATE, "")
                states[state] = states.get(state, 0) + 1
                out += bool(node["spec"].get("unschedulable")) or labels.get(MODE) != state
            self.states, self.most_out = states, max(self.most_out, out)


def label_all(server: Server, count: int) -> float:
    """Every node's label, one after the other over one connection, without a look at anything."""
    kube = Kube(of_file(str(server.kubeconfig(WHO))))
    body = {"metadata": {"labels": {MODE: "on"}}}
    for number in range(count):
        kube.request("PATCH", f"/api/v1/nodes/gpu-{number}", None, body, content_type=MERGE_PATCH)
    kube.close()
    return 0.0


def plugin(server: Server, *words: str) -> float:
    """The plugin as a process; its memory."""
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(server.kubeconfig(WHO))}
    with (server.folder / "kubectl-cc.log").open("wb") as log:
        command = [sys.executable, str(ROOT / "container/bin/kubectl-cc"), *words]
        child = subprocess.Popen(command, env=environment, stdout=log)
        _pid, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError((server.folder / "kubectl-cc.log").read_text()[-2000:])
    print(f"processor time of kubectl cc: {usage.ru_utime + usage.ru_stime:.1f} s")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
