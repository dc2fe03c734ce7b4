# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a node must be before anything is installed on it."""

from __future__ import annotations

from typing import Any, Iterator, Mapping

from ..finding import CLUSTER, FAILED, HANDLER, OK, REFUSED, WARN, Expect, Facts, Finding, chosen, labels, system
from ..versions import older

HYPERVISOR = "feature.node.kubernetes.io/cpu-cpuid.HYPERVISOR"
STEP = "nodes"


def present(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The node is in the cluster, and ready."""
    for name in expect.nodes:
        if name not in facts.nodes:
            yield Finding(
                "present", STEP, name, REFUSED, "no node of this name", "Name the node as kubectl get nodes does."
            )
            continue
        conditions = facts.nodes[name].get("status", {}).get("conditions") or ()
        ready: Mapping[str, str] = next((one for one in conditions if one.get("type") == "Ready"), {})
        if ready.get("status") == "True":
            yield Finding("present", STEP, name, OK, "ready")
        else:
            seen = "not ready: %s" % (ready.get("message") or ready.get("reason") or "nothing is said")
            yield Finding("present", STEP, name, FAILED, seen, "See why with: kubectl describe node %s." % name)


def architecture(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """x86_64: neither SEV-SNP nor TDX is anywhere else."""
    for name, node in chosen(facts, expect):
        seen = system(node).get("architecture", "")
        if seen != "amd64":
            yield Finding(
                "architecture", STEP, name, REFUSED, seen or "not told", "Use hosts with SEV-SNP or TDX: x86_64."
            )


def runtime(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """containerd, new enough. The drop-ins and the pull in the guest are not there for CRI-O."""
    for name, node in chosen(facts, expect):
        kind, _mark, version = system(node).get("containerRuntimeVersion", "").partition("://")
        if kind != "containerd":
            remedy = "Use containerd: confidential GPUs were never released for another runtime."
            yield Finding("runtime", STEP, name, REFUSED, kind or "not told", remedy)
        else:
            yield _by_version("containerd", name, version, expect)


def kernel(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The host's kernel."""
    for name, node in chosen(facts, expect):
        yield _by_version("kernel", name, system(node).get("kernelVersion", ""), expect)


def kubernetes(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The API server and the kubelets."""
    yield _by_version("kubernetes", CLUSTER, facts.server, expect)
    for name, node in chosen(facts, expect):
        yield _by_version("kubernetes", name, system(node).get("kubeletVersion", ""), expect)


def nested(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A virtual machine cannot start confidential ones with GPUs."""
    for name, node in chosen(facts, expect):
        if labels(node).get(HYPERVISOR) == "true":
            yield Finding(
                "nested", STEP, name, REFUSED, HYPERVISOR + "=true", "Use bare metal: this node is a virtual machine."
            )


def distribution(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Where containerd's files are depends on who made the cluster, and kata-deploy believes what it is told."""
    for name, node in chosen(facts, expect):
        version = system(node).get("kubeletVersion", "")
        found = next((one for one in ("k3s", "rke2", "k0s") if one in version.partition("+")[2]), "k8s")
        if found != expect.distribution and not (found == "k8s" and expect.distribution == "microk8s"):
            remedy = "Set the distribution (k8sDistribution of kata-deploy) to %s." % found
            seen = "kubelet %s, distribution %s" % (version, expect.distribution)
            yield Finding("distribution", STEP, name, REFUSED, seen, remedy)
        elif found in ("k3s", "rke2") and not _reads_drop_ins(name, node, expect):
            seen = "kubelet %s, and nothing says that its containerd imports config-v3.toml.d" % version
            remedy = (
                "Let config-v3.toml.tmpl import config-v3.toml.d/*.toml and restart %s: without that no handler is "
                "found." % found
            )
            yield Finding("distribution", STEP, name, REFUSED, seen, remedy)


def _reads_drop_ins(name: str, node: Any, expect: Expect) -> bool:
    """By what was read on the node, or by the handlers that its containerd has from there. Unknown is no."""
    handlers = [one.get("name", "") for one in node.get("status", {}).get("runtimeHandlers") or ()]
    return name in expect.imports or any(one.startswith(HANDLER) for one in handlers)


def taints(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """kata-deploy's pods tolerate nothing unless they are told to."""
    for name, node in chosen(facts, expect):
        hard = [
            one for one in node.get("spec", {}).get("taints") or () if one.get("effect") in ("NoSchedule", "NoExecute")
        ]
        if hard:
            seen = ", ".join("%s:%s" % (one.get("key"), one.get("effect")) for one in hard)
            yield Finding(
                "taints", STEP, name, WARN, seen, "Give the charts' tolerations, and the pods', for these taints."
            )


def _by_version(what: str, about: str, seen: str, expect: Expect) -> Finding:
    minimum, documented = expect.minimum.get(what, ""), expect.documented.get(what, ())
    if minimum and (not seen or older(seen, minimum)):
        remedy = "Upgrade %s to %s or later." % (what, minimum)
        return Finding(what, STEP, about, REFUSED, "%s %s" % (what, seen or "is not told"), remedy)
    if documented and not any(seen.lstrip("v").startswith(one) for one in documented):
        remedy = "Nothing if it works: the documents name %s." % ", ".join(documented)
        return Finding(what, STEP, about, WARN, "%s %s" % (what, seen), remedy)
    return Finding(what, STEP, about, OK, "%s %s" % (what, seen))


RULES: Any = (present, architecture, runtime, kernel, kubernetes, nested, distribution, taints)
