# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is in the cluster already and stands in the way."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import CLUSTER, HANDLER, REFUSED, WARN, Expect, Facts, Finding, labels
from ..release import HALF_GONE, PENDING

OURS = ("kata-deploy", "gpu-operator", "node-feature-discovery", "confidential-containers")


def coco_operator(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The operator that was archived in February 2026 owns the same classes and the same files of containerd."""
    if facts.cc_runtimes:
        remedy = (
            "Delete the CcRuntime, then the operator, then the namespace confidential-containers-system, in this order."
        )
        yield Finding("coco_operator", "kata", CLUSTER, REFUSED, "CcRuntime " + ", ".join(facts.cc_runtimes), remedy)


def one_kata(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """kata-deploy once: by itself, or inside the umbrella chart."""
    found = [one for one in facts.releases if one.chart in ("kata-deploy", "confidential-containers")]
    if len(found) > 1:
        seen = ", ".join("%s/%s (%s)" % (one.namespace, one.name, one.chart) for one in found)
        yield Finding("one_kata", "kata", CLUSTER, REFUSED, seen, "Uninstall all but one of them.")


def one_nfd(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Two masters of NFD take each other's labels away."""
    masters = sorted({"%(namespace)s/%(name)s" % one["metadata"] for one in facts.daemonsets if is_nfd_worker(one)})
    if len(masters) > 1:
        remedy = "Keep one: set nfd.enabled of the GPU Operator to false, or uninstall the other."
        yield Finding("one_nfd", "nfd", CLUSTER, REFUSED, "workers of NFD: " + ", ".join(masters), remedy)
        return
    charts = [one for one in facts.releases if one.chart == "node-feature-discovery"]
    if masters and not charts and expect.installs_nfd and not expect.installed:
        remedy = "Switch the step nfd off: the cluster has one, of the GPU Operator or of somebody else."
        yield Finding("one_nfd", "nfd", CLUSTER, REFUSED, "%s, not of an NFD chart" % masters[0], remedy)


def is_nfd_worker(daemonset: Any) -> bool:
    """By its labels, or by the image of its containers."""
    name = labels(daemonset).get("app.kubernetes.io/name", "")
    containers = daemonset.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or ()
    is_nfd = name == "node-feature-discovery" or any(
        "node-feature-discovery" in one.get("image", "") for one in containers
    )
    return is_nfd and "topology" not in daemonset["metadata"]["name"]


def one_operator(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """ClusterPolicy and GPUCluster are two ways to run the GPU Operator, which exclude each other."""
    if facts.policies and facts.gpu_clusters:
        seen = "ClusterPolicy %s and a GPUCluster" % ", ".join(facts.policies)
        yield Finding("one_operator", "gpu_operator", CLUSTER, REFUSED, seen, "Delete one of the two.")
    found = [one for one in facts.releases if one.chart == "gpu-operator"]
    if len(found) > 1:
        seen = ", ".join("%s/%s" % (one.namespace, one.name) for one in found)
        yield Finding(
            "one_operator", "gpu_operator", CLUSTER, REFUSED, "releases " + seen, "Uninstall all but one of them."
        )


def debug_classes(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A debug class opens the guest's console to the host, which ends the guest's confidentiality."""
    found = sorted(
        name
        for name, one in facts.classes.items()
        if one.get("handler", "").startswith(HANDLER) and one.get("handler", "").endswith("-debug")
    )
    if found:
        yield Finding(
            "debug_classes", "kata", CLUSTER, REFUSED, ", ".join(found), "Install kata-deploy with debug: false."
        )


def wedged_releases(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A Helm that was interrupted."""
    for one in facts.releases:
        if one.chart in OURS and one.status in (*PENDING, HALF_GONE, "failed"):
            state = WARN if one.status == "failed" else REFUSED
            remedy = "Run the install with its repair allowed, or: helm uninstall %s -n %s." % (one.name, one.namespace)
            seen = "%s/%s is %s at revision %d" % (one.namespace, one.name, one.status, one.revision)
            yield Finding("wedged_releases", _step(one.chart), CLUSTER, state, seen, remedy)


def _step(chart: str) -> str:
    return {"gpu-operator": "gpu_operator", "node-feature-discovery": "nfd"}.get(chart, "kata")


RULES: Any = (coco_operator, one_kata, one_nfd, one_operator, debug_classes, wedged_releases)
