# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a cluster says of itself, in a fixed number of LISTs; only the kubelets' settings are asked for one by one."""

from __future__ import annotations

import concurrent.futures
from typing import Any, Mapping, Optional, Sequence

from .._core.errors import ExplainedError
from .finding import Facts
from .kubectl import Api
from .release import Release, decode

PODS = "/api/v1/pods?fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed"
SECRETS = "/api/v1/secrets?labelSelector=owner%3Dhelm%2Cstatus%21%3Dsuperseded"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NVIDIA, NFD, COCO = "nvidia.com", "nfd.k8s-sigs.io", "confidentialcontainers.org"
AT_ONCE = 8


def gather(api: Api, configz_of: Sequence[str]) -> Facts:
    """Everything the rules look at. Raises ApiRefused, ClusterUnreachable."""
    crds = [_name(one) for one in api.list(CRDS, metadata_only=True) or ()]
    policies = _custom(api, crds, "clusterpolicies.nvidia.com", "v1")
    nodes = _by_name(api.list("/api/v1/nodes"))
    return Facts(
        nodes=nodes,
        classes=_by_name(api.list("/apis/node.k8s.io/v1/runtimeclasses")),
        daemonsets=api.list("/apis/apps/v1/daemonsets") or (),
        pods=api.list(PODS) or (),
        crds=crds,
        policies=_by_name(policies),
        gpu_clusters=_custom(api, crds, "gpuclusters.nvidia.com", "v1alpha1") or (),
        feature_rules=_by_name(_custom(api, crds, "nodefeaturerules.nfd.k8s-sigs.io", "v1alpha1")),
        cc_runtimes=[
            _name(one) for one in _custom(api, crds, "ccruntimes.confidentialcontainers.org", "v1beta1") or ()
        ],
        releases=_releases(api.list(SECRETS) or ()),
        configz=_configz(api, [name for name in configz_of if name in nodes]),
        server=str((api.get("/version") or {}).get("gitVersion", "")),
    )


def _custom(api: Api, crds: Sequence[str], crd: str, version: str) -> Optional[Sequence[Any]]:
    if crd not in crds:
        return None
    plural, _dot, group = crd.partition(".")
    return api.list("/apis/%s/%s/%s" % (group, version, plural))


def _releases(secrets: Sequence[Any]) -> list[Release]:
    newest: dict[tuple[str, str], Release] = {}
    for secret in secrets:
        if secret.get("type") != "helm.sh/release.v1":
            continue
        release = decode(secret)
        key = (release.namespace, release.name)
        if key not in newest or newest[key].revision < release.revision:
            newest[key] = release
    return list(newest.values())


def _configz(api: Api, nodes: Sequence[str]) -> Mapping[str, Any]:
    """Each kubelet's settings in force; None for one that does not tell."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(nodes, pool.map(lambda node: _kubelet(api, node), nodes)))


def _kubelet(api: Api, node: str) -> Any:
    try:
        found = api.get("/api/v1/nodes/%s/proxy/configz" % node)
    except ExplainedError:
        return None
    return found.get("kubeletconfig") if isinstance(found, dict) else None


def _by_name(items: Optional[Sequence[Any]]) -> dict[str, Any]:
    return {_name(one): one for one in items or ()}


def _name(thing: Any) -> str:
    return str(thing.get("metadata", {}).get("name", ""))
