# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From the arguments of the module confidential_pod to its answer."""

from __future__ import annotations

from typing import Any, Mapping

from .._core.errors import InvalidRequest
from . import pod
from .finding import Expect, Facts, class_for
from .kubectl import Api, Place


def run(given: Mapping[str, Any], check: bool) -> dict[str, Any]:
    """Run the pod and say how it went. Raises ExplainedError."""
    with Api(Place(kubectl=given["kubectl"], kubeconfig=given["kubeconfig"], context=given["context"])) as api:
        node = api.get("/api/v1/nodes/" + given["node"])
        if node is None:
            raise InvalidRequest("The cluster has no node %s." % given["node"], "Name it as kubectl get nodes does.")
        runtime_class = given["runtime_class"]
        if runtime_class is None:
            runtime_class = _runtime_class(api, node, given["technology"])
        if not check and runtime_class is not None:
            return {**pod.run(api, _job(given, node, runtime_class))._asdict(), "runtime_class": runtime_class}
    if runtime_class is None:
        seen = "no runtime class for the node's processor"
        state, remedy = "skipped" if check else "failed", "Install kata-deploy and NFD: see cluster_readiness."
    else:
        state, seen, remedy = "skipped", "would run in the class %s" % (runtime_class or "of containerd"), ""
    return {
        "state": state,
        "phase": "",
        "log": "",
        "seen": seen,
        "remedy": remedy,
        "runtime_class": runtime_class or "",
    }


def _runtime_class(api: Api, node: Any, technology: str) -> Any:
    found = {one["metadata"]["name"]: one for one in api.list("/apis/node.k8s.io/v1/runtimeclasses") or ()}
    name = node["metadata"]["name"]
    one = class_for(node, Facts({name: node}, found), Expect([name], technology=technology))
    return one["metadata"]["name"] if one else None


def _job(given: Mapping[str, Any], node: Any, runtime_class: str) -> pod.Job:
    return pod.Job(
        node=given["node"],
        namespace=given["namespace"],
        runtime_class=runtime_class,
        image=given["image"],
        command=given["command"],
        resources=pod.resources(node, given["gpus"], given["nvswitches"], given["memory"]),
        contains=given["contains"],
        timeout_s=given["timeout"],
        annotations=given["annotations"],
        environment={key: str(value) for key, value in given["environment"].items()},
        pull_secrets=given["pull_secrets"],
        tolerations=given["tolerations"],
    )
