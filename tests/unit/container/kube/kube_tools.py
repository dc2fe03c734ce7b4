# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of the client share: things of the API that they ask for, and who listens to a watch."""

from __future__ import annotations

from typing import Any

from fake_api.daemon_sets import NODES
from fake_api.store import Store
from kube.client import MERGE_PATCH, METADATA, METADATA_LIST, ApiError, Kube
from kube.delay import Delay
from kube.watch import Resource, Watch

NODE = "node-1"
PATH = f"/api/v1/nodes/{NODE}"
THIS_NODE = Resource("/api/v1/nodes", {"fieldSelector": f"metadata.name={NODE}"}, METADATA_LIST, METADATA)
ITS_PODS = Resource("/api/v1/pods", {"fieldSelector": f"spec.nodeName={NODE}"})


def get(kube: Kube) -> str:
    """The node's name, as the API says it."""
    return str(kube.request("GET", PATH)["metadata"]["name"])


def pods(kube: Kube) -> list[dict[str, Any]]:
    """Those of the node."""
    return kube.items(ITS_PODS.path, ITS_PODS.query)[0]


def cordon(kube: Kube) -> dict[str, Any]:
    """A patch of the node."""
    return kube.request("PATCH", PATH, None, {"spec": {"unschedulable": True}}, content_type=MERGE_PATCH)


def label(store: Store, **labels: str) -> None:
    """Somebody else changes the node."""
    store.patch(NODES, NODE, {"metadata": {"labels": labels}})


class Told:
    """What a watch tells, by default one of the node."""

    def __init__(self, kube: Kube, resource: Resource = THIS_NODE, **more: Any) -> None:
        self.seen: list[list[dict[str, Any]]] = []
        self.fresh: list[bool] = []
        self.errors: list[ApiError] = []
        self.watch = Watch(kube, resource, self.take, self.errors.append, Delay(0.01, 0.05), **more)

    def take(self, objects: list[dict[str, Any]], fresh: bool) -> None:
        """What the watch calls."""
        self.fresh.append(fresh)
        self.seen.append(objects)

    def label(self, name: str) -> str | None:
        """Of the node as it was told last."""
        return self.seen[-1][0]["metadata"]["labels"].get(name) if self.seen and self.seen[-1] else None
