# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is to be written to a node: nothing when it is as it should be.

Pure: of a node, an instance and its place. The rules are those of Kubernetes' own node controller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import labels
from .instance import READY, Instance, Place
from .names import BETA, HOSTNAME, INSTANCE_TYPE, INTERNAL_IP, REGION, SHUTDOWN, SHUTDOWN_TAINT, UNINITIALIZED, ZONE
from .node import Address, Node

Operations = list[dict[str, Any]]


class NotPossible(ValueError):
    """The node cannot be initialised as it is. ``reason``: of the Event."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


# --- addresses --------------------------------------------------------------------------------------------------------


def wanted_addresses(node: Node, instance: Instance) -> tuple[Address, ...]:
    """What status.addresses should be. Raises NotPossible when the kubelet's --node-ip is none of the instance's.

    The instance's addresses, all InternalIP, then the node's own Hostname. When the kubelet was given --node-ip, those
    addresses alone.
    """
    known = [Address(INTERNAL_IP, one) for one in instance.addresses]
    if node.provided_ip:
        known = _provided(node.provided_ip, known)
    return (*known, *(one for one in node.addresses if one.type == HOSTNAME))


def changed_addresses(node: Node, instance: Instance) -> tuple[Address, ...] | None:
    """The new addresses of a node; None: they stay. Raises NotPossible.

    They stay when the instance tells none, and in another order they are the same. While the instance is anything but
    Ready its interfaces come and go, so none is taken away then.
    """
    if not instance.addresses:
        return None
    wanted = wanted_addresses(node, instance)
    if set(wanted) == set(node.addresses):
        return None
    if instance.status != READY and not set(wanted) >= set(node.addresses):
        return None
    return wanted


def _provided(text: str, known: Sequence[Address]) -> list[Address]:
    chosen = []
    for part in text.split(","):
        try:
            wanted = ipaddress.ip_address(part.strip())
        except ValueError:
            raise NotPossible("ProvidedNodeIPNotValid", f"The kubelet's --node-ip {text!r} is no address.") from None
        found = [one for one in known if ipaddress.ip_address(one.address) == wanted]
        if not found:
            raise NotPossible(
                "ProvidedNodeIPNotValid",
                f"The kubelet's --node-ip {wanted} is none of the instance's addresses: "
                f"{', '.join(one.address for one in known) or 'there are none'}.",
            )
        chosen += found
    types = {one.type for one in chosen}
    return [*chosen, *(one for one in known if one.type not in types)]


# --- labels, provider id, taints --------------------------------------------------------------------------------------


def initialised(node: Node, provider_id: str, instance: Instance, place: Place) -> Operations:
    """A JSON patch that gives a node its provider id and labels and takes the taint away, or changes nothing.

    It is refused when the node was made again or somebody else has taken the taint away meanwhile; a heartbeat of the
    kubelet is no conflict.
    """
    made: Operations = [{"op": "test", "path": "/metadata/uid", "value": node.uid}]
    if not node.provider_id and provider_id:
        made.append({"op": "add", "path": "/spec/providerID", "value": provider_id})
    made += _labelled(node, cloud_labels(instance, place))
    return made + without_taint(node, UNINITIALIZED)[1:]


def cloud_labels(instance: Instance, place: Place) -> dict[str, str]:
    """Stable and beta labels; what is not known has none."""
    values = {INSTANCE_TYPE: labels.value_of(instance.type_name), ZONE: place.zone, REGION: place.region}
    return {
        key: value
        for stable, value in values.items()
        if value and labels.is_value(value)
        for key in (BETA[stable], stable)
    }


def followed_labels(node: Node) -> Operations:
    """A JSON patch for a node that is initialised: each stable label becomes what its beta label says; or nothing."""
    differing = {
        stable: node.labels[beta]
        for stable, beta in BETA.items()
        if beta in node.labels and node.labels.get(stable) != node.labels[beta]
    }
    if not differing:
        return []
    return [{"op": "test", "path": "/metadata/uid", "value": node.uid}, *_labelled(node, differing)]


def without_taint(node: Node, key: str) -> Operations:
    """A JSON patch that takes a taint away, wherever in the list it is."""
    made: Operations = [{"op": "test", "path": "/metadata/uid", "value": node.uid}]
    # From behind, so that the places of those before stay.
    for place in reversed([number for number, one in enumerate(node.taints) if one == key]):
        made.append({"op": "test", "path": f"/spec/taints/{place}/key", "value": key})
        made.append({"op": "remove", "path": f"/spec/taints/{place}"})
    return made


def with_shutdown_taint(node: Node) -> Operations:
    """A JSON patch that adds the taint of a machine that is off."""
    made: Operations = [{"op": "test", "path": "/metadata/uid", "value": node.uid}]
    if node.taints:
        return [*made, {"op": "add", "path": "/spec/taints/-", "value": dict(SHUTDOWN_TAINT)}]
    # A list that somebody begins meanwhile would be overwritten.
    made.append({"op": "test", "path": "/metadata/resourceVersion", "value": node.version})
    return [*made, {"op": "add", "path": "/spec/taints", "value": [dict(SHUTDOWN_TAINT)]}]


def without_shutdown_taint(node: Node) -> Operations:
    """A JSON patch that takes it away."""
    return without_taint(node, SHUTDOWN)


def _labelled(node: Node, wanted: Mapping[str, str]) -> Operations:
    differing = {key: value for key, value in wanted.items() if node.labels.get(key) != value}
    if not differing:
        return []
    if not node.has_labels:
        return [{"op": "add", "path": "/metadata/labels", "value": differing}]
    return [{"op": "add", "path": f"/metadata/labels/{_escaped(key)}", "value": differing[key]} for key in differing]


def _escaped(key: str) -> str:
    """RFC 6901."""
    return key.replace("~", "~0").replace("/", "~1")


def address_patch(node: Node, wanted: Iterable[Address]) -> dict[str, Any]:
    """A merge patch of the status: a strategic one would mix up entries of one type."""
    return {"metadata": {"uid": node.uid}, "status": {"addresses": [one._asdict() for one in wanted]}}
