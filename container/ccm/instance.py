# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known of an instance, cut out of the API's record as it comes: a record may hold 32 KiB of user data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ansible_collections.confidential.gpu.plugins.module_utils._bmm.records import TERMINATED, addresses

# The machine is off, is being taken away, or is in a state that nobody knows.
SHUT_DOWN = ("Terminating", "Error")
READY = "Ready"


class Instance(NamedTuple):
    """``addresses``: text, the best first. ``type_name``: of the instance type; its id where the name is not told."""

    id: str
    name: str
    status: str
    site: str
    tenant: str
    type_name: str
    addresses: tuple[str, ...]
    has_own_network: bool = False  # autoNetwork: its interfaces may never be told

    @property
    def is_terminated(self) -> bool:
        """It was deleted; such a record may stay for ever."""
        return self.status == TERMINATED

    @property
    def is_shut_down(self) -> bool:
        """No pod can run on it."""
        return self.status in SHUT_DOWN

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Instance:
        """Of the API's record, whatever it holds: what is not as it should be counts as not told."""
        kind = record.get("instanceType")
        name = _text(kind.get("name")) if isinstance(kind, Mapping) else ""
        return cls(
            id=_text(record.get("id")).lower(),
            name=_text(record.get("name")),
            status=_text(record.get("status")),
            site=_text(record.get("siteId")),
            tenant=_text(record.get("tenantId")),
            type_name=name or _text(record.get("instanceTypeId")),
            addresses=tuple(map(str, addresses(record))),
            has_own_network=record.get("autoNetwork") is True,
        )


class Place(NamedTuple):
    """Where the instances of a site are, as label values; empty: not known."""

    zone: str
    region: str


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
