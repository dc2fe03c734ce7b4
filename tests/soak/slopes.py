# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What grows with time: least squares over samples, and the most that each may grow.

The limit of a slope has two parts. ``per_hour`` is growth that is allowed for ever. ``noise`` is by how much two
samples differ where nothing grows: in a run of a tenth of an hour it may look like ten times as much in an hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HOUR_S = 3600.0
# Caches fill, modules are imported, the allocator takes its arenas: none of it is growth.
WARM_UP = 0.1
# Fewer samples than these say nothing.
SAMPLES_MIN = 5


@dataclass(frozen=True)
class Quantity:
    """What is sampled. ``noise`` and ``per_hour`` in its unit; ``why``: the reason of the limit."""

    name: str
    unit: str
    noise: float
    per_hour: float
    why: str


@dataclass(frozen=True)
class Row:
    """One quantity after the run. ``slope`` and ``limit`` per hour."""

    quantity: Quantity
    first: float
    last: float
    slope: float
    limit: float

    @property
    def kept(self) -> bool:
        """Whether it does not grow too fast."""
        return self.slope <= self.limit


def slope_per_hour(times_s: Sequence[float], values: Sequence[float]) -> float:
    """Of the line through the samples, by least squares. Raises ValueError: too few, or all at one moment."""
    if len(times_s) != len(values) or len(times_s) < SAMPLES_MIN:
        raise ValueError(f"{len(values)} samples; {SAMPLES_MIN} and more tell a slope")
    middle, mean = sum(times_s) / len(times_s), sum(values) / len(values)
    spread = sum((moment - middle) ** 2 for moment in times_s)
    if spread == 0:
        raise ValueError("all samples are of one moment")
    common = sum((moment - middle) * (value - mean) for moment, value in zip(times_s, values, strict=True))
    return common / spread * HOUR_S


def rows(quantities: Sequence[Quantity], times_s: Sequence[float], samples: Sequence[Mapping[str, float]]) -> list[Row]:
    """A row for each quantity; the warm-up, the first tenth of the time from 0 on, is left out. Raises ValueError."""
    begin = (times_s[-1] if times_s else 0.0) * WARM_UP
    kept = [(moment, sample) for moment, sample in zip(times_s, samples, strict=True) if moment >= begin]
    moments = [moment for moment, _sample in kept]
    found = []
    for one in quantities:
        values = [sample[one.name] for _moment, sample in kept]
        slope = slope_per_hour(moments, values)
        hours = (moments[-1] - moments[0]) / HOUR_S
        found.append(Row(one, values[0], values[-1], slope, one.per_hour + one.noise / hours))
    return found


def table(found: Sequence[Row]) -> list[str]:
    """A line for each."""
    width = max(len(row.quantity.name) for row in found)
    lines = [f"{'':{width}} {'first':>10} {'last':>10} {'per hour':>10} {'limit':>10} {'unit':5} {'':6} because"]
    for row in found:
        numbers = f"{row.first:10.2f} {row.last:10.2f} {row.slope:+10.2f} {row.limit:10.2f}"
        mark = "ok" if row.kept else "GROWS"
        lines.append(f"{row.quantity.name:{width}} {numbers} {row.quantity.unit:5} {mark:6} {row.quantity.why}")
    return lines
