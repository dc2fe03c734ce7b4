# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the records of the API mean for who uses them: addresses in a stable order, secrets left out."""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, Optional, Union

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

READY = "Ready"
REPAIRING = "Repairing"
# Such a record may stay for ever, answers 200 and keeps its name. The API's document does not list the status.
TERMINATED = "Terminated"
# Everything that the API's document lets a status be, and what it leaves out.
STATUSES = (
    "Pending",
    "Provisioning",
    "Configuring",
    READY,
    "Updating",
    REPAIRING,
    "Rebooting",
    "Terminating",
    TERMINATED,
    "Error",
)
# May hold passwords and keys; a site's token lets a site be registered.
SECRETS = frozenset({"userData", "ipxeScript", "registrationToken", "registrationTokenExpiration"})


def newest(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """The newest entry of a statusHistory; an empty one where there is none."""
    history = record.get("statusHistory")
    first = history[0] if isinstance(history, list) and history else None
    return first if isinstance(first, dict) else {}


def public(value: Any) -> Any:
    """The record without what may hold secrets, at any depth."""
    if isinstance(value, dict):
        return {key: public(inner) for key, inner in value.items() if key not in SECRETS}
    if isinstance(value, list):
        return [public(inner) for inner in value]
    return value


def addresses(instance: Mapping[str, Any]) -> list[Address]:
    """The addresses under which the instance can be reached, the best first, each once.

    The API's list sorts interfaces by nothing: the order is made of what does not change from request to request.
    What is no address, or one of the link or the loopback, is left out.
    """
    given = instance.get("interfaces")
    interfaces = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    found: dict[Address, None] = {}
    for interface in sorted(interfaces, key=_rank):
        texts = interface.get("ipAddresses")
        for text in texts if isinstance(texts, list) else []:
            address = _parsed(text)
            if address is not None:
                found.setdefault(address)
    return list(found)


def _rank(interface: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        interface.get("status") != READY,
        interface.get("isPhysical") is not True,
        str(interface.get("device") or ""),
        _number(interface.get("deviceInstance")),
        _number(interface.get("virtualFunctionId")),
        str(interface.get("id") or ""),
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1


def _parsed(text: Any) -> Optional[Address]:
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    useless = address.is_link_local or address.is_loopback or address.is_unspecified or address.is_multicast
    return None if useless else address
