# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From the arguments of the module cluster_readiness to its answer."""

from __future__ import annotations

import contextlib
from typing import Any, Mapping, Optional

from .._core.errors import InvalidRequest
from .._core.files import replace_json
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from . import readiness
from .errors import ClusterUnreachable
from .facts import gather
from .finding import (
    CLUSTER,
    FAILED,
    HANDLER,
    REFUSED,
    WARN,
    Expect,
    Facts,
    Finding,
    chosen,
    is_gpu,
    is_ready,
    labels,
    system,
)
from .kubectl import Api, Place
from .rules.gpus import WORKLOAD
from .rules.kubelet import gates, missing
from .rules.operator import default_mode
from .rules.rivals import OURS, is_nfd_worker
from .versions import quantity

# By which the CC manager of this collection chooses its nodes.
CAPABLE = "nvidia.com/cc.capable"
# Between two looks while it waits.
EVERY_S = 1.0


def run(given: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Findings, rows and what else the playbooks need; with ``dest`` also in that file. Raises ExplainedError."""
    expect = expectation(given)
    also = [one for one in map(_finding, given["also"]) if one.about in (CLUSTER, *expect.nodes)]
    answer = _looked(given, expect, also, clock) if given["read"] else _judged(also, expect)
    if given["dest"]:
        replace_json(given["dest"], {key: answer[key] for key in ("rows", "findings")}, "report")
    return answer


def _looked(given: Mapping[str, Any], expect: Expect, also: list[Finding], clock: Clock) -> dict[str, Any]:
    """The answer from what the cluster says now."""
    with Api(Place(kubectl=given["kubectl"], kubeconfig=given["kubeconfig"], context=given["context"])) as api:
        facts = _facts(api, given, expect, clock)
        lists = api.lists
    return {
        **_judged(readiness.judge(facts, expect) + also, expect),
        "as_installed": [one._asdict() for one in readiness.judge(facts, expect._replace(installed=True))],
        "nodes": readiness.classes(facts, expect),
        "kubelets": kubelets(facts, expect),
        "users": users(facts, expect.nodes),
        "releases": [
            {key: getattr(one, key) for key in ("chart", "name", "namespace", "version", "status")}
            for one in facts.releases
            if one.chart in OURS
        ],
        "crds": sorted(facts.crds),
        "nfd": ["%(namespace)s/%(name)s" % one["metadata"] for one in facts.daemonsets if is_nfd_worker(one)],
        "mode_of_cluster": next((default_mode(one) for one in facts.policies.values()), ""),
        "workloads": {name: labels(node).get(WORKLOAD, "") for name, node in chosen(facts, expect)},
        "capable": [name for name, node in chosen(facts, expect) if labels(node).get(CAPABLE) == "true"],
        "lists": lists,
    }


def _facts(api: Api, given: Mapping[str, Any], expect: Expect, clock: Clock) -> Facts:
    """What the cluster says; with a time to wait, once nothing of the wanted steps fails any more, or at its end."""
    configz_of = expect.nodes if given["configz"] else ()
    if given["wait"] <= 0:
        return gather(api, configz_of)
    seen: list[Optional[Facts]] = [None]

    def is_well() -> bool:
        seen[0] = None
        # While Kata is installed containerd restarts, and on small clusters the API server with it.
        with contextlib.suppress(ClusterUnreachable):
            seen[0] = gather(api, configz_of)
        return seen[0] is not None and not _fails(seen[0], expect)

    with contextlib.suppress(TimeoutError):
        poll(is_well, given["wait"], EVERY_S, clock)
    return seen[0] or gather(api, configz_of)


def _fails(facts: Facts, expect: Expect) -> bool:
    """Whether anything of the wanted steps does, whatever the hardware's state."""
    wanted = expect.steps or readiness.STEPS
    return any(one.state == FAILED and one.step in wanted for one in readiness.judge(facts, expect))


def _judged(findings: list[Finding], expect: Expect) -> dict[str, Any]:
    """The findings, for programs and for people."""
    rows = readiness.rows(findings, expect)
    return {
        "findings": [{**one._asdict(), "text": sentence(one)} for one in findings],
        **{
            key: sentences(findings, state)
            for key, state in (("refused", REFUSED), ("unmet", FAILED), ("warned", WARN))
        },
        "rows": [one._asdict() for one in rows],
        "table": readiness.table(rows),
    }


def expectation(given: Mapping[str, Any]) -> Expect:
    """What the module was told to expect."""
    expect = dict(given["expect"] or {})
    timeout_s = expect.pop("runtime_request_timeout")
    return Expect(
        nodes=list(dict.fromkeys(given["nodes"])),
        installed=given["installed"],
        steps=given["steps"],
        runtime_request_timeout_s=timeout_s,
        **expect,
    )


def sentences(findings: list[Finding], state: str) -> list[str]:
    """The findings of a state for people."""
    return [sentence(one) for one in findings if one.state == state]


def sentence(one: Finding) -> str:
    """A finding for people."""
    return ("%s, %s: %s. %s" % (one.about, one.step, one.seen.rstrip("."), one.remedy)).strip()


def kubelets(facts: Facts, expect: Expect) -> dict[str, Any]:
    """For each kubelet that told its settings: what they lack, the gates it needs, whether its node is ready."""
    answer = {}
    for name, settings in facts.configz.items():
        node = facts.nodes[name]
        version = system(node).get("kubeletVersion", "")
        if settings is not None:
            answer[name] = {
                "lacks": missing(settings, version, expect.runtime_request_timeout_s),
                "gates": gates(version),
                "ready": is_ready(node),
            }
    return answer


def users(facts: Facts, nodes: Any) -> list[dict[str, Any]]:
    """Pods that a change of these nodes would hurt."""
    handlers = {name for name, one in facts.classes.items() if one.get("handler", "").startswith(HANDLER)}
    answer = []
    for pod in facts.pods:
        spec = pod.get("spec", {})
        gpus = sum(int(quantity(value)) for one in spec.get("containers") or () for value in _gpus(one))
        name = spec.get("runtimeClassName", "")
        if (name in handlers or gpus) and spec.get("nodeName", "") in ("", *nodes):
            answer.append(
                {
                    "namespace": pod["metadata"]["namespace"],
                    "name": pod["metadata"]["name"],
                    "node": spec.get("nodeName", ""),
                    "runtime_class": name,
                    "gpus": gpus,
                }
            )
    return answer


def _gpus(container: Any) -> list[str]:
    limits = (container.get("resources") or {}).get("limits") or {}
    return [value for key, value in limits.items() if is_gpu(key)]


def _finding(one: Mapping[str, Any]) -> Finding:
    fields = {name: str(one.get(name, "")) for name in Finding._fields}
    if fields["step"] not in readiness.STEPS:
        raise InvalidRequest("%r in also is no step." % fields["step"], "Use one of %s." % ", ".join(readiness.STEPS))
    return Finding(**{**fields, "about": fields["about"] or CLUSTER})
