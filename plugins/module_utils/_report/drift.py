# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is another thing than in the previous report. Pure."""

from __future__ import annotations

from typing import Any, Iterable, Mapping

# What of a device counts; each with its name for people.
FIELDS = (("mode", "mode"), ("verdict", "verdict"), ("pending", "pending mode"), ("driver", "driver"), ("name", "name"))
# Where these stand, nothing was read: a mode that is not known now has not changed for that.
NOT_READ = ("unknown", "old")


def drift(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One row for each difference of a device: host, address, what, before, now, and who asked for it."""
    old = {(one["host"], one["address"]): one for one in before}
    new = {(one["host"], one["address"]): one for one in now}
    rows = []
    for key in sorted({*old, *new}):
        was, is_now = old.get(key), new.get(key)
        if was is None and is_now is not None:
            if key[1]:
                rows.append(_row(key, "device", "not there", is_now["mode"] or "not known", is_now))
        elif is_now is None and was is not None:
            if key[1]:
                rows.append(_row(key, "device", was.get("mode") or "not known", "not in this report", was))
        elif was is not None and is_now is not None:
            rows += _differences(key, was, is_now)
    return rows


def _differences(key: tuple[str, str], was: Mapping[str, Any], is_now: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for field, words in FIELDS:
        then, today = was.get(field) or "", is_now.get(field) or ""
        if field == "verdict" and _is_about_use(was, is_now):
            continue
        if then == today or (field != "verdict" and is_now.get("verdict") in NOT_READ and not today):
            continue
        if field != "verdict" and field != "mode" and was.get("verdict") in NOT_READ and not then:
            continue  # it was not known before
        rows.append(_row(key, words, str(then) or "not known", str(today) or "not known", is_now))
    return rows


def _is_about_use(was: Mapping[str, Any], is_now: Mapping[str, Any]) -> bool:
    """A guest took the device, which is not read then, or gave it back in the mode in which it was."""
    is_held = bool(was.get("holders") or is_now.get("holders"))
    return is_held and was.get("mode") == is_now.get("mode") and "old" in (was.get("verdict"), is_now.get("verdict"))


def _row(key: tuple[str, str], what: str, before: str, now: str, device: Mapping[str, Any]) -> dict[str, str]:
    """``asked_by``: who asked for the device's last change. A mode that nobody asked for is the one to look at."""
    return {
        "host": key[0],
        "address": key[1],
        "what": what,
        "before": before,
        "now": now,
        "asked_by": str(device.get("asked_by") or ""),
        "asked_at": str(device.get("asked_at") or ""),
    }
