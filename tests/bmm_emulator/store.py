# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What there is now: the world, and what time and requests make of it. Callers hold ``lock``."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import ApiRefusal, DataError
from .shapes import MOST_HISTORY, Record, history
from .world import World

MOST_LABELS = 10
# What an instance shows of its site and its machine.
SITE_SUMMARY = (
    "id",
    "name",
    "infrastructureProviderId",
    "isSerialConsoleEnabled",
    "isOnline",
    "capabilities",
    "status",
)
MACHINE_SUMMARY = (
    "id", "controllerMachineId", "controllerMachineType", "hwSkuDeviceType", "vendor", "productName",
    "maintenanceMessage", "status",
)  # fmt: skip


class Store:
    """The records, and their JSON, which is made once for each state of a record."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lock = threading.RLock()
        # What else happens when the machine of an instance is switched off and on.
        self.power_cycled: Callable[[Record], None] = lambda record: None
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._encoded: dict[tuple[str, tuple[str, ...]], bytes] = {}

    def settle(self) -> None:
        """Let happen what is due by now."""
        now = time.monotonic()
        due = [action for when, action in self._due if when <= now]
        self._due = [(when, action) for when, action in self._due if when > now]
        for action in due:
            action()

    def lists(self) -> dict[str, list[Record]]:
        """A copy of all lists, for who wants to show them later as they are now."""
        world = self.world
        return {
            "instance": copy.deepcopy(list(world.instances.values())),
            "machine": copy.deepcopy(list(world.machines.values())),
            "site": copy.deepcopy(list(world.sites.values())),
        }

    def named(self, kind: str, name_or_id: str) -> Record:
        """The instance, machine or site of this id or name. Raises DataError."""
        known = {"instance": self.world.instances, "machine": self.world.machines, "site": self.world.sites}[kind]
        for one in known.values():
            if name_or_id in (one["id"], one.get("name")):
                return one
        raise DataError(f"there is no {kind} {name_or_id!r}")

    def add(self, raw: object) -> list[Record]:
        """More instances, as the file describes them."""
        return self.world.add_instances(raw)

    def alter(self, record: Record, fields: Mapping[str, Any]) -> None:
        """Set properties of a record; a status goes into its history."""
        for key, value in fields.items():
            if key == "status" and value != record["status"]:
                self._enter(record, value)
            elif key != "message":
                record[key] = value
        if "message" in fields:
            record["statusHistory"][0]["message"] = fields["message"]
        # Instances show parts of machines and sites.
        self._encoded = {}

    def remove(self, record: Record) -> None:
        """Take an instance out of the world at once, as if it had never been."""
        self.world.instances.pop(record["id"], None)
        self._forget(record["id"])

    def update(self, record: Record, change: Mapping[str, Any]) -> None:
        """What PATCH of an instance does. Raises ApiRefusal."""
        labels = change.get("labels")
        if labels is not None:
            texts = isinstance(labels, dict) and all(isinstance(one, str) for pair in labels.items() for one in pair)
            if not texts or len(labels) > MOST_LABELS:
                raise ApiRefusal(
                    400, "Error validating Instance update request data: labels: up to 10 pairs are supported."
                )
        for key in ("name", "description", "labels"):
            if change.get(key) is not None:
                record[key] = change[key]
        if change.get("triggerReboot"):
            self.reboot(record)
        self._forget(record["id"])

    def reboot(self, record: Record) -> None:
        """Power cycle: Rebooting, at once or a while later, and Ready after that."""
        if record["status"] in ("Terminating", "Terminated"):
            raise ApiRefusal(400, f"Instance is in {record['status']} state, cannot be rebooted")
        if self.world.timing["reboot_begins_s"]:
            self._later("reboot_begins_s", lambda: self._begin(record))
        else:
            self._begin(record)

    def terminate(self, record: Record) -> None:
        """DELETE of an instance: Terminating, and gone a while later."""
        self._enter(record, "Terminating")
        self._later("terminate_s", lambda: self.remove(record))

    def encoded(self, record: Record, relations: Iterable[str] = ()) -> bytes:
        """JSON of an instance of the world with its relations."""
        key = (record["id"], tuple(sorted(relations)))
        if key not in self._encoded:
            self._encoded[key] = json.dumps(related(self.world, record, key[1])).encode()
        return self._encoded[key]

    def _begin(self, record: Record) -> None:
        self._enter(record, "Rebooting")
        self.power_cycled(record)
        self._later("reboot_s", lambda: self._become(record, "Rebooting", "Ready"))

    def _become(self, record: Record, before: str, after: str) -> None:
        if record["status"] == before and record["id"] in self.world.instances:
            self._enter(record, after)

    def _enter(self, record: Record, status: str) -> None:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        record["status"] = status
        record["updated"] = now
        record["statusHistory"] = [history(status, None, now), *record["statusHistory"]][:MOST_HISTORY]
        self._forget(record["id"])

    def _later(self, timing: str, action: Callable[[], None]) -> None:
        self._due.append((time.monotonic() + self.world.timing[timing], action))

    def _forget(self, its_id: str) -> None:
        self._encoded = {key: text for key, text in self._encoded.items() if key[0] != its_id}


def related(world: World, record: Record, relations: Iterable[str]) -> Record:
    """An instance with what ``includeRelation`` adds to it."""
    found = dict(record)
    for relation in relations:
        if relation == "Site":
            found["site"] = _some(world.sites.get(record["siteId"]), SITE_SUMMARY)
        elif relation == "InstanceType":
            found["instanceType"] = _some(world.types.get(record["instanceTypeId"]), ("id", "name", "status"))
        elif relation == "VPC":
            found["vpc"] = _some(world.vpcs.get(record["vpcId"]), ("id", "name", "status"))
        elif relation == "Machine":
            found["machine"] = _some(world.machines.get(record["machineId"]), MACHINE_SUMMARY)
        elif relation == "Tenant":
            mine = world.tenant["id"] == record["tenantId"]
            found["tenant"] = _some(world.tenant if mine else None, ("id", "org", "orgDisplayName"))
    return found


def _some(record: Record | None, keys: Iterable[str]) -> Record | None:
    return {key: record[key] for key in keys} if record else None
