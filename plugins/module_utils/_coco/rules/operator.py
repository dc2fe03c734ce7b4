# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The GPU Operator and the mode that it keeps."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import CLUSTER, FAILED, OK, REFUSED, WARN, Expect, Facts, Finding, chosen, is_ready, labels, notes
from ..versions import older

STEP = "gpu_operator"
MODE, STATE, READY = "nvidia.com/cc.mode", "nvidia.com/cc.mode.state", "nvidia.com/cc.ready.state"
# The CC manager of this collection tells it; NVIDIA's k8s-cc-manager tells its log only.
REASON = "nvidia.com/cc.mode.reason"
ENABLED = "enabled"


def policy(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The ClusterPolicy: kata mode, and everything ready."""
    if not facts.policies:
        if expect.installed and not _standing_alone(facts):
            remedy = "Install the GPU Operator (the step gpu_operator), or the CC manager of this collection."
            yield Finding("policy", STEP, CLUSTER, FAILED, "no ClusterPolicy, and no CC manager of its own", remedy)
        return
    for name, one in facts.policies.items():
        sandbox = one.get("spec", {}).get("sandboxWorkloads") or {}
        if expect.installed and (sandbox.get(ENABLED) is not True or sandbox.get("mode", "kubevirt") != "kata"):
            seen = "sandboxWorkloads.enabled=%s, mode=%s" % (sandbox.get(ENABLED), sandbox.get("mode", "kubevirt"))
            remedy = "Set sandboxWorkloads.enabled to true and mode to kata: in other modes there is no CC manager."
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


def default_mode(policy_object: Any) -> str:
    """The mode of nodes without a label of their own, as a ClusterPolicy has it; '' where it says none."""
    return str(((policy_object.get("spec") or {}).get("ccManager") or {}).get("defaultMode", ""))


def _standing_alone(facts: Facts) -> bool:
    return any(labels(one).get("app.kubernetes.io/name") == "cc-manager" for one in facts.daemonsets)


def documented_operator(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The installed release against the documented ones and the oldest that knows Kata's mode."""
    minimum, documented = expect.minimum.get("gpu_operator", ""), expect.documented.get("gpu_operator", ())
    for one in [found for found in facts.releases if found.chart == "gpu-operator"]:
        seen = "GPU Operator %s" % one.version
        if expect.installed and minimum and older(one.version, minimum):
            yield Finding("documented_operator", STEP, CLUSTER, FAILED, seen, "Use %s or later." % minimum)
        elif documented and not any(one.version.lstrip("v").startswith(begin) for begin in documented):
            remedy = "Nothing if it works: the documents name %s." % ", ".join(documented)
            yield Finding("documented_operator", STEP, CLUSTER, WARN, seen, remedy)


def daemonsets(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Each of its DaemonSets, and Kata's, is ready on each node: Helm waits for all nodes but one (helm 8660)."""
    if not expect.installed:
        return
    namespaces = {one.namespace: one.chart for one in facts.releases if one.chart in ("gpu-operator", "kata-deploy")}
    pods = _pods_by_owner(facts)
    for one in facts.daemonsets:
        namespace = one["metadata"]["namespace"]
        if namespace not in namespaces:
            continue
        step = "kata" if namespaces[namespace] == "kata-deploy" else STEP
        remedy = "See why: kubectl describe pods -n %s." % namespace
        own = pods.get((namespace, one["metadata"]["name"]), [])
        unready = {pod.get("spec", {}).get("nodeName", "") for pod in own if not is_ready(pod)}
        for node in [name for name in expect.nodes if name in unready]:
            seen = "the pod of %s/%s is not ready" % (namespace, one["metadata"]["name"])
            yield Finding("daemonsets", step, node, FAILED, seen, remedy)
        # What is not ready on nodes of others is their affair.
        lacks = _unexplained(one, len(unready))
        if lacks:
            yield Finding("daemonsets", step, CLUSTER, FAILED, lacks, remedy)


def _unexplained(daemonset: Any, unready: int) -> str:
    """What a DaemonSet's own counts say beside its pods that are not ready; '' for nothing."""
    metadata, status = daemonset["metadata"], daemonset.get("status", {})
    name = "%(namespace)s/%(name)s" % metadata
    wanted, ready = status.get("desiredNumberScheduled", 0), status.get("numberReady", 0)
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        return "%s was changed, and its controller has not seen it" % name
    if ready + unready < wanted:
        return "%s is ready on %d of %d nodes" % (name, ready, wanted)
    updated = status.get("updatedNumberScheduled", wanted)
    if updated + unready < wanted:
        return "%s is replaced on %d of %d nodes" % (name, updated, wanted)
    return ""


def _pods_by_owner(facts: Facts) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for pod in facts.pods:
        for owner in pod["metadata"].get("ownerReferences") or ():
            if owner.get("kind") == "DaemonSet":
                found.setdefault((pod["metadata"]["namespace"], owner.get("name", "")), []).append(pod)
    return found


def mode(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The mode that was read back from the devices is the one that is wanted."""
    for name, node in chosen(facts, expect):
        have = labels(node)
        wanted = expect.mode or have.get(MODE, "") or expect.mode_of_cluster
        state = have.get(STATE, "")
        if state == "failed":
            reason = notes(node).get(REASON, "the log of the CC manager's pod on this node says why")
            remedy = "Mend the reason, then set %s again." % MODE
            yield Finding("mode", "mode", name, FAILED, "failed: %s" % reason, remedy)
        elif expect.installed and (not state or (wanted and state != wanted)):
            seen = "%s=%s, wanted %s" % (STATE, state or "(none)", wanted or "any")
            remedy = "See that the CC manager runs on this node, and that no pod holds a GPU."
            yield Finding("mode", "mode", name, FAILED, seen, remedy)
        elif expect.installed:
            yield Finding("mode", "mode", name, OK, "%s=%s, %s=%s" % (STATE, state, READY, have.get(READY, "(none)")))


def known_mode(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A mode of the cluster that the operator does not know."""
    if expect.mode_of_cluster not in ("", "on", "off", "devtools", "ppcie"):
        seen = "mode %s" % expect.mode_of_cluster
        yield Finding("known_mode", "mode", CLUSTER, REFUSED, seen, "Use on, off or devtools.")


RULES: Any = (policy, documented_operator, daemonsets, mode, known_mode)
