# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Moments as the API writes them."""

from __future__ import annotations

import calendar
import time

FORMAT = "%Y-%m-%dT%H:%M:%SZ"


def text(moment: float) -> str:
    """Seconds since the epoch as RFC 3339."""
    return time.strftime(FORMAT, time.gmtime(moment))


def seconds(found: str) -> float:
    """Seconds since the epoch; 0 for what is no such text."""
    try:
        return float(calendar.timegm(time.strptime(found, FORMAT)))
    except (ValueError, TypeError, OverflowError):
        return 0.0


def age(since: str, now: float) -> str:
    """'45s', '12m', '3h', '2d'; '-' where it is not known."""
    began = seconds(since)
    if not began:
        return "-"
    passed = max(0, int(now - began))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if passed >= 2 * size or (unit == "d" and passed >= size):
            return f"{passed // size}{unit}"
    return f"{passed}s"
