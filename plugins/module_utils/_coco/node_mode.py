# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The confidential-computing mode of a node, or of the cluster, asked for through the API and waited for."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .errors import ApiRefused
from .facts import PODS
from .finding import is_gpu, labels, notes
from .kubectl import Api
from .rules.operator import MODE, REASON, STATE

POLICIES = "/apis/nvidia.com/v1/clusterpolicies"


class GpusHeld(ExplainedError):
    """Pods hold GPUs of the node."""


class ModeFailed(ExplainedError):
    """The manager of the node says that it could not set the mode."""


class Answer(NamedTuple):
    """Before, after, and whether anything was, or would be, changed; ``evicted`` names pods."""

    changed: bool
    before: str
    after: str
    state: str
    evicted: Sequence[str] = ()


def set_of_node(
    api: Api, node: str, mode: str, drain: bool, timeout_s: float, check: bool, clock: Clock = SYSTEM_CLOCK
) -> Answer:
    """Label one node and wait for cc.mode.state. Raises GpusHeld, ModeFailed, InvalidRequest."""
    found = _node(api, node)
    before, state = labels(found).get(MODE, ""), labels(found).get(STATE, "")
    if before == mode and state == mode:
        return Answer(False, before, mode, state)
    holders = _holders(api, node)
    if holders and not drain:
        raise GpusHeld(
            "Pods hold GPUs of %s: %s." % (node, ", ".join(sorted(holders))),
            "End them, or allow them to be evicted (drain). Nothing was changed.",
            pods=sorted(holders),
        )
    if check:
        return Answer(True, before, mode, state, sorted(holders))
    _evict(api, node, holders, timeout_s, clock)
    # A state that failed for the same request would be taken for the answer: it goes first.
    api.patch(
        "/api/v1/nodes/" + node, {"metadata": {"labels": {MODE: mode, **({STATE: None} if state == "failed" else {})}}}
    )
    return Answer(True, before, mode, _settled(api, node, mode, timeout_s, clock), sorted(holders))


def set_of_cluster(api: Api, mode: str, check: bool) -> Answer:
    """The default mode in the ClusterPolicy, of nodes without a label of their own. Raises InvalidRequest."""
    if mode == "ppcie":
        raise InvalidRequest("ppcie cannot be the cluster's default.", "Set it on nodes with HGX boards of Hopper.")
    policies = api.list(POLICIES) or ()
    if len(policies) != 1:
        raise InvalidRequest("There are %d ClusterPolicies." % len(policies), "Install the GPU Operator, once.")
    before = ((policies[0].get("spec") or {}).get("ccManager") or {}).get("defaultMode", "")
    if before != mode and not check:
        api.patch("%s/%s" % (POLICIES, policies[0]["metadata"]["name"]), {"spec": {"ccManager": {"defaultMode": mode}}})
    return Answer(before != mode, before, mode, "")


def _node(api: Api, name: str) -> Any:
    found = api.get("/api/v1/nodes/" + name)
    if found is None:
        raise InvalidRequest("The cluster has no node %s." % name, "Name it as kubectl get nodes does.")
    return found


def _holders(api: Api, node: str) -> Mapping[str, Any]:
    """'namespace/name' of each pod on the node that has a GPU."""
    pods = api.list(PODS + "%2Cspec.nodeName%3D" + node) or ()
    return {"%(namespace)s/%(name)s" % pod["metadata"]: pod for pod in pods if _holds(pod)}


def _holds(pod: Any) -> bool:
    containers = pod.get("spec", {}).get("containers") or ()
    return any(is_gpu(key) for one in containers for key in (one.get("resources") or {}).get("limits") or {})


def _evict(api: Api, node: str, holders: Mapping[str, Any], timeout_s: float, clock: Clock) -> None:
    for pod in holders.values():
        metadata = {key: pod["metadata"][key] for key in ("name", "namespace")}
        path = "/api/v1/namespaces/%(namespace)s/pods/%(name)s/eviction" % metadata
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
        try:
            poll(lambda path=path, body=eviction: _asked(api, path, body), timeout_s, 2, clock)  # type: ignore[misc]
        except TimeoutError as error:
            raise GpusHeld(
                "The pod %(namespace)s/%(name)s may not be evicted: a disruption budget keeps it." % metadata,
                "Allow its disruption, or end it. The mode was not changed.",
            ) from error
    try:
        poll(lambda: not _holders(api, node), timeout_s, 1, clock)
    except TimeoutError as error:
        raise GpusHeld(
            "Pods still hold GPUs of %s after %.0f s: %s." % (node, timeout_s, ", ".join(sorted(_holders(api, node)))),
            "Wait until they end; never delete them with force. The mode was not changed.",
        ) from error


def _asked(api: Api, path: str, body: Any) -> bool:
    """Whether the eviction was taken; a disruption budget answers 429."""
    try:
        api.request("POST", path, body)
    except ApiRefused as error:
        if error.seen["status"] == 429:
            return False
        if error.seen["status"] != 404:
            raise
    return True


def _settled(api: Api, node: str, mode: str, timeout_s: float, clock: Clock) -> str:
    seen: list[str] = [""]

    def answered() -> Optional[Any]:
        found = _node(api, node)
        seen[0] = labels(found).get(STATE, "")
        return found if seen[0] in (mode, "failed") else None

    try:
        found = poll(answered, timeout_s, 1, clock)
    except TimeoutError as error:
        raise ModeFailed(
            "%s of %s is %s after %.0f s, not %s." % (STATE, node, seen[0] or "not there", timeout_s, mode),
            "See that the cc-manager runs on the node, and its log.",
        ) from error
    if seen[0] == "failed":
        reason = notes(found).get(REASON, "")
        raise ModeFailed(
            "The mode %s failed on %s%s." % (mode, node, ": " + reason.rstrip(".") if reason else ""),
            "See the log of the cc-manager on the node." if not reason else "Mend it, then run this again.",
        )
    return seen[0]
