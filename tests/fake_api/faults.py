# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between a client and its objects: refusals, a webhook that strips keys, and answers that do not end.

Every fault is for the requests of a verb whose path has a part, until ``clear`` or as often as ``times`` says. Refusals
and the webhook are the store's; how answers are sent matters only to the server (``fake_api.server``).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# How an answer is sent.
DRIP = "drip"  # a byte now and then, for ever: spaces before the JSON
DRIP_HEADERS = "drip headers"  # the same in the headers
HANG = "hang"  # nothing at all
PLAIN = "plain"  # neither chunked nor with a length: it ends with its connection
HUGE = "huge"  # more than anybody wants to read
SILENT = "silent"  # a watch that says nothing, no bookmarks either
BYTES = "bytes"  # a watch that sends single bytes, and never a whole event
EARLY = "early"  # a watch that ends after its first event


class Refusal(Exception):
    """The API's way to say no."""

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


class Request(NamedTuple):
    """What is asked, for those who count, deny or break requests."""

    verb: str  # get, list, watch, patch, create, delete
    path: str
    body: Any = None


@dataclass
class _Fault:
    verb: str
    part: str
    key: str
    times: int | None
    refusal: Refusal | None = None
    way: str = ""

    def meets(self, request: Request) -> bool:
        """True if it is for this request; then it has happened once more."""
        meets = request.verb == self.verb and self.part in request.path and _has(request.body, self.key)
        if not meets or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """Of one store."""

    def __init__(self) -> None:
        self._faults: list[_Fault] = []
        self._stripped: set[str] = set()

    def refuse(
        self,
        verb: str,
        part: str = "",
        status: int = 403,
        *,
        key: str = "",
        times: int | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        """Refuse requests; with ``key`` only patches that have that label, annotation or field."""
        words = {401: "Unauthorized", 403: f"{part or verb} is forbidden", 429: "too many requests", 413: "too large"}
        message = words.get(status, f"{key or part or verb} is not allowed here")
        self._faults.append(_Fault(verb, part, key, times, Refusal(status, message, retry_after_s)))

    def send(self, way: str, verb: str, part: str = "", *, times: int | None = None) -> None:
        """Let answers be sent in one of the ways above."""
        self._faults.append(_Fault(verb, part, "", times, way=way))

    def strip(self, *keys: str) -> None:
        """A webhook that takes these labels and annotations out of each patch, without a word."""
        self._stripped |= set(keys)

    def clear(self) -> None:
        """All is well from now on."""
        self._faults.clear()
        self._stripped.clear()

    # --- what the store and the server ask ----------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raises Refusal."""
        for fault in self._faults:
            if fault.refusal is not None and fault.meets(request):
                raise fault.refusal

    def way(self, request: Request) -> str:
        """How to send the answer; empty: as it should be."""
        return next((fault.way for fault in self._faults if fault.way and fault.meets(request)), "")

    def stripped(self, patch: Mapping[str, Any]) -> dict[str, Any]:
        """The patch, without what the webhook takes out."""
        left = copy.deepcopy(dict(patch))
        for kind in ("labels", "annotations"):
            for key in self._stripped & set(left.get("metadata", {}).get(kind) or {}):
                del left["metadata"][kind][key]
        return left


def _has(body: Any, key: str) -> bool:
    if not key:
        return True
    return isinstance(body, Mapping) and (key in body or any(_has(value, key) for value in body.values()))
