# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Events on the node: one object for what is said again, with a count, also by the next process.

Its name is made from what it says, so that the API itself knows whether it was said before. Counting needs no right to
read: the answer to a patch of the time tells the count.
"""

from __future__ import annotations

import hashlib
import time
from typing import Any

from .kube import MERGE_PATCH, NOT_AN_OBJECT, ApiError, Kube

COMPONENT = "k8s-cc-manager"
NAMESPACE = "default"  # of things without a namespace, as the kubelet does
PATH = f"/api/v1/namespaces/{NAMESPACE}/events"
MESSAGE_MAX_BYTES = 1024
NODE_NAME_MAX_CHARS = 200  # of the 253 that an object's name may have


class Events:
    """Of one node."""

    def __init__(self, kube: Kube, node_name: str) -> None:
        self._kube = kube
        self._node_name = node_name

    def tell(self, kind: str, reason: str, message: str) -> None:
        """Make an Event, or count up the equal one. Raises ApiError."""
        text = message.encode()[:MESSAGE_MAX_BYTES].decode(errors="ignore")
        name = self._name(kind, reason, text)
        try:
            self._kube.request("POST", PATH, None, self._new(name, kind, reason, text))
        except ApiError as error:
            if not error.is_conflict:
                raise
            self._again(name)

    def _again(self, name: str) -> None:
        try:
            found = self._patch(name, {"lastTimestamp": _now()})
            self._patch(name, {"count": int(found.get("count") or 1) + 1})
        except ApiError as error:
            if not error.is_forbidden and error.status != 404:
                raise
            # The one made before still says it; or it has just expired, and what it said is an hour old.
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"the answer is no Event: {type(error).__name__}") from error

    def _patch(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._kube.request("PATCH", f"{PATH}/{name}", None, body, content_type=MERGE_PATCH)

    def _name(self, kind: str, reason: str, text: str) -> str:
        said = "\0".join((self._node_name, kind, reason, text))
        prefix = self._node_name[:NODE_NAME_MAX_CHARS].rstrip("-.")
        return f"{prefix}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"

    def _new(self, name: str, kind: str, reason: str, text: str) -> dict[str, Any]:
        moment = _now()
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            # kubectl describe node looks for events whose uid is the node's name, as the kubelet's are.
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node_name, "uid": self._node_name},
            "type": kind,
            "reason": reason,
            "message": text,
            "source": {"component": COMPONENT, "host": self._node_name},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._node_name,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
