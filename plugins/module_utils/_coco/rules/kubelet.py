# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kubelets' settings in force, as configz tells them."""

from __future__ import annotations

from typing import Any, Iterator

from ..finding import FAILED, OK, WARN, Expect, Facts, Finding, chosen, system
from ..versions import older, seconds

STEP = "kubelet"
# On by default since this release.
POD_RESOURCES_GET_SINCE = "1.34"


def gates(version: str) -> list[str]:
    """The feature gates that have to be switched on: the shim asks for the pod's devices, and pulls in the guest."""
    wanted = ["RuntimeClassInImageCriApi"]
    return ["KubeletPodResourcesGet", *wanted] if older(version, POD_RESOURCES_GET_SINCE) else wanted


def missing(settings: Any, version: str, timeout_s: float) -> list[str]:
    """What of these the settings lack, in words."""
    have = settings.get("featureGates") or {}
    found = ["featureGates.%s" % name for name in gates(version) if have.get(name) is not True]
    if seconds(settings.get("runtimeRequestTimeout", "")) < timeout_s:
        found.append("runtimeRequestTimeout %s" % settings.get("runtimeRequestTimeout", "2m0s"))
    return found


def configured(facts: Facts, expect: Expect) -> Iterator[Finding]:
    """Gates and time-out of each kubelet that was asked."""
    for name, node in chosen(facts, expect):
        if name not in facts.configz:
            continue
        settings = facts.configz[name]
        if settings is None:
            remedy = "Give the right to get nodes/proxy, and see that the kubelet answers."
            yield Finding("configured", STEP, name, WARN, "configz does not answer", remedy)
            continue
        lacks = missing(settings, system(node).get("kubeletVersion", ""), expect.runtime_request_timeout_s)
        if lacks:
            state = FAILED if expect.installed else WARN
            remedy = (
                "Run the step kubelet (role kubelet_confidential)." if expect.installed else "The step kubelet sets it."
            )
            yield Finding("configured", STEP, name, state, "lacks " + ", ".join(lacks), remedy)
        else:
            yield Finding("configured", STEP, name, OK, "gates and time-out are in force")


RULES: Any = (configured,)
