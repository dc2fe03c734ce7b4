# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""All findings at once, and a row of the report for each node and step."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from .finding import CLUSTER, FAILED, OK, REFUSED, SKIPPED, WARN, Expect, Facts, Finding, class_for, technology
from .rules import features, gpus, kata, kubelet, nodes, operator, rivals

STEPS = ("nodes", "kubelet", "nfd", "gpu_operator", "kata", "mode", "resources", "sample", "attestation")
# Whether the hardware is fit is asked whichever steps are wanted.
ALWAYS = ("nodes", "resources")
RULES: Any = tuple(rule for module in (nodes, rivals, kubelet, features, operator, gpus, kata) for rule in module.RULES)
_RANK = (OK, WARN, FAILED, REFUSED)


class Row(NamedTuple):
    """What became of one step on one node."""

    node: str
    step: str
    state: str
    evidence: str
    remedy: str


def judge(facts: Facts, expect: Expect) -> list[Finding]:
    """What every rule finds, in the order of the steps. Steps that are not wanted are left out."""
    wanted = set(expect.steps or STEPS) | set(ALWAYS)
    found = [one for rule in RULES for one in rule(facts, expect) if one.step in wanted]
    return sorted(found, key=lambda one: STEPS.index(one.step))


def rows(findings: Sequence[Finding], expect: Expect) -> list[Row]:
    """One row for each node and step; what is found of the cluster counts for every node."""
    wanted = set(expect.steps or STEPS) | set(ALWAYS)
    # Once through all of them: there are as many as nodes times rules.
    found: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        found.setdefault((one.step, one.about), []).append(one)
    answer = []
    for node in expect.nodes:
        for step in STEPS:
            if step not in wanted:
                answer.append(Row(node, step, SKIPPED, "switched off", ""))
                continue
            answer.append(_row(node, step, found.get((step, CLUSTER), []) + found.get((step, node), [])))
    return answer


def _row(node: str, step: str, findings: Sequence[Finding]) -> Row:
    if not findings:
        return Row(node, step, SKIPPED, "nothing was looked at", "")
    worst = max(findings, key=lambda one: _RANK.index(one.state)).state
    telling = [one for one in findings if one.state == worst]
    return Row(
        node,
        step,
        OK if worst == WARN else worst,
        "; ".join(dict.fromkeys(("warning: " if worst == WARN else "") + one.seen for one in telling)),
        " ".join(dict.fromkeys(one.remedy for one in telling if one.remedy)),
    )


def table(lines: Iterable[Row]) -> list[str]:
    """The rows for people."""
    have = list(lines)
    widths = [max([len(getattr(row, name)) for row in have] or [1]) for name in ("node", "step", "state")]
    texts = []
    for row in have:
        cells = [getattr(row, name).ljust(width) for name, width in zip(("node", "step", "state"), widths)]
        texts.append("  ".join([*cells, row.evidence + (" -> " + row.remedy if row.remedy else "")]))
    return texts


def classes(facts: Facts, expect: Expect) -> Mapping[str, Mapping[str, str]]:
    """For each node: its technology, name and handler of its confidential runtime class; '' where there is none."""
    answer = {}
    for name in expect.nodes:
        node = facts.nodes.get(name, {})
        runtime_class = class_for(node, facts, expect) or {}
        answer[name] = {
            "technology": technology(node, expect),
            "runtime_class": str(runtime_class.get("metadata", {}).get("name", "")),
            "handler": str(runtime_class.get("handler", "")),
        }
    return answer


__all__ = ["FAILED", "REFUSED", "RULES", "STEPS", "Row", "classes", "judge", "rows", "table"]
