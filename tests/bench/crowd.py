#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Measure what a thousand CC managers ask of an API server: python -m tests.bench.crowd [--nodes 1000] [--rest-s 120]

Nodes are kwok's, which keeps their leases and states as a thousand kubelets would. The traffic of their CC managers
comes from tests/bench/simulated.py; one real CC manager changes its mode first, and the requests of a change are
counted in the API server's audit log, by verb and resource, for both: when they differ, the measurement is of something
else and fails. Everything stays in the cluster's namespaces. As root, with what tests/cluster needs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench.cluster import archive
from tests.bench.limits import Limit, conclude
from tests.bench.simulated import MODE, Job
from tests.cluster.kube import workloads
from tests.cluster.kube.audit import Audit
from tests.cluster.kube.bed import bed, is_settled
from tests.cluster.kube.cluster import Cluster, running
from tests.cluster.kube.programs import KWOK, check_machine
from tests.cluster.kube.release import RELEASE, VALUES, install
from tests.cluster.kube.space import ADDRESS, Process
from tools.cache import ROOT
from tools.needs import NotPossible

ACCOUNT = "crowd"
KWOK_NODE = {"kwok.x-k8s.io/node": "fake"}
READY_STAGE = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "ready"},
    "spec": {
        "resourceRef": {"apiGroup": "v1", "kind": "Node"},
        "selector": {
            "matchExpressions": [
                {
                    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
                    "operator": "NotIn",
                    "values": ["True"],
                }
            ]
        },
        "next": {
            "statusTemplate": """
conditions:
- type: Ready
  status: "True"
  reason: Simulated
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
"""
        },
    },
}
# Eviction, reset and boot of a real node: these take no part in what is measured.
CHANGE_S = 3.15
# Requests of a node in a minute in which nothing happens.
MOST_AT_REST = 1.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print, write; 0 when the limit is kept and every node settled."""
    parser = argparse.ArgumentParser(description="Measure what a thousand CC managers ask of an API server.")
    parser.add_argument("--nodes", type=int, default=1000, help="simulated nodes")
    parser.add_argument("--rest-s", type=float, default=120.0, help="seconds of rest that are measured")
    parser.add_argument("--image", type=Path, help="a docker archive, instead of one built from the working tree")
    options = parser.parse_args()
    try:
        check_machine()
        with tempfile.TemporaryDirectory() as name, running() as cluster:
            cluster.load(archive(options.image, Path(name)))
            cluster.apply(workloads.namespace())
            real = requests_of_a_change(cluster, Path(name))
            found = crowd(cluster, options.nodes, options.rest_s)
    except NotPossible as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    found["requests of one change, real"] = dict(real)
    print(json.dumps(found, indent=1))
    status = conclude("crowd", [at_rest(found)], found)
    alike = found["requests of one change, real"] == found["requests of one change, simulated"]
    if not alike:
        print("MISSED: the simulated CC managers do not ask what the real one asks")
    return status if alike and not found["errors"] and found["settled"] == options.nodes else 1


def at_rest(found: dict[str, Any]) -> Limit:
    """The one limit."""
    measured = found["at rest"]["per node and minute"]
    return Limit("requests at rest, per node and minute", measured, MOST_AT_REST, "", f"{found['nodes']} nodes")


def requests_of_a_change(cluster: Cluster, folder: Path) -> Counter[str]:
    """What one real CC manager, installed by the chart, asks for while its node goes from off to on."""
    with bed(cluster, "h100-pcie") as node:
        node.start_node()
        values = {**VALUES, "admissionPolicy": {"enabled": True}}
        install(cluster, folder, values)
        node.until(lambda found: is_settled(found, "off"))
        node.wait_for_components()
        node.change("off")
        time.sleep(2)  # its Event, and what is in the log's buffer
        before = Audit(cluster).read(f"system:serviceaccount:{RELEASE}:{RELEASE}")
        node.change("on")
        time.sleep(2)
        after = Audit(cluster).read(f"system:serviceaccount:{RELEASE}:{RELEASE}")
        cluster.helm("uninstall", RELEASE, "--namespace", RELEASE, "--wait", "--timeout", "60s")
    return after - before


def crowd(cluster: Cluster, count: int, rest_s: float) -> dict[str, Any]:
    """Nodes, their CC managers, a rest, and a request for all of them."""
    names = [f"crowd-{number:04}" for number in range(count)]
    make_account(cluster)
    make_nodes(cluster, names)
    kwok = start_kwok(cluster)
    # Until every node's first lease and state are there, the API server has work that is not the CC managers'.
    time.sleep(20)
    kwok.check()
    job = job_of(cluster, names, rest_s)
    user = f"system:serviceaccount:default:{ACCOUNT}"
    managers = start_cc_managers(cluster, job)
    found: dict[str, Any] = {"nodes": count, "at the start": dict(started(cluster, user, count))}
    with_watches = sample(cluster, user, rest_s)
    found["at rest"] = {
        **with_watches,
        "per node and minute": with_watches["requests"] * 60 / with_watches["seconds"] / count,
    }
    before, usage, began = Audit(cluster).read(user), cpu_s(cluster), time.time()
    desired_at = request(cluster, names, "on")
    answer = answer_of(cluster, managers, job)
    seconds = time.time() - began
    time.sleep(2)
    changed = Audit(cluster).read(user) - before
    late = sorted(answer["settled_at"][name] - desired_at[name] for name in answer["settled_at"])
    found["during the change"] = {
        "seconds": seconds,
        "requests": sum(changed.values()),
        "requests a second": sum(changed.values()) / seconds,
        "API server, processors": (cpu_s(cluster) - usage) / seconds,
        "label to state, median s": statistics.median(late) if late else None,
        "label to state, p99 s": late[max(0, round(len(late) * 0.99) - 1)] if late else None,
        "of them slept, s": CHANGE_S,
    }
    found["requests of one change, simulated"] = {key: value / count for key, value in changed.items()}
    found["settled"], found["errors"] = len(late), answer["errors"][:5]
    found["API server, MiB"] = memory_mib(cluster)
    return found


def started(cluster: Cluster, user: str, count: int) -> Counter[str]:
    """The requests with which CC managers begin, once the log holds all of them."""
    deadline = time.monotonic() + 60
    while (seen := Audit(cluster).read(user))["watch nodes"] < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} CC managers began with {dict(seen)}")
        time.sleep(1)
    return seen


def sample(cluster: Cluster, user: str, seconds: float) -> dict[str, float]:
    """Requests and the API server's processor time over some seconds."""
    before, usage, began = sum(Audit(cluster).read(user).values()), cpu_s(cluster), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    requests = sum(Audit(cluster).read(user).values()) - before
    processors = (cpu_s(cluster) - usage) / took
    return {
        "seconds": took,
        "requests": requests,
        "requests a second": requests / took,
        "API server, processors": processors,
    }


