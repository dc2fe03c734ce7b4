# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The user's file: which sites, instances and machines there are. Few words each; the rest is made."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import shapes
from .errors import DataError
from .shapes import Record, made_id
from .tokens import OidcClient, clients_of

API_NAMES = ("nico", "carbide", "forge")
KEYS = (
    "org", "api", "version", "provider", "targeted_instance_creation", "tokens", "clients", "ngc_keys", "key_life_s",
    "rate_limit", "timing", "sites", "instances", "machines", "faults",
)  # fmt: skip
SITE_KEYS = ("name", "id", "location", "online")
INSTANCE_KEYS = (
    "name",
    "id",
    "site",
    "type",
    "vpc",
    "status",
    "addresses",
    "labels",
    "count",
    "tenant",
    "machine",
    "fields",
)
MACHINE_KEYS = ("id", "site", "status", "fields")
# A reboot begins ``reboot_begins_s`` after it was asked for and takes ``reboot_s``.
TIMING = {"reboot_begins_s": 0.0, "reboot_s": 1.0, "terminate_s": 1.0}
DEFAULT_SITE = {"name": "site-1", "location": {"city": "Santa Clara", "state": "CA", "country": "USA"}}


@dataclass
class World:
    """All that there is at the start, by id in the order of the file."""

    org: str
    api: str
    version: str
    provider: bool
    tenant: Record
    tokens: Sequence[str]
    clients: Sequence[OidcClient]
    ngc_keys: Sequence[str]
    key_life_s: float
    rate_limit: Mapping[str, float] | None
    timing: Mapping[str, float]
    faults: object
    sites: dict[str, Record] = field(default_factory=dict)
    types: dict[str, Record] = field(default_factory=dict)
    vpcs: dict[str, Record] = field(default_factory=dict)
    machines: dict[str, Record] = field(default_factory=dict)
    instances: dict[str, Record] = field(default_factory=dict)

    def site_named(self, name: object) -> Record:
        """The site; the first one for None. Raises DataError."""
        for site in self.sites.values():
            if name in (None, site["name"], site["id"]):
                return site
        raise DataError(f"there is no site {name!r}; there are {[site['name'] for site in self.sites.values()]}")

    def add_instances(self, raw: object) -> list[Record]:
        """Add what one entry of ``instances`` describes. Raises DataError."""
        entry = _mapping(raw, "an instance", INSTANCE_KEYS)
        count = entry.get("count", 1)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise DataError(f"instance: count must be a whole number from 1 up, not {count!r}")
        if count > 1 and ("id" in entry or "machine" in entry):
            raise DataError("instance: id and machine go with one instance, not with a count")
        return [self._add(entry, number) for number in range(count)]

    def _add(self, entry: Mapping[str, Any], number: int) -> Record:
        site = self.site_named(entry.get("site"))
        name = _name(entry, number)
        tenant_id = made_id("tenant", str(entry["tenant"])) if "tenant" in entry else self.tenant["id"]
        its_id = str(entry.get("id", made_id("instance", site["id"], tenant_id, name)))
        if its_id in self.instances:
            raise DataError(f"instance {name!r}: there is one with the id {its_id}")
        machine_id = str(entry.get("machine", "fm100ht" + made_id("machine", its_id).replace("-", "")))
        kind = self._of(self.types, "type", entry, site)
        network = self._of(self.vpcs, "vpc", entry, site)
        ids = {
            "id": its_id,
            "tenantId": tenant_id,
            "infrastructureProviderId": site["infrastructureProviderId"],
            "siteId": site["id"],
            "instanceTypeId": kind["id"] if kind else None,
            "vpcId": network["id"] if network else made_id("vpc", site["id"], "default"),
            "machineId": machine_id,
        }
        given = {key: entry[key] for key in ("status", "labels") if key in entry}
        given["interfaces"] = [
            shapes.interface(its_id, place, addresses, other)
            for place, (addresses, other) in enumerate(_interfaces(entry.get("addresses", []), number))
        ]
        made = shapes.instance(name, ids, {**given, **entry.get("fields", {})})
        self.instances[its_id] = made
        owner = {
            "infrastructureProviderId": site["infrastructureProviderId"],
            "siteId": site["id"],
            "instanceTypeId": ids["instanceTypeId"],
            "instanceId": its_id,
            "tenantId": tenant_id,
        }
        known = self.machines.get(machine_id)
        self.machines[machine_id] = {**known, **owner} if known else shapes.machine(machine_id, owner, {})
        return made

    def _of(self, known: dict[str, Record], key: str, entry: Mapping[str, Any], site: Record) -> Record | None:
        """The instance type or the VPC that an entry names, made at its first mention."""
        if key not in entry:
            return None
        name = str(entry[key])
        if key == "type":
            made = shapes.instance_type(name, site["id"], site["infrastructureProviderId"])
        else:
            made = shapes.vpc(name, site["id"], self.tenant["id"], self.org)
        return known.setdefault(made["id"], made)


