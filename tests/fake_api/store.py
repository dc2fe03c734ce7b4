# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Objects with resource versions, merge patches with preconditions, and a history that watches follow and that ends."""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .faults import Faults, Refusal, Request
from .patches import applied

__all__ = ["Change", "Object", "Refusal", "Request", "Store"]
Object = dict[str, Any]


class Change(NamedTuple):
    """One entry of the history."""

    version: int
    kind: str  # ADDED, MODIFIED, DELETED
    collection: str
    found: Object


class Snapshot(NamedTuple):
    """All objects at a version."""

    version: int
    objects: dict[tuple[str, str], Object]


class Store:
    """Collections of objects by the path of their collection: /api/v1/nodes, /api/v1/namespaces/x/pods."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.version = 100
        self.compacted = 100
        self.objects: dict[tuple[str, str], Object] = {}
        self.history: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self.requests: list[Request] = []
        self.faults = Faults()
        self.people: dict[str, str] = {}  # token to name, for reviews
        self.readers: set[str] = set()  # who may read metrics
        # Called with each request before it is served; raises Refusal to deny it.
        self.before: Callable[[Request], None] = lambda request: None
        # Called with collection, object before (None: it is new) and after a change; raises Refusal to deny it.
        self.rules: list[Callable[[str, Object | None, Object], None]] = []
        # Called when one was carried out and is not answered yet.
        self.after: Callable[[], None] = lambda: None

    # --- what clients do ----------------------------------------------------------------------------------------------

    def asked(self, verb: str, path: str, body: Any = None) -> None:
        """Note a request, or refuse it."""
        request = Request(verb, path, copy.deepcopy(body))
        self.requests.append(request)
        self.before(request)
        self.faults.check(request)

    def get(self, collection: str, name: str) -> Object:
        with self.lock:
            found = self.objects.get((collection, name))
            if found is None:
                raise Refusal(404, f"{collection}/{name} not found")
            return copy.deepcopy(found)

    def list(self, collection: str, field: Mapping[str, str]) -> tuple[list[Object], int]:
        with self.lock:
            found = [
                one for (where, _name), one in self.objects.items() if within(where, collection) and fits(one, field)
            ]
            return copy.deepcopy(found), self.version

    def create(self, collection: str, found: Object) -> Object:
        with self.changed:
            name = found["metadata"]["name"]
            if (collection, name) in self.objects:
                raise Refusal(409, f"{collection}/{name} exists")
            made = copy.deepcopy(found)
            self.version += 1
            made["metadata"].setdefault("uid", f"uid-{self.version}")
            self._check(collection, None, made)
            self._store("ADDED", collection, made)
            return copy.deepcopy(made)

    def patch(self, collection: str, name: str, patch: Mapping[str, Any]) -> Object:
        """A JSON merge patch (RFC 7386); a resource version in it is a precondition."""
        with self.changed:
            found = self.get(collection, name)
            patch = self.faults.stripped(patch)
            _check_version(found, patch)
            made = merged(found, patch)
            made["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
            return self._changed(collection, found, made)

    def json_patch(self, collection: str, name: str, operations: Sequence[Mapping[str, Any]]) -> Object:
        """A JSON patch (RFC 6902): all of it or, when a test in it fails, nothing."""
        with self.changed:
            found = self.get(collection, name)
            return self._changed(collection, found, applied(found, operations))

    def _changed(self, collection: str, found: Object, made: Object) -> Object:
        if made == found:
            return found  # nothing changes, no new version
        self._check(collection, found, made)
        self.version += 1
        self._store("MODIFIED", collection, made)
        return copy.deepcopy(made)

    def _check(self, collection: str, before: Object | None, after: Object) -> None:
        for rule in self.rules:
            rule(collection, before, after)

    def replace(self, collection: str, name: str, whole: Object) -> Object:
        """The whole object; a resource version in it is a precondition."""
        with self.changed:
            found = self.get(collection, name)
            _check_version(found, whole)
            made = copy.deepcopy(whole)
            made["metadata"] = {**made["metadata"], "uid": found["metadata"]["uid"]}
            self.version += 1
            self._store("MODIFIED", collection, made)
            return copy.deepcopy(made)

    def delete(self, collection: str, name: str, preconditions: Mapping[str, str] | None = None) -> None:
        with self.changed:
            found = self.get(collection, name)
            for key, wanted in (preconditions or {}).items():
                if wanted != found["metadata"][key]:
                    raise Refusal(409, f"the object has the {key} {found['metadata'][key]}, not {wanted}")
            self.version += 1
            del self.objects[(collection, name)]
            self._note("DELETED", collection, found)

    def since(self, collection: str, version: int) -> Sequence[Change]:
        """The changes of a collection after a version. Raises 410 when the history does not go back so far."""
        with self.lock:
            if version < self.compacted:
                raise Refusal(410, f"too old resource version: {version} ({self.compacted})")
            return [one for one in self.history if one.version > version and within(one.collection, collection)]

    # --- what goes on behind ------------------------------------------------------------------------------------------

    def compact(self) -> None:
        """Forget the history."""
        with self.changed:
            self.version += 1
            self.compacted = self.version
            self.history.clear()
            self.changed.notify_all()

    def snapshot(self) -> Snapshot:
        """What a backup of etcd holds."""
        with self.lock:
            return Snapshot(self.version, copy.deepcopy(self.objects))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a backup: resource versions, too. A watch from a later one is taken and hears nothing."""
        with self.changed:
            self.version, self.objects = snapshot.version, copy.deepcopy(snapshot.objects)
            self.compacted = self.version
            self.history.clear()
            self.changed.notify_all()

    def _store(self, kind: str, collection: str, made: Object) -> None:
        made["metadata"]["resourceVersion"] = str(self.version)
        self.objects[(collection, made["metadata"]["name"])] = made
        self._note(kind, collection, made)

    def _note(self, kind: str, collection: str, found: Object) -> None:
        kept = copy.deepcopy(found)
        kept["metadata"]["resourceVersion"] = str(self.version)
        change = Change(self.version, kind, collection, kept)
        self.history.append(change)
        self.changed.notify_all()
        for listener in list(self.listeners):
            listener(change)


