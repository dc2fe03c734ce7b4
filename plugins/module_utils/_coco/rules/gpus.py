# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is possible with the GPUs of a node."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import (
    CLUSTER,
    FAILED,
    OK,
    REFUSED,
    WARN,
    Expect,
    Facts,
    Finding,
    allocatable,
    chosen,
    gpu_count,
    is_gpu,
    is_hopper,
    is_known_other,
    kata_version,
    labels,
)
from ..versions import older

STEP = "resources"
NVSWITCH = "nvidia.com/nvswitch"
# Four on every HGX board of Hopper.
HOPPER_NVSWITCHES = 4
# Kata 4.0.0 leaves NVSwitches out of the guest (kata-containers 13430); this release has them again.
KEEPS_NVSWITCHES = "4.1.0"
WORKLOADS = ("container", "vm-passthrough", "vm-vgpu")
WORKLOAD = "nvidia.com/gpu.workload.config"


def no_vgpu(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """vGPU and MIG share a GPU; a confidential guest has whole ones."""
    for name, node in chosen(facts, expect):
        mig = [key for key in allocatable(node) if key.startswith("nvidia.com/mig-") and allocatable(node)[key] != "0"]
        config = labels(node).get("nvidia.com/mig.config", "")
        if labels(node).get(WORKLOAD) == "vm-vgpu":
            yield Finding("no_vgpu", STEP, name, REFUSED, WORKLOAD + "=vm-vgpu", "Set the label to vm-passthrough.")
        if mig or config not in ("", "all-disabled"):
            seen = ", ".join(mig) or "nvidia.com/mig.config=" + config
            yield Finding("no_vgpu", STEP, name, REFUSED, seen, "Set nvidia.com/mig.config to all-disabled.")


def workload(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Any other value silently means the operator's default, which is container."""
    for name, node in chosen(facts, expect):
        value = labels(node).get(WORKLOAD, "")
        remedy = "Set the label %s to vm-passthrough." % WORKLOAD
        if value and value not in WORKLOADS:
            yield Finding("workload", "gpu_operator", name, REFUSED, "%s=%s" % (WORKLOAD, value), remedy)
        elif value == "container" and not expect.installed:
            yield Finding(
                "workload", "gpu_operator", name, WARN, "%s=container" % WORKLOAD, "It is set to vm-passthrough."
            )
        elif expect.installed and value != "vm-passthrough" and not _is_default(facts):
            yield Finding("workload", "gpu_operator", name, FAILED, "%s=%s" % (WORKLOAD, value or "(none)"), remedy)


def _is_default(facts: Facts) -> bool:
    specs = [one.get("spec", {}).get("sandboxWorkloads") or {} for one in facts.policies.values()]
    return any(one.get("defaultWorkload") == "vm-passthrough" for one in specs)


def one_model(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """A node has one mode, and a pod does not say which of two models it gets."""
    for name, node in chosen(facts, expect):
        models = sorted(key for key in allocatable(node) if is_gpu(key) and allocatable(node)[key] != "0")
        if len(models) > 1:
            yield Finding("one_model", STEP, name, REFUSED, ", ".join(models), "Use nodes whose GPUs are all alike.")


def ppcie(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Protected PCIe is a mode of Hopper's HGX boards: all GPUs and NVSwitches in one guest."""
    if expect.mode_of_cluster == "ppcie":
        remedy = "Set it by the label nvidia.com/cc.mode on the nodes with HGX boards of Hopper."
        yield Finding("ppcie", "mode", CLUSTER, REFUSED, "ppcie as the cluster's default", remedy)
    for name, node in chosen(facts, expect):
        if _mode(node, expect) != "ppcie":
            continue
        if is_known_other(node):
            remedy = "Use the mode on: Blackwell protects NVLink in it."
            yield Finding("ppcie", "mode", name, REFUSED, "ppcie on GPUs that are not Hopper's", remedy)
        count = gpu_count(node) or expect.gpus
        if count and expect.sample_gpus != count:
            seen = "%d of %d GPUs requested in ppcie" % (expect.sample_gpus, count)
            yield Finding(
                "ppcie", STEP, name, REFUSED, seen, "Request all GPUs of the node in one pod, or use the mode on."
            )
        if expect.sample_nvswitches != HOPPER_NVSWITCHES:
            seen = "%d NVSwitches requested in ppcie" % expect.sample_nvswitches
            remedy = "Request %s: %d beside the GPUs." % (NVSWITCH, HOPPER_NVSWITCHES)
            yield Finding("ppcie", STEP, name, REFUSED, seen, remedy)
        if expect.installed and int(allocatable(node).get(NVSWITCH, "0")) != HOPPER_NVSWITCHES:
            seen = "%s NVSwitches are allocatable" % allocatable(node).get(NVSWITCH, "no")
            remedy = "Set vfioManager.env BIND_NVSWITCHES=true, so that they are bound to vfio-pci."
            yield Finding("ppcie", STEP, name, FAILED, seen, remedy)


def whole_node(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """One GPU, or all of them: a guest with some of an NVLink fabric is not supported."""
    for name, node in chosen(facts, expect):
        count = gpu_count(node) or expect.gpus
        if count and 1 < expect.sample_gpus < count:
            seen = "%d of %d GPUs in one pod" % (expect.sample_gpus, count)
            yield Finding("whole_node", STEP, name, REFUSED, seen, "Request one GPU, or all %d." % count)


def nvswitches_kept(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Kata 4.0.0 drops NVSwitches from the guest."""
    version = kata_version(facts, expect)
    for name, node in chosen(facts, expect):
        count = gpu_count(node) or expect.gpus
        if is_hopper(node) and count >= 8 and _mode(node, expect) == "ppcie" and older(version, KEEPS_NVSWITCHES):
            seen = "Kata %s, %d GPUs of Hopper" % (version, count)
            yield Finding("nvswitches_kept", "kata", name, REFUSED, seen, "Use Kata %s or later." % KEEPS_NVSWITCHES)


def counted(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """What the device plugin offers."""
    if not expect.installed:
        return
    for name, node in chosen(facts, expect):
        count = gpu_count(node)
        if not count or (expect.gpus and count != expect.gpus):
            remedy = "See that the GPUs are bound to vfio-pci, the mode is settled, and the device plugin's log."
            seen = "%d GPUs are allocatable%s" % (count, ", not %d" % expect.gpus if expect.gpus else "")
            yield Finding("counted", STEP, name, FAILED, seen, remedy)
        else:
            yield Finding("counted", STEP, name, OK, "%d GPUs are allocatable" % count)


def _mode(node: Any, expect: Expect) -> str:
    return expect.mode or labels(node).get("nvidia.com/cc.mode", "") or expect.mode_of_cluster


RULES: Any = (no_vgpu, workload, one_model, ppcie, whole_node, nvswitches_kept, counted)
