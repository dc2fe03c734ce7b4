# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""List, then watch, for ever: what a collection holds, told again after each change.

Every watch begins with a list, which is the truth whatever was seen before: also after etcd was restored, when an old
resource version would be taken and no change be told until the new history has grown past it. Every failure is
survived; anything that repeats is waited for longer and longer, with jitter, so that a thousand nodes do not come back
at the same moment.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .client import JSON, LIST_LIMIT, LIST_TIMEOUT_S, ApiError, Kube, Object, Stream, whole
from .delay import Delay

# The server ends a watch after this time; a random part keeps nodes apart.
WATCH_S = (2400, 3600)
# A right that is missing is seldom given, and may be missing for ever.
FORBIDDEN_S = (60.0, 600.0)
# A watch that ended earlier counts as a failure, however it ended.
LASTING_S = 10.0
# What a step may take beyond its own bound: names are looked up without one, and the machine may be busy.
SLACK_S = 60.0


@dataclass(frozen=True)
class Resource:
    """What to watch. ``trim``: what of an object is kept; ``page``: so many objects are asked for at once.

    ``name``: the one object that ``query`` selects. It is read by its name, which needs no right to list.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    accept_list: str = JSON
    accept_one: str = JSON
    trim: Callable[[Object], Object] = whole
    page: int = LIST_LIMIT
    name: str = ""


class Watch:
    """A thread that tells what the collection holds: ``told`` gets all objects after each change.

    Its second argument is True for what comes from a list. Where ``each`` is given, ``told`` gets lists only, and
    ``each`` the kind (ADDED, MODIFIED, DELETED) and the object of each event: work that does not grow with the
    collection. ``failed`` gets each ApiError; it is tried again until ``end``, after ``delay``, or after ``forbidden``
    where that is given and the right is missing.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        told: Callable[[list[Object], bool], None],
        failed: Callable[[ApiError], None],
        delay: Delay | None = None,
        forbidden: Delay | None = None,
        now: Callable[[], float] = time.monotonic,
        each: Callable[[str, Object], None] | None = None,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._told = told
        self._each = each
        self._failed = failed
        self._delay = delay or Delay()
        self._forbidden = forbidden
        self._now = now
        self._ended = threading.Event()
        self._stream: Stream | None = None
        self._objects: dict[str, Object] = {}  # empty where each event is told alone
        self._version = ""
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.path}", daemon=True)
        self.heard_at = now()  # when the API last said something: what is known is that old
        self._due_at = now() + SLACK_S

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Tell no more; the thread ends by itself."""
        self._ended.set()
        stream = self._stream
        if stream is not None:
            stream.end()

    @property
    def has_ended(self) -> bool:
        """True when it was asked to."""
        return self._ended.is_set()

    @property
    def is_alive(self) -> bool:
        """False when its thread is gone, or hangs: it has been due for the next thing, even an error, for long."""
        return self.has_ended or (self._thread.is_alive() and self._now() < self._due_at)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._list()
                self._follow()
            except ApiError as error:
                self._survive(error)
            except Exception as error:  # noqa: BLE001  (JSON that no API server says; and a fault of ours ends no watch)
                self._survive(ApiError(0, f"watch {self._resource.path}: {type(error).__name__} in what was answered"))

    def _is_due_in(self, seconds: float) -> None:
        self._due_at = self._now() + seconds + SLACK_S

    def _heard(self) -> None:
        self.heard_at = self._now()

    def _survive(self, error: ApiError) -> None:
        if self._ended.is_set():
            return
        if not error.is_gone:
            with contextlib.suppress(Exception):  # whoever listens: the watch goes on
                self._failed(error)
        delay = self._forbidden if self._forbidden is not None and error.is_forbidden else self._delay
        self._wait(max(delay.next(), error.retry_after_s))

    def _wait(self, seconds: float) -> None:
        self._is_due_in(seconds)
        self._ended.wait(seconds)

    def _list(self) -> None:
        self._is_due_in(LIST_TIMEOUT_S)
        found, version = self._one() if self._resource.name else self._all()
        self._heard()
        self._objects = {} if self._each is not None else {_key(one): one for one in found}
        self._version = version
        self._tell(found, fresh=True)

    def _all(self) -> tuple[list[Object], str]:
        about = self._resource
        return self._kube.items(about.path, about.query, about.accept_list, about.trim, about.page)

    def _one(self) -> tuple[list[Object], str]:
        """Without a version to watch from: that of an object may be too old. Without one, a watch begins with the
        object as it is.
        """
        about = self._resource
        try:
            found = self._kube.request("GET", f"{about.path}/{about.name}", accept=about.accept_one)
        except ApiError as error:
            if error.status != 404:
                raise
            return [], ""
        return [about.trim(found)], ""

    def _follow(self) -> None:
        query = {
            **self._resource.query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_S)),
        }
        if self._version:
            query["resourceVersion"] = self._version
        self._is_due_in(LIST_TIMEOUT_S)
        stream = self._kube.stream(self._resource.path, query, self._resource.accept_one)
        self._stream = stream
        if self._ended.is_set():
            stream.close()
            return
        began = self._now()
        self._is_due_in(self._kube.silence_s)
        try:
            with contextlib.closing(stream):
                for event in stream.events():
                    self._heard()
                    self._is_due_in(self._kube.silence_s)
                    self._take(event)
        finally:
            if self._now() - began >= LASTING_S:
                self._delay.reset()
        self._wait(self._delay.next())

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, about = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(about.get("code", 0)), str(about.get("message", ""))[:500])
        version = about["metadata"].get("resourceVersion", self._version)
        if _is_before(version, self._version):
            raise ApiError(410, f"watch {self._resource.path}: resource versions went back: etcd was restored")
        self._version = version
        if kind == "BOOKMARK":
            return
        about = self._resource.trim(about)
        if self._each is not None:
            if not self._ended.is_set():
                self._each(kind, about)
            return
        if kind == "DELETED":
            self._objects.pop(_key(about), None)
        else:
            self._objects[_key(about)] = about
        self._tell(list(self._objects.values()), fresh=False)

    def _tell(self, objects: list[Object], fresh: bool) -> None:
        if not self._ended.is_set():
            self._told(objects, fresh)


class Kept:
    """A watch that is begun again when its thread dies or hangs. ``make`` gets this, and returns one not begun yet."""

    def __init__(self, make: Callable[[Kept], Watch]) -> None:
        self._make = make
        self._watch = make(self)
        self._watch.start()

    def revive(self) -> bool:
        """Begin it again if it has to be; True if so."""
        if self._watch.is_alive:
            return False
        old, new = self._watch, self._make(self)
        old.end()
        new.heard_at = old.heard_at
        self._watch = new
        new.start()
        return True

    def end(self) -> None:
        """Tell no more."""
        self._watch.end()

    @property
    def has_ended(self) -> bool:
        """True when it was asked to."""
        return self._watch.has_ended

    @property
    def is_alive(self) -> bool:
        """False until it is begun again."""
        return self._watch.is_alive

    @property
    def heard_at(self) -> float:
        """When the API last said something."""
        return self._watch.heard_at


def _key(found: Mapping[str, Any]) -> str:
    metadata = found["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace', '')}/{metadata['name']}")


def _is_before(version: str, known: str) -> bool:
    """Resource versions are etcd's revisions; what is no number is not compared."""
    return version.isdecimal() and known.isdecimal() and int(version) < int(known)
