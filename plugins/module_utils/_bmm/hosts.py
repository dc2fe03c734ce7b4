# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Instances as hosts of an inventory: which ones, under which names, with which facts. Plain data in and out."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

from .._core.errors import InvalidRequest
from .pages import Record
from .records import STATUSES, TERMINATED, addresses, newest, public

# What a host may be called. Anything else, a template among it, is no name.
HOST_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[0-9A-Fa-f:.]{3,45}")
# Ansible takes these for the machine it runs on.
OWN_NAMES = ("localhost", "127.0.0.1", "::1")
LABEL = "label:"
NAME_SOURCES = ("name", "id", "machine_id", "address", "ipv4", "ipv6", LABEL + "KEY")
GROUP_SOURCES = ("site", "status", "instance_type", "vpc")
# Filter to the API's query parameter and property; 'labels' and 'site' have no parameter of their own.
FILTERS = {
    "id": "id",
    "name": "name",
    "status": "status",
    "site_id": "siteId",
    "vpc_id": "vpcId",
    "instance_type_id": "instanceTypeId",
    "machine_id": "machineId",
}
ASKED = ("status", "site_id", "vpc_id", "instance_type_id")
RELATIONS = ("Site", "InstanceType", "VPC", "Machine")

Filter = Mapping[str, Any]


class Named(NamedTuple):
    """Host name to instance's facts in the order of the names, and what the user has to know of the names."""

    hosts: dict[str, Record]
    warnings: list[str]


def facts(instance: Record, sites: Mapping[str, Record], org: str) -> Record:
    """What an inventory says of an instance, without what may hold secrets. Lists are in a stable order."""
    found = [str(one) for one in addresses(instance)]
    site_id, tenant_id = _text(instance.get("siteId")), _text(instance.get("tenantId"))
    site = {**_object(instance.get("site")), **sites.get(site_id, {})}
    machine = _object(instance.get("machine"))
    return {
        "id": instance["id"],
        "name": _text(instance.get("name")),
        "status": _text(instance.get("status")),
        "status_message": _text(newest(instance).get("message")),
        "site_id": site_id,
        "site": _text(site.get("name")),
        "site_online": bool(site.get("isOnline", True)),
        "location": public(_object(site.get("location"))),
        "tenant_id": tenant_id,
        "vpc_id": _text(instance.get("vpcId")),
        "vpc": _text(_object(instance.get("vpc")).get("name")),
        "instance_type_id": _text(instance.get("instanceTypeId")),
        "instance_type": _text(_object(instance.get("instanceType")).get("name")),
        "machine_id": _text(instance.get("machineId")),
        "machine": {
            "status": _text(machine.get("status")),
            "vendor": _text(machine.get("vendor")),
            "product_name": _text(machine.get("productName")),
            "maintenance_message": _text(machine.get("maintenanceMessage")),
        },
        "labels": _labels(instance),
        "addresses": found,
        "ipv4": [one for one in found if ":" not in one],
        "ipv6": [one for one in found if ":" in one],
        "update_pending": bool(instance.get("isUpdatePending")),
        "created": _text(instance.get("created")),
        "provider_id": "nvidia-bmm://%s/%s/%s/%s" % (org, tenant_id, site_id, instance["id"]),
    }


def machine_facts(machine: Record) -> Record:
    """What a module says of a machine."""
    alerts = _object(machine.get("health")).get("alerts")
    return {
        "id": machine["id"],
        "status": _text(machine.get("status")),
        "site_id": _text(machine.get("siteId")),
        "instance_id": _text(machine.get("instanceId")),
        "vendor": _text(machine.get("vendor")),
        "product_name": _text(machine.get("productName")),
        "serial_number": _text(machine.get("serialNumber")),
        "maintenance_message": _text(machine.get("maintenanceMessage")),
        "alerts": [
            "%s - %s" % (one.get("id"), one.get("message"))
            for one in map(_object, alerts if isinstance(alerts, list) else [])
        ],
        "labels": _labels(machine),
    }


def site_facts(site: Record) -> Record:
    """What a module says of a site."""
    return {
        "id": site["id"],
        "name": _text(site.get("name")),
        "status": _text(site.get("status")),
        "online": site.get("isOnline") is True,
        "location": public(_object(site.get("location"))),
        "capabilities": _object(site.get("capabilities")),
    }


