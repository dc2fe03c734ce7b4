# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Why a confidential pod does not run: one cause with its remedy, from the pod, its Events, its node and its class."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, NamedTuple, Optional, Sequence

from .finding import allocatable, labels
from .rules.kata import REMEDIES
from .versions import quantity


class Cause(NamedTuple):
    """What was seen, and what to do."""

    seen: str
    remedy: str


# What the kubelet's Events, or a container's reason, say when something of the host is wrong; the first match counts.
# Sources: the trackers of Kata, containerd, the GPU Operator and nvtrust, by the numbers given.
WORDS: Sequence[tuple[str, str]] = (
    (
        r"no runtime for \"?[\w-]+\"? is configured",
        "containerd does not read the folder that kata-deploy wrote to: set k8sDistribution (kata 10809).",
    ),
    (
        r"RuntimeClass .*not found|runtimeclass.* not found",
        "Use the name of a class that kata-deploy made: kubectl get runtimeclass.",
    ),
    (
        r"PodResources API Get.* disabled|KubeletPodResourcesGet",
        "Switch the kubelet's gate KubeletPodResourcesGet on (role kubelet_confidential).",
    ),
    (
        r"unresolvable CDI devices",
        "The device plugin's names and the CDI file differ: use iommufd on the host (kata 12549).",
    ),
    (
        r"VFIO_MAP_DMA.*(no space|No space)|DMA mappings",
        "Use iommufd with VFIO_DEVICE_CDEV in the host's kernel, not the old VFIO groups (kata 11721).",
    ),
    (
        r"/dev/vfio/devices/",
        "The host's kernel has no VFIO_DEVICE_CDEV, or iommufd is not loaded.",
    ),
    (
        r"Cannot set discarding of RAM broken",
        "Use QEMU 9.2 or later with SEV-SNP.",
    ),
    (
        r"iommufd.*bind.*Invalid argument",
        "A guest was ended by force: reboot the host, and never delete such pods with force (kata 13179).",
    ),
    (
        r"group has no passthrough-capable devices",
        "Request the NVSwitches, bind them to vfio-pci, and use Kata 4.1.0 or later (kata 13430).",
    ),
    (
        r"CreateContainer.*timeout|create container timeout",
        "Raise create_container_timeout by shims.S.dropIn of kata-deploy; an annotation is ignored (kata 13180).",
    ),
    (
        r"DeadlineExceeded|DEADLINE_EXCEEDED|context deadline exceeded",
        "Raise the kubelet's runtimeRequestTimeout to 20m (role kubelet_confidential); over that "
        "also agent.image_pull_timeout.",
    ),
    (
        r"object with key .*already exists|already exists.*snapshot",
        "The image was pulled by runc before: switch the gate RuntimeClassInImageCriApi on and "
        "remove the image from the host.",
    ),
    (
        r"dial unix .*kata-monitor|shim.*(exited|died)",
        "Look at containerd's log on the host: journalctl -u containerd.",
    ),
)
IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")


def cause(pod: Any, events: Sequence[Any], node: Any, runtime_class: Any) -> Cause:
    """The one cause, nearest first: what the container says, what the host says, what the scheduler lacks."""
    for found in _candidates(pod, events, node, runtime_class):
        if found is not None:
            return found
    words = [str(one.get("message", "")) for one in events if one.get("type") == "Warning"]
    seen = words[-1] if words else "nothing was said; the pod is %s" % pod.get("status", {}).get("phase", "not there")
    return Cause(seen, "See the kubelet's and containerd's logs on the host.")


def _candidates(pod: Any, events: Sequence[Any], node: Any, runtime_class: Any) -> Iterator[Optional[Cause]]:
    yield _image(pod)
    yield _host(events)
    if pod.get("spec", {}).get("nodeName"):
        return
    yield _selector(node, runtime_class)
    yield _resources(pod, node, runtime_class)
    yield _taints(node)
    yield _scheduler(pod)


def _image(pod: Any) -> Optional[Cause]:
    for one in pod.get("status", {}).get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE:
            seen = "%s: %s" % (waiting["reason"], waiting.get("message", one.get("image", "")))
            remedy = (
                "Confidential guests pull by themselves: the image's name must lead to a registry that the guest "
                "reaches, with its CA and proxy (initdata, agent.httpsProxy)."
            )
            return Cause(seen, remedy)
    return None


def _host(events: Sequence[Any]) -> Optional[Cause]:
    for event in reversed(events):
        message = str(event.get("message", ""))
        for pattern, remedy in WORDS:
            if event.get("type") == "Warning" and re.search(pattern, message):
                return Cause(message[:400], remedy)
    return None


def _selector(node: Any, runtime_class: Any) -> Optional[Cause]:
    wanted: Mapping[str, str] = ((runtime_class or {}).get("scheduling") or {}).get("nodeSelector") or {}
    for key in sorted(wanted):
        if labels(node).get(key) != wanted[key]:
            seen = "the class selects %s=%s, the node has %s" % (
                key,
                wanted[key],
                labels(node).get(key, "no such label"),
            )
            return Cause(seen, REMEDIES.get(key, "Set the label, or change the class's nodeSelector."))
    return None


def _resources(pod: Any, node: Any, runtime_class: Any) -> Optional[Cause]:
    overhead = ((runtime_class or {}).get("overhead") or {}).get("podFixed") or {}
    wanted = {key: quantity(value) for key, value in overhead.items()}
    for container in pod.get("spec", {}).get("containers") or ():
        given = container.get("resources") or {}
        for key, value in {**(given.get("limits") or {}), **(given.get("requests") or {})}.items():
            wanted[key] = wanted.get(key, quantity(0)) + quantity(value)
    for key in sorted(wanted, key=lambda name: (name in ("cpu", "memory"), name)):
        have = quantity(allocatable(node).get(key, "0"))
        if have < wanted[key]:
            seen = "%s: %s wanted with the class's overhead, %s allocatable" % (key, wanted[key], have)
            remedy = (
                "Use a larger node, or ask for less."
                if key in ("cpu", "memory")
                else "See that NFD and the misc cgroup are there (keys of the processor), or the device plugin (GPUs)."
            )
            return Cause(seen, remedy)
    return None


def _taints(node: Any) -> Optional[Cause]:
    hard = [one for one in node.get("spec", {}).get("taints") or () if one.get("effect") in ("NoSchedule", "NoExecute")]
    if node.get("spec", {}).get("unschedulable"):
        return Cause("the node is cordoned", "kubectl uncordon it.")
    if hard:
        seen = "the node's taint %s:%s" % (hard[0].get("key"), hard[0].get("effect"))
        return Cause(seen, "Give the pod a toleration for it, or take the taint away.")
    return None


def _scheduler(pod: Any) -> Optional[Cause]:
    for one in pod.get("status", {}).get("conditions") or ():
        if one.get("type") == "PodScheduled" and one.get("status") == "False":
            return Cause(str(one.get("message", "")), "Other pods may hold what this one wants: kubectl describe node.")
    return None
