# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the bare-metal manager says about instances, asked as seldom as can be.

A list costs a request for each 100 instances, whatever the number of nodes; single instances are asked for only while
that is cheaper than a list. Whatever goes wrong is a CloudError, which says nothing about what exists.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ansible_collections.confidential.gpu.plugins.module_utils._bmm import existence
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Client
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.errors import ApiError, NotFound
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.pages import PAGE_SIZE
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError

from . import labels
from .config import Config
from .instance import Instance, Place

RELATIONS = ("InstanceType",)
# A site is not moved.
PLACE_S = 3600.0
# Between two lists, for each of their pages: an API that allows 10 requests a second has other clients, too.
SPACING_S = 0.2

# Reasons that can be those of one instance alone.
OF_ONE = ("NotAllowed", "NotFound", "OtherSite", "Refused")


class CloudError(Exception):
    """The API gave no answer that can be used. ``reason``: its kind, as one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Proof(NamedTuple):
    """Whether an instance is gone, which ``why`` proves, and the instance where there is one."""

    is_gone: bool
    why: str
    instance: Instance | None


class Cloud:
    """The instances of one tenant at one site. Threads share it; one asks at a time."""

    def __init__(
        self,
        config: Config,
        connect: Callable[[Config], Client],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._now = now
        self._lock = threading.RLock()
        self.config = config
        self._client = connect(config)
        self._begin()

    def _begin(self) -> None:
        self._listed: dict[str, Instance] = {}
        self._listed_at = float("-inf")
        self._seen: dict[str, tuple[Instance | None, float]] = {}  # asked for alone, since the list
        self._refusals: dict[str, CloudError] = {}
        self._asked = 0  # alone, since the list
        self._place: tuple[Place, float] | None = None

    def use(self, config: Config) -> None:
        """From now on by this config. What is known stays, unless it is about others."""
        client = self._connect(config)
        with self._lock:
            old, self._client = self._client, client
            about_others = (config.org, config.tenant, config.site) != (
                self.config.org,
                self.config.tenant,
                self.config.site,
            )
            self.config = config
            self._place = None
            if about_others:
                self._begin()
        old.close()

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    @property
    def count(self) -> int:
        """Instances of the last list."""
        return len(self._listed)

    # --- what is known ------------------------------------------------------------------------------------------------

    def all(self, max_age_s: float) -> Mapping[str, Instance]:
        """All instances by id, as they were at most so long ago. Raises CloudError."""
        with self._lock:
            if self._now() - self._listed_at > max_age_s:
                self._list()
            return {**self._listed, **{key: one for key, (one, _at) in self._seen.items() if one is not None}}

    def some(self, ids: Collection[str], names: Collection[str], max_age_s: float) -> list[Instance]:
        """Those of these instances that there are. Raises CloudError.

        Names: each instance of that name that is not terminated, because such a record keeps its name.
        """
        with self._lock:
            unknown = [one for one in ids if not self._is_known(one, max_age_s)]
            is_old = self._now() - self._listed_at > max_age_s
            asked_by_name = names if is_old or not set(names) <= {one.name for one in self._listed.values()} else ()
            calls = len(unknown) + len(asked_by_name)
            if calls and self._asked + calls > self._pages:
                if self._may_list:
                    self._list()
                calls = 0
            if calls:
                self._ask(unknown, asked_by_name)
            return self._chosen(ids, names)

    def _chosen(self, ids: Collection[str], names: Collection[str]) -> list[Instance]:
        found = {one.id: one for one in map(self._known, ids) if one is not None}
        if names:
            merged = {**self._listed, **{key: one for key, (one, _at) in self._seen.items() if one is not None}}
            found.update((key, one) for key, one in merged.items() if one.name in names and not one.is_terminated)
        return list(found.values())

    def refusal(self, its_id: str) -> CloudError | None:
        """Why nothing is known of an instance that was asked for."""
        return self._refusals.get(its_id)

    @property
    def _pages(self) -> int:
        return max(1, math.ceil(len(self._listed) / PAGE_SIZE)) if self._listed_at > float("-inf") else 0

    @property
    def _may_list(self) -> bool:
        return self._now() - self._listed_at >= self._pages * SPACING_S

    def _known(self, one: str) -> Instance | None:
        return self._seen[one][0] if one in self._seen else self._listed.get(one)

    def _is_known(self, one: str, max_age_s: float) -> bool:
        if one in self._seen and self._now() - self._seen[one][1] <= max_age_s:
            return True
        return one in self._listed and self._now() - self._listed_at <= max_age_s

    def _ask(self, ids: Collection[str], names: Collection[str]) -> None:
        for one in ids:
            self._asked += 1
            self._refusals.pop(one, None)
            try:
                self._seen[one] = (self._one(one), self._now())
            except CloudError as error:
                # It says nothing about the others.
                if error.reason not in OF_ONE:
                    raise
                self._refusals[one] = error
        for name in names:
            self._asked += 1
            for found in self._query([("siteId", self.config.site), ("name", name)]):
                self._seen[found.id] = (found, self._now())

    def _one(self, its_id: str) -> Instance | None:
        with _explained():
            try:
                record = self._client.instance(its_id, RELATIONS)
            except NotFound:
                return None
        return self._checked(Instance.of(record))

    def _checked(self, found: Instance) -> Instance:
        if (found.site, found.tenant) != (self.config.site, self.config.tenant):
            raise CloudError(
                "OtherSite",
                f"Instance {found.id} is of site {found.site or 'unknown'} and tenant {found.tenant or 'unknown'}, not "
                f"of {self.config.site} and {self.config.tenant}. Check siteId, tenantId and the node's provider id.",
            )
        return found

    def _list(self) -> None:
        began = self._now()
        found = self._query([("siteId", self.config.site)])
        self._listed = {one.id: one for one in found}
        self._listed_at = began
        self._seen, self._refusals, self._asked = {}, {}, 0

    def _query(self, query: list[tuple[str, str]]) -> list[Instance]:
        """Filters are looked at again: not every server knows them."""
        with _explained():
            records = self._client.instances(query, RELATIONS, cut)
        found = [Instance.of(one) for one in records]
        return [one for one in found if (one.site, one.tenant) == (self.config.site, self.config.tenant)]

    # --- what is asked each time --------------------------------------------------------------------------------------

    def proof(self, its_id: str) -> Proof:
        """Whether an instance is gone for sure. Raises CloudError when that cannot be told."""
        with self._lock:
            with _explained():
                found = existence.look(self._client, its_id, self.config.tenant, self.config.site)
            instance = self._checked(Instance.of(found.instance)) if found.instance is not None else None
            if instance is None:  # one that was asked for like this lacks its type
                self._seen[its_id] = (None, self._now())
            return Proof(found.gone, found.why, instance)

    def place(self) -> Place:
        """Zone and region of the site, as label values. Raises CloudError."""
        with self._lock:
            if self._place is None or self._now() - self._place[1] > PLACE_S:
                self._place = (self._asked_place(), self._now())
            return self._place[0]

    def _asked_place(self) -> Place:
        config = self.config
        if config.zone and config.region:
            return Place(config.zone, config.region)
        with _explained():
            site = self._client.site(config.site)
        name = site.get("name")
        zone = labels.value_of(name) if isinstance(name, str) else ""
        return Place(config.zone or zone or labels.value_of(config.site), config.region or _region(site))


def cut(record: dict[str, Any]) -> dict[str, Any]:
    """What ``Instance.of`` reads of a record: ten thousand whole ones are hundreds of MiB."""
    kept = ("id", "name", "status", "siteId", "tenantId", "instanceTypeId", "instanceType", "interfaces", "autoNetwork")
    return {key: record[key] for key in kept if key in record}


def _region(site: Mapping[str, Any]) -> str:
    """Country and state of the site, as far as they are told."""
    location = site.get("location")
    if not isinstance(location, Mapping):
        return ""
    parts = [location.get("country"), location.get("state")]
    return labels.value_of("-".join(one for one in parts if isinstance(one, str) and one)).lower()


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors of the API's client as CloudError."""
    try:
        yield
    except ExplainedError as error:
        raise _as_error(error) from None


def _as_error(error: ExplainedError) -> CloudError:
    name = type(error).__name__ if isinstance(error, ApiError) else "NotPossible"
    return CloudError(name, f"{error.cause} {error.remedy}")
