# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""List, then watch, for ever: what a collection holds, told anew after each change.

Every failure is survived: the server's end of a watch and a broken connection are followed by another watch from where
the last one ended, an expired resource version (410) and an answer that is not the API's by another list, and anything
that repeats is waited for longer and longer, with jitter, so that a thousand nodes do not come back at the same moment.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .kube import JSON, NOT_AN_OBJECT, ApiError, Kube, Stream

# The server ends a watch after this time; a random part keeps nodes apart.
WATCH_S = (2400, 3600)
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# A right that is missing is seldom given, and may be missing for ever.
FORBIDDEN_S = (60.0, 600.0)


@dataclass(frozen=True)
class Resource:
    """What to watch."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    accept_list: str = JSON
    accept_one: str = JSON


class Delay:
    """Seconds to wait after each failure in a row: doubled each time, and half of it random."""

    def __init__(self, first_s: float = FIRST_DELAY_S, longest_s: float = LONGEST_DELAY_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def reset(self) -> None:
        """After a success."""
        self._failures = 0

    def next(self) -> float:
        """After a failure."""
        whole = min(self._longest_s, self._first_s * 2 ** min(self._failures, 30))
        self._failures += 1
        return float(whole * random.uniform(0.5, 1.0))


class Watch:
    """A thread that tells what the collection holds: ``told`` gets all objects by uid or name after each change.

    ``failed`` gets each ApiError; it is tried again until ``end``, after ``delay``, or after ``forbidden`` where that
    is given and the right is missing.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        told: Callable[[list[dict[str, Any]]], None],
        failed: Callable[[ApiError], None],
        delay: Delay | None = None,
        forbidden: Delay | None = None,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._told = told
        self._failed = failed
        self._delay = delay or Delay()
        self._forbidden = forbidden
        self._ended = threading.Event()
        self._stream: Stream | None = None
        self._objects: dict[str, dict[str, Any]] = {}
        self._version = ""
        self._thread = threading.Thread(target=self._run, name=f"watch {resource.path}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Tell no more; the thread ends by itself."""
        self._ended.set()
        stream = self._stream
        if stream is not None:
            stream.end()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
            except ApiError as error:
                self._survive(error)
            except NOT_AN_OBJECT as error:  # JSON, and yet not what an API server says
                self._version = ""
                words = f"watch {self._resource.path}: not an API server's answer: {type(error).__name__} {error}"
                self._survive(ApiError(0, words))

    def _survive(self, error: ApiError) -> None:
        if self._ended.is_set():
            return
        if error.is_gone:
            self._version = ""
        else:
            self._failed(error)
        delay = self._forbidden if self._forbidden is not None and error.is_forbidden else self._delay
        self._ended.wait(max(delay.next(), error.retry_after_s))

    def _list(self) -> None:
        found = self._kube.request("GET", self._resource.path, self._resource.query, accept=self._resource.accept_list)
        self._objects = {_key(one): one for one in found.get("items") or []}
        self._version = found["metadata"].get("resourceVersion", "")
        self._tell()

    def _follow(self) -> None:
        query = {
            **self._resource.query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(random.randint(*WATCH_S)),
        }
        stream = self._kube.stream(self._resource.path, query, self._resource.accept_one)
        self._stream = stream
        if self._ended.is_set():
            stream.close()
            return
        count = 0
        with contextlib.closing(stream):
            for event in stream.events():
                self._take(event)
                count += 1
        if not count:  # a server that ends each watch at once is no reason to ask without a pause
            self._ended.wait(self._delay.next())

    def _take(self, event: Mapping[str, Any]) -> None:
        kind, about = event["type"], event["object"]
        if kind == "ERROR":
            raise ApiError(int(about.get("code", 0)), str(about.get("message", about)))
        self._delay.reset()
        self._version = about["metadata"].get("resourceVersion", self._version)
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self._objects.pop(_key(about), None)
        else:
            self._objects[_key(about)] = about
        self._tell()

    def _tell(self) -> None:
        if not self._ended.is_set():
            self._told(list(self._objects.values()))


def _key(found: Mapping[str, Any]) -> str:
    metadata = found["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace', '')}/{metadata['name']}")
