# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: which request goes wrong, the how-manieth time, and how.

A rule counts the requests that match it; it strikes on the ``nth`` and on the ``times - 1`` that follow, or on all
that follow with ``times: forever``.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import DataError

# What is done to the request, in place of an answer or before it.
ACTIONS = {
    "status": "answers `status` with `message` in the API's envelope, or without it (`envelope: false`)",
    "html": "answers a web page, with `status` (200)",
    "no_route": "answers as the router does for a path that it does not know",
    "rate_limit": "answers 429, with Retry-After if `seconds` is given",
    "expire_tokens": "lets every token that was given out expire, then goes on",
    "delay": "waits `seconds`, then goes on",
    "hang": "never answers",
    "reset": "resets the connection",
    "cut": "closes the connection in the middle of the answer",
    "broken": "answers half of the JSON",
    "stale": "lists what there was when the rule came into force",
    "empty": "lists nothing",
    "empty_interfaces": "leaves all interfaces out, as the API does when its database fails",
    "shuffle": "shuffles the list before it is cut into pages",
    "shuffle_interfaces": "shuffles the interfaces of each instance",
    "no_pagination": "leaves out the header X-Pagination",
    "one_page": "answers each page number with the first page",
}
# Other servers than the API: a rule for every path does not mean them.
TOKEN_PATHS = ("oidc/token", "ngc/token")
KEYS = ("action", "method", "path", "nth", "times", "status", "message", "envelope", "seconds")


@dataclass
class Fault:
    """One rule. ``path`` is a pattern for what follows the API's name: 'instance', 'instance/*', '*'."""

    action: str
    method: str = "*"
    path: str = "*"
    nth: int = 1
    times: int | None = 1
    status: int = 0
    message: str = ""
    envelope: bool = True
    seconds: float | None = None
    seen: int = 0
    # Of a rule `stale`: the lists as they were.
    kept: Any = None

    def strikes(self, method: str, path: str) -> bool:
        """Count a request that matches, and say whether it goes wrong."""
        if self.method not in ("*", method) or not fnmatch.fnmatchcase(path, self.path):
            return False
        if self.path == "*" and path in TOKEN_PATHS:
            return False
        self.seen += 1
        return self.seen >= self.nth and (self.times is None or self.seen < self.nth + self.times)


class Faults:
    """The rules in force; threads share them."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, rules: Iterable[Fault]) -> None:
        """Put rules in force."""
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Drop every rule."""
        with self._lock:
            self._rules = []

    def strike(self, method: str, path: str) -> dict[str, Fault]:
        """Action to rule of what goes wrong with this request."""
        with self._lock:
            return {rule.action: rule for rule in self._rules if rule.strikes(method, path)}


def parse_faults(raw: object) -> list[Fault]:
    """The rules of a file or a request. Raises DataError."""
    if not isinstance(raw, list):
        raise DataError("faults are a list of mappings")
    return [_parse(one) for one in raw]


def _parse(raw: object) -> Fault:
    if not isinstance(raw, Mapping):
        raise DataError(f"a fault is a mapping, not {raw!r}")
    if unknown := set(raw) - set(KEYS):
        raise DataError(f"fault: unknown key {sorted(map(str, unknown))}; use {', '.join(KEYS)}")
    action = raw.get("action")
    if action not in ACTIONS:
        raise DataError(f"fault: action {action!r} is unknown; use one of {', '.join(ACTIONS)}")
    status = _number(raw, "status", 200 if action == "html" else 500)
    if not 200 <= status <= 599:
        raise DataError(f"fault: status must be from 200 to 599, not {status}")
    seconds = raw.get("seconds")
    if seconds is not None and (not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0):
        raise DataError(f"fault: seconds must be a number from 0 up, not {seconds!r}")
    if action == "delay" and seconds is None:
        raise DataError("fault: delay needs seconds")
    return Fault(
        action=str(action),
        method=str(raw.get("method", "*")),
        path=str(raw.get("path", "*")),
        nth=_number(raw, "nth", 1),
        times=None if raw.get("times") == "forever" else _number(raw, "times", 1),
        status=status,
        message=str(raw.get("message", "the emulator was told to fail")),
        envelope=bool(raw.get("envelope", True)),
        seconds=seconds,
    )


def _number(raw: Mapping[str, Any], key: str, default: int) -> int:
    value = raw.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        also = " or forever" if key == "times" else ""
        raise DataError(f"fault: {key} must be a whole number from 1 up{also}, not {value!r}")
    return value