def load(path: Path) -> World:
    """The world that a file describes. Raises DataError."""
    try:
        return world_of(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def world_of(raw: object) -> World:
    """The world that data describes. Raises DataError."""
    data = _mapping({} if raw is None else raw, "the file", KEYS)
    api = data.get("api", "nico")
    if api not in API_NAMES:
        raise DataError(f"api: {api!r} is unknown; use {', '.join(API_NAMES)}")
    org = str(data.get("org", "acme"))
    try:
        clients = clients_of(data.get("clients", []))
    except (KeyError, TypeError, ValueError):
        raise DataError("clients: a list of mappings with id, secret, and life_s in seconds") from None
    world = World(
        org=org,
        api=api,
        version=str(data.get("version", "2.0.0")),
        provider=bool(data.get("provider", False)),
        tenant=shapes.tenant(org, bool(data.get("targeted_instance_creation", False))),
        tokens=[str(token) for token in data.get("tokens", ["emulated"])],
        clients=clients,
        ngc_keys=[str(key) for key in data.get("ngc_keys", [])],
        key_life_s=float(data.get("key_life_s", 300.0)),
        rate_limit=data.get("rate_limit"),
        timing={**TIMING, **_mapping(data.get("timing", {}), "timing", tuple(TIMING))},
        faults=data.get("faults", []),
    )
    provider_id = made_id("provider")
    for one in data.get("sites", [DEFAULT_SITE]):
        entry = _mapping(one, "a site", SITE_KEYS)
        site = shapes.site(str(entry.get("name")), provider_id, entry.get("location"), bool(entry.get("online", True)))
        site["id"] = str(entry.get("id", site["id"]))
        world.sites[site["id"]] = site
    for one in data.get("machines", []):
        entry = _mapping(one, "a machine", MACHINE_KEYS)
        ids = {
            "infrastructureProviderId": provider_id,
            "siteId": world.site_named(entry.get("site"))["id"],
            "instanceTypeId": None,
            "instanceId": None,
            "tenantId": None,
        }
        given = {**({"status": entry["status"]} if "status" in entry else {}), **entry.get("fields", {})}
        world.machines[str(entry["id"])] = shapes.machine(str(entry["id"]), ids, given)
    for one in data.get("instances", []):
        world.add_instances(one)
    return world


def _mapping(raw: object, what: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise DataError(f"{what} is a mapping with the keys {', '.join(keys)}, not {raw!r}")
    if unknown := set(raw) - set(keys):
        raise DataError(f"{what}: unknown key {sorted(map(str, unknown))}; use {', '.join(keys)}")
    return raw


def _name(entry: Mapping[str, Any], number: int) -> str:
    """The name; {n} in it is the number, from 0, of those that a count makes."""
    name = str(entry.get("name", "instance-{n}"))
    try:
        return name.format(n=number) if entry.get("count") or "name" not in entry else name
    except (KeyError, IndexError, ValueError):
        raise DataError(f"instance: the name {name!r} may hold {{n}} and nothing else in braces") from None


def _interfaces(raw: object, number: int) -> Iterator[tuple[list[str], Mapping[str, Any]]]:
    """Addresses and other properties of each interface: text, a list of texts, or a mapping."""
    if not isinstance(raw, list):
        raise DataError("instance: addresses is a list")
    for one in raw:
        if isinstance(one, Mapping):
            other = {key: value for key, value in one.items() if key != "ipAddresses"}
            yield [_address(text, number) for text in one.get("ipAddresses", [])], other
        elif isinstance(one, list):
            yield [_address(text, number) for text in one], {}
        else:
            yield [_address(one, number)], {}


def _address(raw: object, number: int) -> str:
    """An address; of a network such as 10.0.0.0/16 the one for this number. Other text stays as it is."""
    text = str(raw)
    if "/" not in text:
        return text
    try:
        network = ipaddress.ip_network(text)
        return str(network[number + 1])
    except (ValueError, IndexError) as error:
        raise DataError(f"instance: the network {text!r} has no address number {number + 1}: {error}") from None
