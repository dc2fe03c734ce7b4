# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Lists as the API answers them: filters, order, pages."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .errors import ApiRefusal
from .shapes import Record

Query = Mapping[str, Sequence[str]]

DEFAULT_SIZE = 20
LARGEST_SIZE = 100
PAGING = ("pageNumber", "pageSize", "orderBy")
INSTANCE_STATUSES = (
    "Pending", "Provisioning", "Configuring", "Ready", "Updating", "Repairing", "Rebooting", "Terminating",
    "Terminated", "Error",
)  # fmt: skip
MACHINE_STATUSES = ("Initializing", "Ready", "Reset", "Maintenance", "InUse", "Error", "Decommissioned", "Unknown")
SITE_STATUSES = ("Pending", "Registered", "Error")
# Of the API's document; 'Allocation' stands there and is refused.
RELATIONS = (
    "InfrastructureProvider", "Tenant", "Site", "InstanceType", "VPC", "Machine", "OperatingSystem",
    "NetworkSecurityGroup",
)  # fmt: skip
ORDERS: dict[str, tuple[str, ...]] = {
    "instance": ("NAME", "STATUS", "CREATED", "UPDATED", "MACHINE_ID"),
    "machine": ("STATUS", "CREATED", "UPDATED", "ID"),
    "site": ("NAME", "STATUS", "CREATED", "UPDATED"),
}
PROPERTIES = {
    "NAME": "name",
    "STATUS": "status",
    "CREATED": "created",
    "UPDATED": "updated",
    "MACHINE_ID": "machineId",
    "ID": "id",
}
# Query parameter to the property that it filters by; several values mean any of them.
FILTERS: dict[str, dict[str, str]] = {
    "instance": {
        name: name
        for name in (
            "siteId", "vpcId", "instanceTypeId", "operatingSystemId", "machineId", "name", "status",
            "networkSecurityGroupId", "infrastructureProviderId",
        )
    },
    "machine": {name: name for name in ("siteId", "id", "status", "instanceTypeId", "tenantId", "hwSkuDeviceType")},
    "site": {name: name for name in ("infrastructureProviderId", "status")},
}  # fmt: skip
STATUSES = {"instance": INSTANCE_STATUSES, "machine": MACHINE_STATUSES, "site": SITE_STATUSES}


class Page:
    """Records of one page, and what X-Pagination says of it."""

    def __init__(self, records: Sequence[Record], number: int, size: int, total: int, order: str | None) -> None:
        self.records = records
        self.pagination = {"pageNumber": number, "pageSize": size, "total": total, "orderBy": order}


def relations(query: Query) -> list[str]:
    """The values of includeRelation. Raises ApiRefusal."""
    asked = list(query.get("includeRelation", []))
    for name in asked:
        if name not in RELATIONS:
            raise ApiRefusal(400, f"Invalid includeRelation value in query: {name}")
    return asked


def select(kind: str, records: Iterable[Record], query: Query) -> list[Record]:
    """The records that pass the filters. Raises ApiRefusal."""
    for status in query.get("status", []):
        if status not in STATUSES[kind]:
            raise ApiRefusal(400, f"Invalid status value in query: {status}")
    tests: list[Callable[[Record], bool]] = []
    for name, key in FILTERS[kind].items():
        if name in query:
            tests.append(_one_of(key, query[name]))
    if "ipAddress" in query and kind == "instance":
        wanted = set(query["ipAddress"])
        tests.append(lambda one: any(wanted & set(each["ipAddresses"]) for each in one["interfaces"]))
    if "query" in query:
        text = query["query"][0].lower()
        tests.append(lambda one: text in f"{one['id']} {one.get('name', '')} {one['status']}".lower())
    if "hasInstance" in query and kind == "machine":
        if "siteId" not in query:
            raise ApiRefusal(400, "Site ID must be specified in query when using hasInstance")
        wanted_one = query["hasInstance"][0] == "true"
        tests.append(lambda one: bool(one["instanceId"]) == wanted_one)
    return [one for one in records if all(test(one) for test in tests)]


def _one_of(key: str, values: Sequence[str]) -> Callable[[Record], bool]:
    return lambda one: one.get(key) in values


def cut(
    kind: str, records: list[Record], query: Query, rng: random.Random, shuffle: bool = False, one_page: bool = False
) -> Page:
    """The page that is asked for. Raises ApiRefusal.

    Without an order, and by anything but the name, equals come in any order: the database promises none.
    """
    number = _number(query, "pageNumber", 1, None)
    size = _number(query, "pageSize", DEFAULT_SIZE, LARGEST_SIZE)
    order = query.get("orderBy", [None])[0]
    name, _, direction = (order or "CREATED_ASC").rpartition("_")
    if name not in ORDERS[kind] or direction not in ("ASC", "DESC"):
        raise ApiRefusal(400, f"Invalid orderBy value in query: {order}")
    key = PROPERTIES[name]
    if name not in ("NAME", "ID") or shuffle:
        records = rng.sample(records, len(records))
    if not shuffle:
        records = sorted(records, key=lambda one: _text(one.get(key)), reverse=direction == "DESC")
    first = 0 if one_page else (number - 1) * size
    return Page(records[first : first + size], number, size, len(records), order)


def _number(query: Query, name: str, default: int, largest: int | None) -> int:
    if name not in query:
        return default
    try:
        value = int(query[name][0])
    except ValueError:
        value = 0
    if value < 1 or (largest is not None and value > largest):
        raise ApiRefusal(400, f"Error validating pagination request data: {name}: must be from 1 to {largest or 'any'}")
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)
