# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From the arguments of the module cluster_readiness to its answer."""

from __future__ import annotations

from typing import Any, Mapping

from .._core.errors import InvalidRequest
from . import readiness
from .facts import gather
from .finding import CLUSTER, FAILED, HANDLER, REFUSED, WARN, Expect, Facts, Finding, is_gpu, is_ready, system
from .kubectl import Api, Place
from .rules.kubelet import gates, missing
from .rules.rivals import OURS, is_nfd_worker
from .versions import quantity


def run(given: Mapping[str, Any]) -> dict[str, Any]:
    """Findings, rows and what else the playbooks need. Raises ExplainedError."""
    expect = expectation(given)
    also = [_finding(one) for one in given["also"]]
    with Api(Place(kubectl=given["kubectl"], kubeconfig=given["kubeconfig"], context=given["context"])) as api:
        facts = gather(api, expect.nodes if given["configz"] else ())
        lists = api.lists
    findings = readiness.judge(facts, expect) + also
    rows = readiness.rows(findings, expect)
    return {
        "findings": [{**one._asdict(), "text": sentence(one)} for one in findings],
        **{
            key: sentences(findings, state)
            for key, state in (("refused", REFUSED), ("unmet", FAILED), ("warned", WARN))
        },
        "rows": [one._asdict() for one in rows],
        "table": readiness.table(rows),
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
        "lists": lists,
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
