# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The preflight of a hundred nodes: objects of a real API server, whose kubelets are all the one that is there."""

from __future__ import annotations

import re
from collections import Counter

from tests.cluster.kube.programs import EVERY
from tests.coco.bench import FIGURES, Bench, Played

NODES = 100
LIMIT_S = 20
# kubectl that tells every request of its proxy.
TELLING = """#!/bin/sh
exec {kubectl} -v=6 "$@" 2>> {log}
"""
REQUEST = re.compile(r'"?(GET|POST|PATCH|PUT|DELETE)"? (?:url=")?https://[^/ ]+(/[^ "?]*)')


def requests(bench: Bench, hosts: list[str]) -> tuple[Played, Counter[str]]:
    """The preflight, and how often it asked for what; all nodes count as one."""
    kubectl, log = bench.folder / "kubectl", bench.folder / "kubectl.log"
    kubectl.write_text(TELLING.format(kubectl=EVERY["kubectl"].path(), log=log))
    kubectl.chmod(0o755)
    log.write_text("")
    played = bench.play(
        "confidential_containers", "--tags", "preflight", hosts=hosts, confidential_containers_kubectl=str(kubectl)
    )
    found = REQUEST.findall(log.read_text())
    return played, Counter(f"{verb} {re.sub('/nodes/[^/]+/', '/nodes/NODE/', path)}" for verb, path in found)


def test_a_hundred_nodes(bench: Bench) -> None:
    names = [f"worker-{number}" for number in range(NODES)]
    few, asked_by_few = requests(bench, ["node0"])
    assert few.status == 0, few.text
    for name in names:
        bench.actors.add_node(name, alive=False)
    try:
        many, asked_by_many = requests(bench, names)
    finally:
        for name in names:
            bench.actors.remove_node(name)
    assert many.status == 0, many.text
    configz = "GET /api/v1/nodes/NODE/proxy/configz"
    assert asked_by_few.pop(configz) == 1
    assert asked_by_many.pop(configz) == NODES
    assert asked_by_few == asked_by_many
    # More are asked for where the resources of NFD and the GPU Operator are known.
    assert asked_by_many["GET /api/v1/nodes"] == asked_by_many["GET /api/v1/pods"] == 1
    FIGURES.append(
        f"preflight of {NODES} nodes: {many.seconds:.1f} s (of one: {few.seconds:.1f} s), "
        f"{sum(asked_by_many.values())} requests and one to each kubelet"
    )
    assert many.seconds < LIMIT_S