def check_filters(name: str, filters: Sequence[Filter]) -> None:
    """Raise InvalidRequest for a filter that could never match."""
    known = [*FILTERS, "site", "labels"]
    for one in filters:
        if not isinstance(one, Mapping) or not one:
            raise InvalidRequest("%s: %r is no filter." % (name, one), "Give mappings with %s." % ", ".join(known))
        for key, value in one.items():
            if key not in known:
                raise InvalidRequest("%s: %r is unknown." % (name, key), "Use %s." % ", ".join(known))
            if key == "labels" and not isinstance(value, Mapping):
                raise InvalidRequest("%s: labels is no mapping." % name, "Give label: value or a list of values.")
            if key == "status":
                for status in _values(value):
                    if status not in STATUSES:
                        raise InvalidRequest(
                            "%s: the status %r is unknown." % (name, status), "Use %s." % ", ".join(STATUSES)
                        )


def query_of(include: Sequence[Filter]) -> list[tuple[str, str]]:
    """What the API can filter by itself; the rest is done here. It cannot be asked for one of several filters."""
    if len(include) != 1:
        return []
    return [(FILTERS[key], value) for key in ASKED if key in include[0] for value in _values(include[0][key])]


def wanted(host: Record, include: Sequence[Filter], exclude: Sequence[Filter]) -> bool:
    """Whether a host passes: any of ``include`` (or there is none), and none of ``exclude``; never a Terminated one."""
    if host["status"] == TERMINATED:
        return False
    return (not include or any(_matches(host, one) for one in include)) and not any(
        _matches(host, one) for one in exclude
    )


def check_names(preference: Sequence[str]) -> None:
    """Raise InvalidRequest for a source of names that is none."""
    for source in preference:
        if source not in NAME_SOURCES and not (source.startswith(LABEL) and len(source) > len(LABEL)):
            raise InvalidRequest("hostnames: %r is unknown." % source, "Use %s." % ", ".join(NAME_SOURCES))


def check_groups(sources: Sequence[str]) -> None:
    """Raise InvalidRequest for a source of groups that is none."""
    for source in sources:
        if source not in GROUP_SOURCES and not (source.startswith(LABEL) and len(source) > len(LABEL)):
            known = ", ".join([*GROUP_SOURCES, LABEL + "KEY"])
            raise InvalidRequest("group_by: %r is unknown." % source, "Use %s." % known)


def groups(host: Record, sources: Sequence[str]) -> list[str]:
    """The groups of a host: 'site_sjc4', 'status_ready'. What it does not have makes no group."""
    found = []
    for source in sources:
        if source.startswith(LABEL):
            key, value = source[len(LABEL) :], host["labels"].get(source[len(LABEL) :], "")
        else:
            key, value = source, host[source]
        if value:
            found.append("%s_%s" % (key, value.lower() if source == "status" else value))
    return found


def named(hosts: Sequence[Record], preference: Sequence[str]) -> Named:
    """Give each host the first name of the preference list that is one; who would share it, goes by the id."""
    chosen: dict[str, list[Record]] = {}
    warnings = []
    ids = {host["id"] for host in hosts}
    for host in hosts:
        names = [_name(host, source) for source in [*preference, "id"]]
        # Another's id as a name would take its place where that one goes by the id.
        fit = [name for name in names if is_name(name) and (name not in ids or name == host["id"])]
        name = fit[0] if fit else ""
        if not name:
            warnings.append(
                "An instance is left out: neither its name nor its id (%.80r) can name a host." % host["id"]
            )
            continue
        chosen.setdefault(name, []).append(host)
    unique: dict[str, Record] = {}
    for name, same in chosen.items():
        if len(same) == 1:
            unique[name] = same[0]
            continue
        listed = {host["id"]: host for host in same if is_name(host["id"])}
        warnings.append(
            "%d instances share the name %s; they are listed by their ids: %s." % (len(same), name, ", ".join(listed))
        )
        unique.update(listed)
    return Named(dict(sorted(unique.items())), warnings)


def is_name(text: str) -> bool:
    """Whether text can name a host."""
    return HOST_NAME.fullmatch(text) is not None and text.lower() not in OWN_NAMES


def _name(host: Record, source: str) -> str:
    if source.startswith(LABEL):
        return str(host["labels"].get(source[len(LABEL) :], ""))
    if source in ("address", "ipv4", "ipv6"):
        found = host["addresses" if source == "address" else source]
        return str(found[0]) if found else ""
    return str(host[source])


def _matches(host: Record, one: Filter) -> bool:
    for key, value in one.items():
        if key == "labels":
            if not all(label in host["labels"] and host["labels"][label] in _values(of) for label, of in value.items()):
                return False
        elif key == "site":
            if host["site"] not in _values(value) and host["site_id"] not in _values(value):
                return False
        elif host[key] not in _values(value):
            return False
    return True


def _values(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]


def _labels(record: Record) -> dict[str, str]:
    return {str(key): _text(value) for key, value in sorted(_object(record.get("labels")).items())}


def _object(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
