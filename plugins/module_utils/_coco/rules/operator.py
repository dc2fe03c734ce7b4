# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The GPU Operator and the mode that it keeps."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import CLUSTER, FAILED, OK, REFUSED, WARN, Expect, Facts, Finding, chosen, labels, notes

STEP = "gpu_operator"
MODE, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
# The operand of this collection tells it; NVIDIA's manager tells its log only.
REASON = "nvidia.com/cc.mode.reason"
ENABLED = "enabled"


def policy(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The ClusterPolicy: kata mode, and everything ready."""
    if not facts.policies:
        if expect.installed and not _standing_alone(facts):
            remedy = "Install the GPU Operator (the step gpu_operator), or the operand of this collection."
            yield Finding("policy", STEP, CLUSTER, FAILED, "no ClusterPolicy, and no operand of its own", remedy)
        return
    for name, one in facts.policies.items():
        sandbox = one.get("spec", {}).get("sandboxWorkloads") or {}
        if expect.installed and (sandbox.get(ENABLED) is not True or sandbox.get("mode", "kubevirt") != "kata"):
            seen = "sandboxWorkloads.enabled=%s, mode=%s" % (sandbox.get(ENABLED), sandbox.get("mode", "kubevirt"))
            remedy = "Set sandboxWorkloads.enabled to true and mode to kata: in other modes there is no cc-manager."
            yield Finding("policy", STEP, CLUSTER, FAILED, seen, remedy)
        if (one.get("spec", {}).get("kataManager") or {}).get(ENABLED) is True:
            remedy = "Leave it out: kata-deploy installs Kata now."
            yield Finding("policy", STEP, CLUSTER, WARN, "kataManager.enabled does nothing any more", remedy)
        state = (one.get("status") or {}).get("state", "nothing yet")
        if expect.installed:
            remedy = "See which of its DaemonSets is not ready: kubectl get daemonsets -A."
            good = state == "ready"
            seen = "ClusterPolicy %s: %s" % (name, state)
            yield Finding("policy", STEP, CLUSTER, OK if good else FAILED, seen, "" if good else remedy)


def _standing_alone(facts: Facts) -> bool:
    return any(labels(one).get("app.kubernetes.io/name") == "cc-manager" for one in facts.daemonsets)


def daemonsets(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Each of its DaemonSets, and Kata's, is ready on all its nodes: Helm waits for one only (helm 8660)."""
    if not expect.installed:
        return
    namespaces = {one.namespace: one.chart for one in facts.releases if one.chart in ("gpu-operator", "kata-deploy")}
    for one in facts.daemonsets:
        metadata, status = one["metadata"], one.get("status", {})
        if metadata["namespace"] not in namespaces:
            continue
        wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
        if ready < wanted:
            seen = "%s/%s is ready on %d of %d nodes" % (metadata["namespace"], metadata["name"], ready, wanted)
            step = "kata" if namespaces[metadata["namespace"]] == "kata-deploy" else STEP
            remedy = "See why: kubectl describe pods -n %s." % metadata["namespace"]
            yield Finding("daemonsets", step, CLUSTER, FAILED, seen, remedy)


def mode(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The mode that was read back from the devices is the one that is wanted."""
    for name, node in chosen(facts, expect):
        have = labels(node)
        wanted = expect.mode or have.get(MODE, "") or expect.mode_of_cluster
        state = have.get(STATE, "")
        if state == "failed":
            reason = notes(node).get(REASON, "the log of the cc-manager's pod on this node says why")
            remedy = "Mend the reason, then set %s again." % MODE
            yield Finding("mode", "mode", name, FAILED, "failed: %s" % reason, remedy)
        elif expect.installed and (not state or (wanted and state != wanted)):
            seen = "%s=%s, wanted %s" % (STATE, state or "(none)", wanted or "any")
            remedy = "See that the cc-manager runs on this node, and that no pod holds a GPU."
            yield Finding("mode", "mode", name, FAILED, seen, remedy)
        elif expect.installed:
            yield Finding("mode", "mode", name, OK, "%s=%s, %s=%s" % (STATE, state, READY, have.get(READY, "(none)")))


def known_mode(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A mode of the cluster that the operator does not know."""
    if expect.mode_of_cluster not in ("", "on", "off", "devtools", "ppcie"):
        seen = "mode %s" % expect.mode_of_cluster
        yield Finding("known_mode", "mode", CLUSTER, REFUSED, seen, "Use on, off or devtools.")


RULES: Any = (policy, daemonsets, mode, known_mode)
