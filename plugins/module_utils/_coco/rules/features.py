# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Labels and resources of the node's processor: SEV-SNP or TDX."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import (
    CLUSTER,
    FAILED,
    OK,
    REFUSED,
    TEE_LABELS,
    TEE_RESOURCES,
    WARN,
    Expect,
    Facts,
    Finding,
    allocatable,
    chosen,
    class_for,
    kata_version,
    labels,
    notes,
    technology,
)
from ..versions import older
from .rivals import is_nfd_worker

STEP = "nfd"
# NFD writes here which labels are its own; a label that is missing in it was set by somebody else.
OWNED = "nfd.node.kubernetes.io/feature-labels"
RULE, OLD_RULE = "kata-tee-keys", "amd64-tee-keys"
RULE_SINCE = "4.1.0"


def by_hand(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A label that somebody set says what somebody thought, not what the kernel says."""
    for name, node in chosen(facts, expect):
        owned = [label.strip() for label in notes(node).get(OWNED, "").split(",")]
        for label in TEE_LABELS.values():
            if label in labels(node) and label not in owned:
                remedy = "Remove it (kubectl label node %s %s-): NFD sets it where the kernel has it enabled." % (
                    name,
                    label,
                )
                yield Finding(
                    "by_hand", STEP, name, REFUSED, "%s=%s is not NFD's" % (label, labels(node)[label]), remedy
                )


def both(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A processor has one of the two."""
    for name, node in chosen(facts, expect):
        found = [label for label in TEE_LABELS.values() if labels(node).get(label) == "true"]
        if len(found) > 1:
            yield Finding("both", STEP, name, REFUSED, " and ".join(found), "Remove the label that is not NFD's.")


def nfd_there(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Somebody has to read the processor."""
    if expect.installed and not any(is_nfd_worker(one) for one in facts.daemonsets):
        remedy = "Install NFD: the step nfd, or nfd.enabled of the GPU Operator."
        yield Finding("nfd_there", STEP, CLUSTER, FAILED, "no worker of NFD", remedy)


def rule_there(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """kata-deploy renders its rule only where NFD's kind is known by then."""
    if not expect.installed:
        return
    has_rule = RULE in facts.feature_rules or OLD_RULE in facts.feature_rules
    if facts.classes and not has_rule:
        remedy = "Upgrade kata-deploy again, now that NFD is there: it was installed before NFD."
        yield Finding("rule_there", "kata", CLUSTER, FAILED, "no NodeFeatureRule %s" % RULE, remedy)
    if (
        RULE in facts.feature_rules
        and OLD_RULE in facts.feature_rules
        and not older(kata_version(facts, expect), RULE_SINCE)
    ):
        remedy = "Delete it: kubectl delete nodefeaturerule %s." % OLD_RULE
        yield Finding("rule_there", "kata", CLUSTER, WARN, "the rule %s of an older Kata" % OLD_RULE, remedy)


def labelled(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The label that the runtime classes select by."""
    if not expect.installed:
        return
    for name, node in chosen(facts, expect):
        kind = technology(node, expect)
        wanted = [TEE_LABELS[kind]] if kind else list(TEE_LABELS.values())
        found = [label for label in wanted if labels(node).get(label) == "true"]
        if found:
            yield Finding("labelled", STEP, name, OK, "%s=true" % found[0])
            continue
        if not facts.feature_rules:
            remedy = "Upgrade kata-deploy again, now that NFD is there: its rule sets the label."
        else:
            remedy = (
                "See on the host that /sys/module/kvm_amd/parameters/sev_snp is Y, or kvm_intel/parameters/tdx: the "
                "kernel or the firmware has it switched off."
            )
        yield Finding("labelled", STEP, name, FAILED, "neither %s" % " nor ".join(wanted), remedy)


def keys(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A guest takes one of the processor's keys, which the class requests where Kata's rules are active."""
    if not expect.installed:
        return
    for name, node in chosen(facts, expect):
        runtime_class = class_for(node, facts, expect)
        kind = technology(node, expect)
        if runtime_class is None or not kind:
            continue
        resource = TEE_RESOURCES[kind]
        if resource not in ((runtime_class.get("overhead") or {}).get("podFixed") or {}):
            continue
        count = allocatable(node).get(resource, "0")
        if count == "0":
            remedy = (
                "See that NFD runs and that the host has the misc cgroup (misc.capacity), or install kata-deploy with "
                "nodeFeatureRules.create: false."
            )
            yield Finding("keys", STEP, name, FAILED, "%s: 0, and the class requests one" % resource, remedy)
        else:
            yield Finding("keys", STEP, name, OK, "%s: %s" % (resource, count))


RULES: Any = (by_hand, both, nfd_there, rule_there, labelled, keys)
