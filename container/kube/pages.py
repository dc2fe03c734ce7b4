# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a program's HTTP port has: /metrics, /healthz (the process works), /readyz (it does what it is for)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

METRICS = "/metrics"
TEXT = "text/plain; charset=utf-8"
# Whoever can reach a port can open connections and say nothing: of too many the oldest goes, and none lives for long.
CONNECTIONS_MAX = 16
LIFE_S = 10.0


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    kind: str = TEXT


@dataclass(frozen=True)
class Pages:
    """``is_alive``: False when only another process helps. ``problems``: why this is not ready, a sentence each."""

    registry: CollectorRegistry
    is_alive: Callable[[], bool]
    problems: Callable[[], Sequence[str]]

    def get(self, path: str) -> Page:
        """The page of a path; what follows a question mark does not count."""
        name = path.partition("?")[0]
        if name == METRICS:
            return Page(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        if name == "/healthz":
            return Page(200, b"ok\n") if self.is_alive() else Page(503, b"not ok\n")
        if name == "/readyz":
            problems = self.problems()
            return Page(503, "".join(f"{one}\n" for one in problems).encode()) if problems else Page(200, b"ok\n")
        return Page(404, b"not found\n")