def _check_version(found: Object, given: Mapping[str, Any]) -> None:
    wanted = given.get("metadata", {}).get("resourceVersion")
    if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
        raise Refusal(409, "the object has been modified; please apply your changes to the latest version")


def within(where: str, collection: str) -> bool:
    """True for the collection itself; /api/v1/pods holds the pods of all namespaces."""
    if where == collection:
        return True
    kind = collection.rpartition("/")[2]
    return collection == f"/api/v1/{kind}" and where.startswith("/api/v1/namespaces/") and where.endswith("/" + kind)


def fits(found: Object, field: Mapping[str, str]) -> bool:
    """True when each selected field has its value."""
    for path, value in field.items():
        at: Any = found
        for part in path.split("."):
            at = (at or {}).get(part)
        if at != value:
            return False
    return True


def merged(found: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(found) if isinstance(found, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), value)
    return made


def labelled(found: Object, selector: str) -> bool:
    """True when a label selector selects it: a, !a, a=b, a!=b, a in (b,c), with commas between."""
    labels = found["metadata"].get("labels") or {}
    return all(_meets(labels, one.strip()) for one in re.split(r",(?![^(]*\))", selector) if one.strip())


def _meets(labels: Mapping[str, str], one: str) -> bool:
    among = re.fullmatch(r"(\S+) in \((.*)\)", one)
    if among:
        return labels.get(among[1]) in [value.strip() for value in among[2].split(",")]
    if "!=" in one:
        key, value = one.split("!=")
        return labels.get(key) != value
    if "=" in one:
        key, value = re.split("==?", one, maxsplit=1)
        return labels.get(key) == value
    return (one[1:] not in labels) if one.startswith("!") else one in labels


def selection(text: str) -> dict[str, str]:
    """A field selector."""
    return dict(part.split("=", 1) for part in text.split(",") if part)


def metadata_only(found: Object) -> Object:
    """PartialObjectMetadata."""
    return {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": found["metadata"]}
