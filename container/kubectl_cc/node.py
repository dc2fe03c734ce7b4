# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A node as it is seen here: what was asked of it, what its CC manager says, whether it takes pods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cc_manager.names import (
    CHANGING_ANNOTATION,
    DEVICES_ANNOTATION,
    FAILED,
    MIXED,
    MODE_LABEL,
    MODES,
    READY_LABEL,
    REASON_ANNOTATION,
    RETRIED_ANNOTATION,
    RETRY_ANNOTATION,
    STATE_LABEL,
    VENDOR,
    WANTED_ANNOTATION,
)

from . import claim as claims
from .claim import Claim
from .names import ROLLOUT_ANNOTATION

Object = dict[str, Any]
OURS = f"{VENDOR}/cc."
# In a managedFields entry, the field of the label of the observed mode.
STATE_FIELD = f"f:{STATE_LABEL}"


@dataclass(frozen=True)
class Node:
    """A node at one resource version.

    ``kubelet``: why its kubelet is not ready; empty when it is. ``since``: when its CC manager last wrote a label or an
    annotation, RFC 3339; empty where the API does not say.
    """

    name: str
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    kubelet: str = ""
    since: str = ""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Node:
        """From an API object, whole or trimmed."""
        metadata, spec = found["metadata"], found.get("spec") or {}
        return cls(
            metadata["name"],
            str(metadata.get("resourceVersion", "")),
            dict(metadata.get("labels") or {}),
            dict(metadata.get("annotations") or {}),
            bool(spec.get("unschedulable", False)),
            _kubelet(found.get("status") or {}),
            _since(metadata.get("managedFields") or []),
        )

    @property
    def desired(self) -> str:
        """The mode that its label asks for; empty: none."""
        return self.labels.get(MODE_LABEL, "")

    @property
    def observed(self) -> str:
        """What its CC manager read back: a mode, mixed, failed, or empty in a change and before the first reading."""
        return self.labels.get(STATE_LABEL, "")

    @property
    def ready(self) -> str:
        """Kata's word."""
        return self.labels.get(READY_LABEL, "")

    @property
    def changing(self) -> str:
        """The desired mode on which its CC manager works; empty: none."""
        return self.annotations.get(CHANGING_ANNOTATION, "")

    @property
    def reason(self) -> str:
        """Why it is not as it should be, in its CC manager's words."""
        return self.annotations.get(REASON_ANNOTATION, "")

    @property
    def devices(self) -> str:
        """Each device's mode, as its CC manager wrote it: JSON."""
        return self.annotations.get(DEVICES_ANNOTATION, "")

    @property
    def wanted(self) -> str:
        """Modes that are desired of single devices, as the user wrote them: JSON."""
        return self.annotations.get(WANTED_ANNOTATION, "")

    @cached_property
    def claim(self) -> Claim | None:
        """Of the last rollout that had it."""
        return claims.read(self.annotations.get(ROLLOUT_ANNOTATION))

    @property
    def is_settled(self) -> bool:
        """True when its CC manager has read a mode, and changes nothing."""
        return not self.changing and self.observed in (*MODES, MIXED)

    @property
    def has_failed(self) -> bool:
        """True when its CC manager says so."""
        return self.observed == FAILED and not self.changing

    def is_in(self, mode: str) -> bool:
        """True when the mode was asked for by the label and read back from every device that counts."""
        return self.desired == mode and self.observed == mode and not self.changing

    @property
    def has_answered(self) -> bool:
        """True when what it publishes is younger than its retry annotation, by its CC manager's own word."""
        asked = self.annotations.get(RETRY_ANNOTATION, "")
        return bool(asked) and self.annotations.get(RETRIED_ANNOTATION, "") == asked

    @property
    def acknowledges(self) -> bool:
        """True when its CC manager is one that says what it has answered: one of this project."""
        return DEVICES_ANNOTATION in self.annotations or RETRIED_ANNOTATION in self.annotations

    @property
    def follows(self) -> bool:
        """True when the mode that is asked for, if any, is the one that was read."""
        return not self.desired or self.observed == self.desired

    @cached_property
    def in_service(self) -> bool:
        """True while it can take work: its kubelet is there, it is not cordoned, nothing is changed or about to."""
        held = self.claim is not None and self.claim.is_open
        settled = self.is_settled and (self.follows or self.observed == MIXED)
        return not self.kubelet and not self.unschedulable and settled and not held


def trimmer(keep: Iterable[str] | None = None) -> Callable[[Object], Object]:
    """What of a node is kept in memory. ``keep``: labels beside ours; None: all, and what is said of each device."""
    wanted = None if keep is None else set(keep)

    def trim(found: Object) -> Object:
        metadata, status = found["metadata"], found.get("status") or {}
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        kept = {key: metadata[key] for key in ("name", "uid", "resourceVersion") if key in metadata}
        kept["labels"] = {
            key: value for key, value in labels.items() if wanted is None or key in wanted or key.startswith(OURS)
        }
        kept["annotations"] = {
            key: value if wanted is None or key != DEVICES_ANNOTATION else ""
            for key, value in annotations.items()
            if key.startswith(OURS)
        }
        kept["managedFields"] = [
            {"time": one.get("time"), "fieldsV1": {"f:metadata": {"f:labels": {STATE_FIELD: {}}}}}
            for one in metadata.get("managedFields") or []
            if _has_state(one)
        ]
        conditions = [one for one in status.get("conditions") or [] if one.get("type") == "Ready"]
        return {
            "metadata": kept,
            "spec": {"unschedulable": bool((found.get("spec") or {}).get("unschedulable", False))},
            "status": {"conditions": conditions},
        }

    return trim


def _kubelet(status: Mapping[str, Any]) -> str:
    for one in status.get("conditions") or []:
        if one.get("type") == "Ready":
            if one.get("status") == "True":
                return ""
            return str(one.get("message") or one.get("reason") or "its kubelet is not ready")
    return "its kubelet has never said that it is ready"


def _has_state(entry: Mapping[str, Any]) -> bool:
    fields = entry.get("fieldsV1") or {}
    return STATE_FIELD in ((fields.get("f:metadata") or {}).get("f:labels") or {})


def _since(managed: Iterable[Mapping[str, Any]]) -> str:
    return max((str(one.get("time") or "") for one in managed if _has_state(one)), default="")
