# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Runtime classes, and whether a node can take a pod of them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Iterator

from ..finding import (
    CLUSTER,
    FAILED,
    HANDLER,
    OK,
    REFUSED,
    TEE_LABELS,
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
from ..versions import quantity, version

STEP = "kata"
# What the class of Kata 4 reserves beside the container: 10 GiB and one processor.
OVERHEAD = {"memory": "10240Mi", "cpu": "1"}
KATA_RUNTIME = "katacontainers.io/kata-runtime"
KATA_VERSION = "katacontainers.io/kata-version"
READY = "nvidia.com/cc.ready.state"
REMEDIES = {
    KATA_RUNTIME: "See the log of kata-deploy's pod on this node: it labels the node when containerd has the handlers.",
    "kata-deploy.katacontainers.io/default": "See the log of kata-deploy's pod on this node.",
    READY: "Set the mode (the step mode): the CC manager labels the node when the GPUs are in it.",
    **dict.fromkeys(
        TEE_LABELS.values(), "Upgrade kata-deploy again if it was installed before NFD: its rule sets the label."
    ),
}


def classes(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The classes that the chart rendered."""
    if not expect.installed:
        return
    found = sorted(name for name, one in facts.classes.items() if one.get("handler", "").startswith(HANDLER))
    if found:
        yield Finding("classes", STEP, CLUSTER, OK, ", ".join(found))
    else:
        seen = "no runtime class with a handler %s*" % HANDLER
        yield Finding("classes", STEP, CLUSTER, FAILED, seen, "Install kata-deploy with these shims (the step kata).")


def selected(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Each key by which the class chooses nodes; a pod stays Pending for any that is missing."""
    if not expect.installed:
        return
    for name, node in chosen(facts, expect):
        runtime_class = class_for(node, facts, expect)
        if runtime_class is None:
            kind = technology(node, expect)
            if facts.classes and kind:
                seen = "no runtime class for %s" % kind
                yield Finding("selected", STEP, name, FAILED, seen, "Enable the shim qemu-nvidia-gpu-%s." % kind)
            continue
        wanted = (runtime_class.get("scheduling") or {}).get("nodeSelector") or {}
        lacks = [key for key in sorted(wanted) if labels(node).get(key) != wanted[key]]
        for key in lacks:
            seen = "%s=%s, the class selects %s" % (key, labels(node).get(key, "(none)"), wanted[key])
            remedy = REMEDIES.get(key, "Set the label, or change the class's nodeSelector.")
            step = "mode" if key == READY else "nfd" if key in TEE_LABELS.values() else STEP
            yield Finding("selected", step, name, FAILED, seen, remedy)
        if not lacks:
            yield Finding("selected", STEP, name, OK, "class %s selects it" % runtime_class["metadata"]["name"])


def handled(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """containerd 2 tells the kubelet which handlers it has; older ones tell nothing."""
    if not expect.installed:
        return
    for name, node in chosen(facts, expect):
        runtime_class = class_for(node, facts, expect)
        handlers = [one.get("name", "") for one in node.get("status", {}).get("runtimeHandlers") or ()]
        if runtime_class is None or not any(handlers):
            continue
        if runtime_class["handler"] not in handlers:
            remedy = "See that kata-deploy wrote to the folder that containerd reads: k8sDistribution, imports."
            seen = "containerd has no handler %s" % runtime_class["handler"]
            yield Finding("handled", STEP, name, FAILED, seen, remedy)
        else:
            yield Finding("handled", STEP, name, OK, "containerd has the handler %s" % runtime_class["handler"])


def same_version(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The version that a node has is the release's, since Kata 4.1 says it."""
    wanted = kata_version(facts, expect)
    for name, node in chosen(facts, expect):
        seen = notes(node).get(KATA_VERSION, "")
        if expect.installed and seen and wanted and version(seen) != version(wanted):
            text = "Kata %s on the node, release %s" % (seen, wanted)
            remedy = (
                "Wait for kata-deploy's rollout; in its mode job, upgrade the release again for nodes that are new."
            )
            yield Finding("same_version", STEP, name, FAILED, text, remedy)


def room(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Memory and processors for the sample and what the guest takes beside it, on an empty node."""
    for name, node in chosen(facts, expect):
        runtime_class = class_for(node, facts, expect)
        overhead = ((runtime_class or {}).get("overhead") or {}).get("podFixed") or OVERHEAD
        wanted = quantity(expect.sample_memory) + quantity(overhead.get("memory", "0"))
        have = quantity(allocatable(node).get("memory", "0"))
        if have < wanted:
            seen = "%s allocatable, %s wanted: %s and %s overhead" % (
                _gib(have),
                _gib(wanted),
                expect.sample_memory,
                overhead.get("memory", "0"),
            )
            remedy = "Use a larger node, or a smaller sample (its memory)."
            yield Finding("room", "sample", name, REFUSED, seen, remedy)
        if quantity(allocatable(node).get("cpu", "0")) < quantity(overhead.get("cpu", "0")):
            seen = "%s processors allocatable, the class takes %s" % (allocatable(node).get("cpu"), overhead.get("cpu"))
            yield Finding("room", "sample", name, REFUSED, seen, "Use a larger node.")


def documented_kata(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """The release's version against the documented ones and the oldest that works."""
    seen = kata_version(facts, expect)
    minimum, documented = expect.minimum.get("kata", ""), expect.documented.get("kata", ())
    if seen and minimum and version(seen) < version(minimum):
        yield Finding("documented_kata", STEP, CLUSTER, REFUSED, "Kata %s" % seen, "Use %s or later." % minimum)
    elif seen and documented and not any(seen.startswith(one) for one in documented):
        remedy = "Nothing if it works: the documents name %s." % ", ".join(documented)
        yield Finding("documented_kata", STEP, CLUSTER, WARN, "Kata %s" % seen, remedy)


def _gib(number: Decimal) -> str:
    return "%.1f GiB" % (number / 2**30)


RULES: Any = (classes, selected, handled, same_version, room, documented_kata)