def make_account(cluster: Cluster) -> None:
    """One account with the CC manager's rights; the policy, which ties a token to a node, stays away."""
    name = {"name": ACCOUNT}
    rules = [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    group = "rbac.authorization.k8s.io"
    role = {"apiGroup": group, "kind": "ClusterRole", **name}
    binding = {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": name, "roleRef": role}
    subject = {"kind": "ServiceAccount", **name, "namespace": "default"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**name, "namespace": "default"}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": name, "rules": rules},
        {**binding, "subjects": [subject]},
    )


def make_nodes(cluster: Cluster, names: list[str]) -> None:
    """Nodes with the labels of three components."""
    labels = {workloads.deploy_label(one): "true" for one in workloads.KATA}
    for name in names:
        metadata = {"name": name, "annotations": KWOK_NODE, "labels": labels}
        spec = {"taints": [{"key": "kwok.x-k8s.io/node", "effect": "NoSchedule"}]}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}
        cluster.api.request("POST", "/api/v1/nodes", node)


def start_kwok(cluster: Cluster) -> Process:
    """Leases and states of those nodes."""
    stage = cluster.settings.folder / "stage.json"
    stage.write_text(json.dumps(READY_STAGE))
    selector = ",".join(f"{key}={value}" for key, value in KWOK_NODE.items())
    flags = ["--kubeconfig", cluster.settings.path("admin.kubeconfig"), "--config", str(stage)]
    flags += ["--manage-all-nodes=false", f"--manage-nodes-with-annotation-selector={selector}"]
    return cluster.space.launch("kwok", str(KWOK.path()), *flags, "--node-lease-duration-seconds=40")


def job_of(cluster: Cluster, names: list[str], rest_s: float) -> Job:
    """For tests/bench/simulated.py."""
    return Job(
        host=ADDRESS,
        port=6443,
        ca_file=cluster.settings.path("certificates/apiserver.crt"),
        token=cluster.kubectl("create", "token", ACCOUNT, "--duration=1h").strip(),
        nodes=names,
        components_namespace=workloads.NAMESPACE,
        change_s=CHANGE_S,
        seconds=rest_s + 300,
        started_file=cluster.settings.path("started"),
        answer_file=cluster.settings.path("answer.json"),
    )


def start_cc_managers(cluster: Cluster, job: Job) -> Process:
    """All of them; returns when each watches its node."""
    path = cluster.settings.folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench.simulated", str(path)]
    managers = cluster.space.launch("cc-managers", "prlimit", "--nofile=16384", *command)
    deadline = time.monotonic() + 120
    while not Path(job.started_file).exists():
        managers.check()
        if time.monotonic() > deadline:
            raise RuntimeError("the CC managers do not all watch after 120 s")
        time.sleep(0.1)
    return managers


def request(cluster: Cluster, names: list[str], mode: str) -> dict[str, float]:
    """Label every node; when the API server had each label."""
    moments = {}
    for name in names:
        cluster.api.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {MODE: mode}}})
        moments[name] = time.time()
    return moments


def answer_of(cluster: Cluster, managers: Process, job: Job) -> dict[str, Any]:
    """What the CC managers tell at their end."""
    managers.reap(job.seconds)
    path = Path(job.answer_file)
    if not path.exists():
        raise RuntimeError(f"the CC managers gave no answer: {managers.words()}")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def cpu_s(cluster: Cluster) -> float:
    """Processor time of the API server."""
    words = Path(f"/proc/{cluster.processes['kube-apiserver'].pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def memory_mib(cluster: Cluster) -> float:
    """Memory of the API server."""
    status = Path(f"/proc/{cluster.processes['kube-apiserver'].pid}/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
