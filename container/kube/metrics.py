# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Metrics in a registry of their own: nothing else of the process gets in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

UNKNOWN = "unknown"


class Made:
    """Makes metrics whose names begin with ``prefix``; those about the process begin with process_.

    ``what``: the program, of ``version``.
    """

    def __init__(self, prefix: str, what: str, version: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix
        ProcessCollector(registry=self.registry)
        build = Info(prefix + "build", f"the version of {what}", registry=self.registry)
        build.info({"version": version})

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """One that grows."""
        return Counter(self._prefix + name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """One that grows and shrinks."""
        return Gauge(self._prefix + name, text, labels, registry=self.registry)

    def seconds(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """How long something took."""
        return Histogram(self._prefix + name, text, labels, buckets=buckets, registry=self.registry)


def show_one(gauge: Gauge, names: Sequence[str], chosen: str) -> None:
    """1 for the label value that is chosen, 0 for all others."""
    for name in names:
        gauge.labels(name).set(1 if name == chosen else 0)


def version_of(file: Path) -> str:
    """The text of the file; the images' builder writes it."""
    try:
        return file.read_text(encoding="utf-8").strip() or UNKNOWN
    except OSError:
        return UNKNOWN
