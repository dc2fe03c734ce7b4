# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Versions and quantities as Kubernetes writes them."""

from __future__ import annotations

import re
from decimal import Decimal

_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_SUFFIXES.update({"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60})


def version(text: str) -> tuple[int, ...]:
    """The numbers that a version begins with, the last zeros left out: 'v1.36.3+k3s1' is (1, 36, 3). () if none."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    numbers = [int(part) for part in match.group(1).split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def older(one: str, other: str) -> bool:
    """Whether the first version is known to be older than the second."""
    return bool(version(one)) and bool(version(other)) and version(one) < version(other)


def quantity(value: object) -> Decimal:
    """'16Gi', '500m', 8 as a number. What is no quantity is 0."""
    match = re.match(r"^(\d+(?:\.\d+)?)(m|[KMGTPE]i|[kMGTPE])?$", str(value).strip())
    if not match:
        return Decimal(0)
    number, suffix = Decimal(match.group(1)), match.group(2) or ""
    return number / 1000 if suffix == "m" else number * _SUFFIXES[suffix]


def seconds(text: object) -> float:
    """A duration of Go's, such as 20m0s, in seconds; 0 where it is none."""
    found = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", str(text))
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1, "ms": 0.001}[unit] for number, unit in found)
