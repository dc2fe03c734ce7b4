# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to answers: the API's routes, rights and words; nothing of HTTP connections."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from . import lists
from .errors import ApiRefusal
from .faults import Fault, Faults
from .shapes import Record
from .store import Store, related
from .tokens import Tokens
from .world import World

NO_ROUTE = "The requested path could not be found"
SEED = 1


@dataclass
class Reply:
    """An answer; ``cut`` has its connection closed in the middle."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    cut: bool = False


class Api:
    """The routes below /v2/org/{org}/{api}; threads share it."""

    def __init__(self, world: World, tokens: Tokens, faults: Faults) -> None:
        self.store = Store(world)
        self.faults = faults
        self._world = world
        self._tokens = tokens
        self._rng = random.Random(SEED)
        self._bucket = Bucket(world.rate_limit) if world.rate_limit else None

    def path_of(self, target: str) -> str | None:
        """What follows the API's name in a request's target; None for a path of another API."""
        path = target.partition("?")[0]
        parts = path.split("/")
        if len(parts) < 6 or parts[1:3] != ["v2", "org"] or parts[4] != self._world.api:
            return None
        return "/".join(parts[5:])

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, struck: dict[str, Fault]
    ) -> Reply:
        """The answer to one request, faults of the data among them."""
        try:
            with self.store.lock:
                self.store.settle()
                reply = self._answer(method, target, headers, body, struck)
        except ApiRefusal as refusal:
            reply = self.refusal(refusal)
        if "broken" in struck:
            reply.body = reply.body[: len(reply.body) // 2]
        reply.cut = "cut" in struck
        return reply

    def refusal(self, refusal: ApiRefusal) -> Reply:
        """An error in the API's envelope."""
        content = {"source": self._world.api, "message": refusal.message, "data": None}
        reply = Reply(refusal.status, json.dumps(content).encode())
        if refusal.retry_after_s is not None:
            reply.headers["Retry-After"] = str(refusal.retry_after_s)
        return reply

    def _answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes, struck: dict[str, Fault]
    ) -> Reply:
        path = self.path_of(target)
        words = [unquote(word) for word in path.split("/")] if path is not None else []
        route = _route(method, words)
        if self._bucket is not None and not self._bucket.take():
            raise ApiRefusal(429, "Too many requests")
        # The router knows nothing of tokens.
        if route is None or "no_route" in struck:
            raise ApiRefusal(404, NO_ROUTE)
        self._tokens.check(headers.get("authorization", ""))
        org = unquote(target.split("/")[3])
        if org != self._world.org:
            raise ApiRefusal(403, f"User does not belong to org: {org}")
        query = parse_qs(target.partition("?")[2], keep_blank_values=True)
        if query and self._world.api == "forge":
            raise ApiRefusal(400, "Query parameters are not supported")
        reply: Reply = getattr(self, f"_{route}")(words, query, body, struck)
        return reply

    # --- routes ----------------------------------------------------------------------------------------------------

    def _metadata(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        return _json(200, {"version": self._world.version, "buildTime": "2026-01-05T08:00:00Z"})

    def _tenant(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        return _json(200, self._world.tenant)

    def _sites(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        return self._list("site", list(self._world.sites.values()), query, struck)

    def _site(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        site = self._world.sites.get(words[1])
        if site is None:
            raise ApiRefusal(404, "Could not find Site with ID specified in URL")
        return _json(200, site)

    def _machines(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        world = self._world
        if not world.provider and not world.tenant["capabilities"]["targetedInstanceCreation"]:
            raise ApiRefusal(403, "Tenant does not have Targeted Instance Creation capability enabled")
        return self._list("machine", list(world.machines.values()), query, struck)

    def _machine(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        return _json(200, self._machine_of(words[1]))

    def _power(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        if not self._world.provider:
            raise ApiRefusal(403, "User does not have Provider Admin role with org")
        machine, change = self._machine_of(words[1]), _object(body)
        if machine["instanceId"] and not change.get("acknowledgeAttachedInstance"):
            raise ApiRefusal(400, "Machine has an Instance attached, acknowledgeAttachedInstance must be set")
        instance = self._world.instances.get(machine["instanceId"] or "")
        if instance is not None:
            self.store.reboot(instance)
        return _json(202, {"message": ""})

    def _instances(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        mine = [one for one in self._world.instances.values() if one["tenantId"] == self._world.tenant["id"]]
        return self._list("instance", mine, query, struck)

    def _instance(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        record = self._instance_of(words[1])
        asked = lists.relations(query)
        if _alters(struck):
            return _json(200, related(self._world, self._altered(record, struck), asked))
        return Reply(200, self.store.encoded(record, asked))

    def _update(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        record = self._instance_of(words[1])
        self.store.update(record, _object(body))
        return Reply(200, self.store.encoded(record))

    def _delete(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        self.store.terminate(self._instance_of(words[1]))
        return Reply(202, b"")

    def _interfaces(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        found = self._altered(self._instance_of(words[1]), struck)["interfaces"]
        return self._paged(
            lists.Page(found, 1, lists.LARGEST_SIZE, len(found), None), json.dumps(found).encode(), struck
        )

    def _history(self, words: list[str], query: lists.Query, body: bytes, struck: dict[str, Fault]) -> Reply:
        found = self._instance_of(words[1])["statusHistory"]
        return self._paged(
            lists.Page(found, 1, lists.LARGEST_SIZE, len(found), None), json.dumps(found).encode(), struck
        )

    # --- parts of them ---------------------------------------------------------------------------------------------

    def _instance_of(self, its_id: str) -> Record:
        record = self._world.instances.get(its_id)
        if record is None:
            raise ApiRefusal(404, "Could not find Instance with specified ID")
        if record["tenantId"] != self._world.tenant["id"]:
            raise ApiRefusal(403, "Instance does not belong to current Tenant")
        return record

    def _machine_of(self, its_id: str) -> Record:
        machine = self._world.machines.get(its_id)
        if machine is None:
            raise ApiRefusal(404, "Could not find Machine with specified ID")
        if not self._world.provider and machine["tenantId"] != self._world.tenant["id"]:
            raise ApiRefusal(403, "Tenant does not have an Instance on the Machine")
        return machine

    def _list(self, kind: str, records: list[Record], query: lists.Query, struck: dict[str, Fault]) -> Reply:
        asked = lists.relations(query) if kind == "instance" else []
        if "stale" in struck:
            records = struck["stale"].kept[kind]
        if "empty" in struck:
            records = []
        found = lists.select(kind, records, query)
        page = lists.cut(kind, found, query, self._rng, "shuffle" in struck, "one_page" in struck)
        if kind != "instance":
            texts = [json.dumps(one).encode() for one in page.records]
        elif "stale" in struck or _alters(struck):
            altered = [self._altered(one, struck) for one in page.records]
            texts = [json.dumps(related(self._world, one, asked)).encode() for one in altered]
        else:
            texts = [self.store.encoded(one, asked) for one in page.records]
        return self._paged(page, b"[" + b",".join(texts) + b"]", struck)

    def _paged(self, page: lists.Page, body: bytes, struck: dict[str, Fault]) -> Reply:
        reply = Reply(200, body)
        if "no_pagination" not in struck:
            reply.headers["X-Pagination"] = json.dumps(page.pagination)
        return reply

    def _altered(self, record: Record, struck: dict[str, Fault]) -> Record:
        """The record as the faults show it."""
        found = dict(record)
        if "empty_interfaces" in struck:
            found["interfaces"] = []
        if "shuffle_interfaces" in struck:
            found["interfaces"] = self._rng.sample(found["interfaces"], len(found["interfaces"]))
        return found


class Bucket:
    """So many requests at once, and so many a second after that."""

    def __init__(self, limit: Mapping[str, float]) -> None:
        self._per_s = float(limit.get("per_s", 10))
        self._burst = float(limit.get("burst", 30))
        self._left = self._burst
        self._at = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more is within the limit."""
        with self._lock:
            now = time.monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


def _route(method: str, words: list[str]) -> str | None:
    routes: dict[tuple[str, ...], str] = {
        ("GET", "metadata"): "metadata",
        ("GET", "tenant", "current"): "tenant",
        ("GET", "site"): "sites",
        ("GET", "site", "*"): "site",
        ("GET", "machine"): "machines",
        ("GET", "machine", "*"): "machine",
        ("PATCH", "machine", "*", "power"): "power",
        ("GET", "instance"): "instances",
        ("GET", "instance", "*"): "instance",
        ("PATCH", "instance", "*"): "update",
        ("DELETE", "instance", "*"): "delete",
        ("GET", "instance", "*", "interface"): "interfaces",
        ("GET", "instance", "*", "status-history"): "history",
    }
    one = words[:1] != ["tenant"] and len(words) > 1
    return routes.get((method, words[0], "*", *words[2:]) if one else (method, *words))


def _alters(struck: Mapping[str, Fault]) -> bool:
    return not struck.keys().isdisjoint(("empty_interfaces", "shuffle_interfaces"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body or b"{}")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ApiRefusal(400, "Failed to parse request data, potentially invalid structure")
    return content


def _json(status: int, content: object) -> Reply:
    return Reply(status, json.dumps(content).encode())
