# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Events: one object for what is said again, with a count, also by the next process.

Its name is made from what it says, so that the API itself knows whether it was said before. Counting needs no right to
read: the answer to a patch of the time tells the count.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from .client import MERGE_PATCH, NOT_AN_OBJECT, ApiError, Kube, Object

NAMESPACE = "default"  # of things without a namespace, as the kubelet does
MESSAGE_MAX_BYTES = 1024
NAME_MAX_CHARS = 200  # of the 253 that an object's name may have


@dataclass(frozen=True)
class Subject:
    """What an Event is about."""

    kind: str
    name: str
    uid: str = ""
    namespace: str = ""
    api_version: str = "v1"

    @classmethod
    def node(cls, name: str) -> Subject:
        """A node. kubectl describe looks for events whose uid is the node's name, as the kubelet's are."""
        return cls("Node", name, name)


class Events:
    """Those of one program. ``component``: its name; ``instance``: the node or pod that it is on.

    ``counts``: False where there is no right to patch: what is said again is then not counted.
    """

    def __init__(self, kube: Kube, component: str, instance: str, counts: bool = True) -> None:
        self._counts = counts
        self._kube = kube
        self._component = component
        self._instance = instance

    def tell(self, about: Subject, kind: str, reason: str, message: str) -> None:
        """Make an Event, or count up the equal one; ``kind`` is Normal or Warning. Raises ApiError."""
        text = message.encode()[:MESSAGE_MAX_BYTES].decode(errors="ignore")
        path = f"/api/v1/namespaces/{about.namespace or NAMESPACE}/events"
        made = self._new(about, kind, reason, text)
        try:
            self._kube.request("POST", path, None, made)
        except ApiError as error:
            if not error.is_conflict:
                raise
            if self._counts:
                self._again(f"{path}/{made['metadata']['name']}")

    def _again(self, path: str) -> None:
        try:
            found = self._patch(path, {"lastTimestamp": _now()})
            self._patch(path, {"count": int(found.get("count") or 1) + 1})
        except ApiError as error:
            if not error.is_forbidden and error.status != 404:
                raise
            # The one made before still says it; or it has just expired, and what it said is an hour old.
        except NOT_AN_OBJECT as error:
            raise ApiError(0, f"the answer is no Event: {type(error).__name__}") from error

    def _patch(self, path: str, body: Object) -> Object:
        return self._kube.request("PATCH", path, None, body, content_type=MERGE_PATCH)

    def _name(self, about: Subject, kind: str, reason: str, text: str) -> str:
        said = "\0".join((self._component, about.kind, about.namespace, about.name, about.uid, kind, reason, text))
        prefix = about.name[:NAME_MAX_CHARS].rstrip("-.")
        return f"{prefix}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"

    def _new(self, about: Subject, kind: str, reason: str, text: str) -> dict[str, Any]:
        moment = _now()
        involved = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": about.uid}
        if about.namespace:
            involved["namespace"] = about.namespace
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": self._name(about, kind, reason, text), "namespace": about.namespace or NAMESPACE},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": text,
            "source": {"component": self._component, "host": self._instance},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
