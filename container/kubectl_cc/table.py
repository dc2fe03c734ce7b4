# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The nodes and their modes, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from . import moment
from .node import Node
from .plan import natural

COLUMNS = ("NODE", "DESIRED", "OBSERVED", "READY", "PENDING", "REASON", "SINCE")
REASON_CHARS = 60


def pending(node: Node) -> str:
    """What is still to come, in a word or two; empty: nothing is."""
    claim = node.claim
    if claim is not None and claim.stage == "hold":
        return f"to {claim.mode}, when its pods end"
    if node.changing:
        return f"to {node.changing}"
    if node.has_failed:
        return "another attempt"
    if not node.observed:
        return "first reading"
    if node.desired and node.desired != node.observed:
        return f"to {node.desired}"
    return "release" if claim is not None and claim.is_open else ""


def is_ready(node: Node) -> bool:
    """True when it is in the mode asked for and takes pods."""
    return node.in_service


def row(node: Node) -> dict[str, Any]:
    """One node, for machines."""
    return {
        "node": node.name,
        "desired": node.desired or None,
        "observed": node.observed or None,
        "ready": is_ready(node),
        "pending": pending(node) or None,
        "reason": reason(node) or None,
        "since": node.since or None,
    }


def reason(node: Node) -> str:
    """Why it is not ready, in the words of whoever knows."""
    if node.reason:
        return node.reason
    if node.kubelet:
        return node.kubelet
    return "it is cordoned" if node.unschedulable else ""


def rows(nodes: Iterable[Node]) -> list[dict[str, Any]]:
    """All, in the order of their names."""
    return [row(node) for node in sorted(nodes, key=lambda node: natural(node.name))]


def lines(found: Sequence[dict[str, Any]], now: float, wide: bool = False) -> list[str]:
    """For people; ``wide``: reasons in full."""
    cells = [COLUMNS, *(_cells(one, now, wide) for one in found)]
    widths = [max(len(line[number]) for line in cells) for number in range(len(COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cells(one: dict[str, Any], now: float, wide: bool) -> tuple[str, ...]:
    words = " ".join((one["reason"] or "-").split())
    short = words if wide or len(words) <= REASON_CHARS else words[: REASON_CHARS - 3] + "..."
    return (
        one["node"],
        one["desired"] or "-",
        one["observed"] or "-",
        "yes" if one["ready"] else "no",
        one["pending"] or "-",
        short,
        moment.age(one["since"] or "", now),
    )
