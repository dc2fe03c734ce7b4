# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A pod that runs once on one node in a runtime class, and is always deleted."""

from __future__ import annotations

import urllib.parse
import uuid
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .errors import ClusterUnreachable
from .finding import is_gpu
from .kubectl import Api
from .pending import Cause, cause

DONE = ("Succeeded", "Failed")
# How long the API server may be away before a pod is left behind.
GONE_S = 60.0


class Job(NamedTuple):
    """What to run. ``resources`` are the container's limits; ``contains`` is what its log has to say."""

    node: str
    namespace: str
    runtime_class: str
    image: str
    command: Sequence[str]
    resources: Mapping[str, str]
    contains: str
    timeout_s: float
    annotations: Mapping[str, str] = {}
    environment: Mapping[str, str] = {}
    pull_secrets: Sequence[str] = ()
    tolerations: Sequence[Any] = ()
    prefix: str = "confidential-gpu-sample"


class Ended(NamedTuple):
    """How it went: 'passed' or 'failed', the log, and the cause where it failed."""

    state: str
    phase: str
    log: str
    seen: str
    remedy: str


def manifest(job: Job, name: str) -> dict[str, Any]:
    """The pod. The node is chosen by affinity, not by nodeName, which would leave out the scheduler and its reasons."""
    field = {"key": "metadata.name", "operator": "In", "values": [job.node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    container: dict[str, Any] = {"name": "sample", "image": job.image, "resources": {"limits": dict(job.resources)}}
    if job.command:
        container["command"] = list(job.command)
    if job.environment:
        container["env"] = [{"name": key, "value": value} for key, value in job.environment.items()]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "containers": [container],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "automountServiceAccountToken": False,
    }
    if job.runtime_class:
        spec["runtimeClassName"] = job.runtime_class
    if job.pull_secrets:
        spec["imagePullSecrets"] = [{"name": one} for one in job.pull_secrets]
    if job.tolerations:
        spec["tolerations"] = list(job.tolerations)
    metadata = {
        "name": name,
        "namespace": job.namespace,
        "labels": {"app.kubernetes.io/managed-by": "confidential.gpu"},
        "annotations": dict(job.annotations),
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def run(api: Api, job: Job, clock: Clock = SYSTEM_CLOCK) -> Ended:
    """Run it, wait, read its log, delete it whatever happens. Raises ApiRefused, ClusterUnreachable."""
    name = "%s-%s" % (job.prefix, uuid.uuid4().hex[:8])
    pods = "/api/v1/namespaces/%s/pods" % job.namespace
    path = "%s/%s" % (pods, name)
    try:
        # Inside: a server that went before it answered may have made it.
        api.request("POST", pods, manifest(job, name))
        try:
            pod = poll(lambda: _done(_seen(api, path)), job.timeout_s, 0.5, clock)
        except TimeoutError:
            pod = api.get(path) or {}
        log = _log(api, path)
        return _judged(api, job, name, pod, log)
    finally:
        # Never by force: a guest that is killed can leave its GPU unusable until the host reboots (kata 13179).
        _delete(api, path, clock)


def _seen(api: Api, path: str) -> Any:
    """The pod, None where there is none. An API server that is away for a moment ends no sample."""
    try:
        return api.get(path)
    except ClusterUnreachable:
        return {}


def _delete(api: Api, path: str, clock: Clock) -> None:
    def is_deleted() -> bool:
        try:
            api.delete(path)
        except ClusterUnreachable:
            return False
        return True

    try:
        poll(is_deleted, GONE_S, 1, clock)
    except TimeoutError as error:
        raise ClusterUnreachable(
            "The API server did not answer for %.0f s, so the pod %s may be left." % (GONE_S, path.rpartition("/")[2]),
            "Delete it when the server is back: kubectl delete pod, without force.",
        ) from error


def _done(pod: Any) -> Optional[Any]:
    """The pod when waiting longer brings nothing."""
    if pod is None or pod.get("status", {}).get("phase") in DONE:
        return pod or {"status": {"phase": "Deleted"}}
    return None


def _judged(api: Api, job: Job, name: str, pod: Any, log: str) -> Ended:
    phase = str(pod.get("status", {}).get("phase", "Unknown"))
    if phase == "Succeeded" and job.contains in log:
        return Ended("passed", phase, log, "log says %s" % job.contains if job.contains else "ended with status 0", "")
    if phase == "Succeeded":
        return Ended("failed", phase, log, "the log does not say %r" % job.contains, "Read the log.")
    if phase == "Failed":
        return Ended("failed", phase, log, _exit_words(pod), "Read the log.")
    why = _why(api, job, name, pod)
    seen = "%s after %.0f s: %s" % (phase, job.timeout_s, why.seen)
    return Ended("failed", phase, log, seen, why.remedy)


def _why(api: Api, job: Job, name: str, pod: Any) -> Cause:
    selector = urllib.parse.quote("involvedObject.name=%s" % name)
    events = api.list("/api/v1/namespaces/%s/events?fieldSelector=%s" % (job.namespace, selector)) or ()
    node = api.get("/api/v1/nodes/%s" % job.node) or {}
    runtime_class = None
    if job.runtime_class:
        runtime_class = api.get("/apis/node.k8s.io/v1/runtimeclasses/%s" % job.runtime_class)
    return cause(pod, events, node, runtime_class)


def _exit_words(pod: Any) -> str:
    for one in pod.get("status", {}).get("containerStatuses") or ():
        ended = (one.get("state") or {}).get("terminated") or {}
        if ended:
            return "the container ended with status %s (%s)" % (ended.get("exitCode"), ended.get("reason", "no reason"))
    return str(pod.get("status", {}).get("message") or pod.get("status", {}).get("reason") or "the pod failed")


def _log(api: Api, path: str) -> str:
    try:
        found = api.request("GET", path + "/log?tailLines=200")
    except ExplainedError:
        return ""
    return found if isinstance(found, str) else str(found)


def resources(node: Any, gpus: int, nvswitches: int, memory: str) -> dict[str, str]:
    """The container's limits on a node, whose GPUs may be called by their model."""
    name = next((key for key in (node.get("status", {}).get("allocatable") or {}) if is_gpu(key)), "nvidia.com/pgpu")
    limits = {"memory": memory}
    if gpus:
        limits[name] = str(gpus)
    if nvswitches:
        limits["nvidia.com/nvswitch"] = str(nvswitches)
    return limits
