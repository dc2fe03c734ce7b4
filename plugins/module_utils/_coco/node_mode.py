# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The confidential-computing mode of a node, or of the cluster, asked for through the API and waited for."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .errors import ApiRefused, ClusterUnreachable
from .facts import PODS
from .finding import is_gpu, labels, notes
from .kubectl import Api
from .rules.operator import MODE, REASON, STATE, default_mode

POLICIES = "/apis/nvidia.com/v1/clusterpolicies"
NODES = "/api/v1/nodes"


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


def set_of_cluster(
    api: Api, mode: str, drain: bool, timeout_s: float, check: bool, clock: Clock = SYSTEM_CLOCK
) -> Answer:
    """The default mode in the ClusterPolicy, and wait for each node that has no label of its own.

    Raises GpusHeld, ModeFailed, InvalidRequest.
    """
    if mode == "ppcie":
        raise InvalidRequest("ppcie cannot be the cluster's default.", "Set it on nodes with HGX boards of Hopper.")
    policies = api.list(POLICIES) or ()
    if len(policies) != 1:
        raise InvalidRequest("There are %d ClusterPolicies." % len(policies), "Install the GPU Operator, once.")
    before = default_mode(policies[0])
    if before == mode:
        return Answer(False, before, mode, "")
    found = [one for one in api.list(NODES) or () if _follows(one) and labels(one)[STATE] != mode]
    nodes = [one["metadata"]["name"] for one in found]
    pods = {name: pod for name, pod in _holders(api).items() if pod["spec"].get("nodeName") in nodes}
    if pods and not drain:
        raise GpusHeld(
            "Pods hold GPUs of nodes whose mode is the cluster's: %s." % ", ".join(sorted(pods)),
            "End them, or allow them to be evicted (drain). Nothing was changed.",
            pods=sorted(pods),
        )
    if check:
        return Answer(True, before, mode, "", sorted(pods))
    for node in sorted({pod["spec"]["nodeName"] for pod in pods.values()}):
        _evict(api, node, _holders(api, node), timeout_s, clock)
    # A state that failed before would be taken for the answer: it goes first.
    for node in [one["metadata"]["name"] for one in found if labels(one)[STATE] == "failed"]:
        api.patch("%s/%s" % (NODES, node), {"metadata": {"labels": {STATE: None}}})
    api.patch("%s/%s" % (POLICIES, policies[0]["metadata"]["name"]), {"spec": {"ccManager": {"defaultMode": mode}}})
    _all_settled(api, nodes, mode, timeout_s, clock)
    return Answer(True, before, mode, mode, sorted(pods))


def _follows(node: Any) -> bool:
    """Whether a manager works on the node, and takes the cluster's mode there."""
    return bool(labels(node).get(STATE)) and not labels(node).get(MODE)


def _all_settled(api: Api, nodes: Sequence[str], mode: str, timeout_s: float, clock: Clock) -> None:
    """Wait for each; one that fails keeps none of the others waiting. Raises ModeFailed for all that failed."""
    deadline = clock.now() + timeout_s
    failed = []
    for node in nodes:
        try:
            _settled(api, node, mode, max(0.0, deadline - clock.now()), clock)
        except ModeFailed as error:
            failed.append(error)
    if failed:
        raise ModeFailed(" ".join(one.cause for one in failed), failed[0].remedy, nodes=len(nodes), failed=len(failed))


def _node(api: Api, name: str) -> Any:
    found = api.get("/api/v1/nodes/" + name)
    if found is None:
        raise InvalidRequest("The cluster has no node %s." % name, "Name it as kubectl get nodes does.")
    return found


def _holders(api: Api, node: str = "") -> Mapping[str, Any]:
    """'namespace/name' of each pod that has a GPU, on one node or on all."""
    pods = api.list(PODS + ("%2Cspec.nodeName%3D" + node if node else "")) or ()
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
        try:
            found = _node(api, node)
        except ClusterUnreachable:  # for a moment; the time to wait goes on
            return None
        seen[0] = labels(found).get(STATE, "")
        return found if seen[0] in (mode, "failed") else None

    try:
        found = poll(answered, timeout_s, 1, clock)
    except TimeoutError as error:
        raise ModeFailed(
            "%s of %s is %s after %.0f s, not %s." % (STATE, node, seen[0] or "not there", timeout_s, mode),
            "See that the CC manager runs on the node, and its log.",
        ) from error
    if seen[0] == "failed":
        reason = notes(found).get(REASON, "")
        raise ModeFailed(
            "The mode %s failed on %s%s." % (mode, node, ": " + reason.rstrip(".") if reason else ""),
            "See the log of the CC manager on the node." if not reason else "Mend it, then run this again.",
        )
    return seen[0]
