# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Limits, what was measured for them, and the one way in which every benchmark here tells of them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

OUTPUT = Path(__file__).resolve().parent.parent / "output"


@dataclass(frozen=True)
class Limit:
    """One limit, what was measured for it and from what, and what the reference needs where it is known."""

    what: str
    measured: float
    most: float
    unit: str
    basis: str
    reference: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it is."""
        return self.measured <= self.most


def conclude(name: str, limits: Sequence[Limit], figures: object) -> int:
    """Print the table, write every figure to tests/output/bench-NAME.json; 0 when every limit is kept, or 1."""
    print("\n".join(table(limits)))
    about = {"processors": os.cpu_count(), "load": os.getloadavg()[0], "python": platform.python_version()}
    about["ansible-core"] = version("ansible-core")
    rows = [{**asdict(limit), "kept": limit.kept} for limit in limits]
    OUTPUT.mkdir(parents=True, exist_ok=True)
    path = OUTPUT / f"bench-{name}.json"
    path.write_text(json.dumps({"about": about, "limits": rows, "figures": figures}, indent=2) + "\n")
    print(f"every figure: tests/output/{path.name}")
    return 0 if all(limit.kept for limit in limits) else 1


def table(limits: Sequence[Limit]) -> list[str]:
    """A line for each."""
    width = max(len(limit.what) for limit in limits)
    lines = [f"{'':{width}} {'measured':>10} {'limit':>10} {'reference':>10} {'unit':6} {'':6} from"]
    for limit in limits:
        reference = "" if limit.reference is None else f"{limit.reference:.2f}"
        numbers = f"{limit.measured:10.3f} {limit.most:10.2f} {reference:>10} {limit.unit:6}"
        lines.append(f"{limit.what:{width}} {numbers} {'ok' if limit.kept else 'MISSED':6} {limit.basis}")
    return lines
