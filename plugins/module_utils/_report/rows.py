# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""From what hosts and a cluster answered to the rows of the report. Pure.

A device is told as protected only where its mode was read just now, from the device. What could not be read is a row,
too, with the last thing that is known, and since when. A host that did not answer has a row at least.
"""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING, Any, Iterable, Mapping, NamedTuple, Optional, Sequence

from .cluster import COMPONENT

if TYPE_CHECKING:
    from .._core.answers import DeviceEntry, HolderEntry, RegisteredInfo

PROTECTED, UNPROTECTED, PENDING, OLD, UNKNOWN = "protected", "unprotected", "pending", "old", "unknown"
VERDICTS = (PROTECTED, UNPROTECTED, PENDING, OLD, UNKNOWN)
CONFIDENTIAL = ("on", "ppcie")
MODES = ("off", "on", "devtools", "ppcie", "invalid", "unsupported")
ANSIBLE, CC_MANAGER, PREVIOUS = "this report", "operand", "previous report"
# By how much the API server's clock may be before the controller's.
CLOCKS_S = 300
Row = dict[str, Any]
SEVERITY = {PROTECTED: 0, PENDING: 1, UNPROTECTED: 2, OLD: 3, UNKNOWN: 4}


class Answers(NamedTuple):
    """What is known of one host; empty where nothing is. The first three are results of modules, as registered.

    ``node``: as ``cluster.node_facts`` has it. ``before``: the host's devices in the previous report.
    """

    host: str
    reading: RegisteredInfo
    readiness: Mapping[str, Any]
    trails: Mapping[str, Any]
    node: Mapping[str, Any]
    provider_id: str
    before: Sequence[Mapping[str, Any]]
    in_inventory: bool = True


def seconds_of(moment: str) -> Optional[float]:
    """Since the epoch; None for what is no moment in UTC."""
    try:
        return float(calendar.timegm(time.strptime(moment.partition(".")[0].rstrip("Z"), "%Y-%m-%dT%H:%M:%S")))
    except (ValueError, AttributeError):
        return None


# --- hosts ------------------------------------------------------------------------------------------------------------


def why_not_read(answers: Answers) -> str:
    """Why a host's devices were not read; empty: they were."""
    reading = answers.reading
    if not answers.in_inventory:
        return "The host is not in the inventory: what is known is what the cluster says."
    if not reading or reading.get("skipped"):
        return "The host was not asked."
    if reading.get("unreachable"):
        return "The host cannot be reached: %s" % _text(reading)
    if reading.get("failed") or "devices" not in reading:
        return "The devices could not be read: %s" % _text(reading)
    return ""


def host_row(answers: Answers) -> dict[str, Any]:
    """Reachable or not, what it lacks with remedies, and what its cluster says."""
    why, node = why_not_read(answers), answers.node
    readiness = answers.readiness
    requirements = readiness.get("requirements")
    known = isinstance(requirements, list)
    lacks = [_requirement(one) for one in requirements or [] if one.get("state") != "ok"]
    return {
        "host": answers.host,
        "reached": not why,
        "problem": why,
        "ready": bool(readiness.get("ready")) if known else None,
        "lacks": lacks,
        "readiness_problem": "" if known else _text(readiness) or "Readiness is not known: the host was not asked.",
        "provider_id": answers.provider_id or node.get("provider_id", ""),
        "node": node.get("name", ""),
        "node_ready": node.get("ready"),
        "wanted": node.get("wanted", ""),
        "state": node.get("state", ""),
        "reason": node.get("reason", ""),
        "sources": [name for name, there in (("inventory", answers.in_inventory), ("cluster", bool(node))) if there],
    }


def _requirement(one: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(one.get(name, "")) for name in ("requirement", "state", "seen", "remedy")}


def _text(result: Mapping[str, Any]) -> str:
    return " ".join(str(result.get("msg") or result.get("module_stderr") or "").split())[:1000]


# --- devices ----------------------------------------------------------------------------------------------------------


def device_rows(answers: Answers, made_at: str, old_after_s: float) -> list[dict[str, Any]]:
    """One for each device that is or was known of the host; one without a device where none is."""
    why = why_not_read(answers)
    read = {} if why else {one["address"]: one for one in answers.reading["devices"]}
    published: Mapping[str, Any] = answers.node.get("devices") or {}
    before = {one["address"]: one for one in answers.before if one.get("address")}
    addresses = sorted({*read, *published, *before})
    rows = []
    for address in addresses:
        row = _empty(answers, address)
        last = _last_known(answers, address, published.get(address), before.get(address))
        if address in read:
            _take_reading(row, read[address], answers, last)
        elif not _take_published(row, published.get(address), answers, made_at, old_after_s):
            missing = why or "The device was known before and was not found now."
            _take_last(row, last, missing, made_at, old_after_s, is_there=bool(why))
        said = published.get(address, {}).get("mode")
        if address in read and said and row["verdict"] != OLD and row["mode"] != said:
            row["why"] = _joined(row["why"], "The cluster says %s, which is not what was read." % said)
        row["published"] = said or ""
        if said and answers.node.get("published_by") != COMPONENT:
            by = answers.node.get("published_by") or "a program without a name"
            row["why"] = _joined(row["why"], "What the node says was written by %s, not by the CC manager." % by)
        rows.append(row)
    if not rows:
        row = _empty(answers, "")
        row["why"] = why or "No NVIDIA GPU or NVSwitch was found."
        rows.append(row)
    for row in rows:
        row.update(_asked(answers, row["address"]))
    return rows


def _empty(answers: Answers, address: str) -> dict[str, Any]:
    return {
        "host": answers.host,
        "address": address,
        "kind": "",
        "name": "",
        "mode": None,
        "verdict": UNKNOWN,
        "why": "",
        "pending": "",
        "knobs": {},
        "firmware": "",
        "driver": "",
        "holders": [],
        "read_at": "",
        "read_by": "",
        "published": "",
        "provider_id": answers.provider_id or answers.node.get("provider_id", ""),
    }


def _take_reading(row: Row, one: DeviceEntry, answers: Answers, last: Optional[Row]) -> None:
    """What was read from the device just now."""
    mode, pending, problem = one.get("mode"), one.get("pending_mode"), one.get("problem")
    row.update(
        kind=one.get("kind") or "",
        name=one.get("name") or "",
        firmware=one.get("firmware") or "",
        driver=one.get("driver") or "none",
        holders=[_holder(holder) for holder in one.get("holders") or []],
        knobs=dict(one.get("knobs") or {}),
        pending=pending if pending and pending != mode else "",
    )
    why = "%s %s" % (problem.get("cause", ""), problem.get("remedy", "")) if problem else ""
    if mode not in MODES:
        _take_last(row, last, why or "The mode could not be read.", "", float("inf"), is_there=True)
        if one.get("use") == "used" and row["verdict"] == OLD:
            row["why"] = _joined("In use, so it was not touched. A mode changes only at a reset.", row["why"])
        return
    row.update(mode=mode, read_at=answers.reading.get("read_at", ""), read_by=ANSIBLE)
    row["verdict"], row["why"] = _verdict(mode, row["pending"], why, bool(one.get("settings_unproven")))


def _verdict(mode: str, pending: str, why: str, is_unproven: bool = False) -> tuple[str, str]:
    if mode not in CONFIDENTIAL:
        return UNPROTECTED, why
    if why:
        return UNKNOWN, why
    if pending:
        return PENDING, "The next reset makes it %s." % pending
    if is_unproven:
        return PENDING, "Settings that no register shows were stored and are not proven to be in force before a reset."
    return PROTECTED, ""


def _take_published(
    row: Row, entry: Optional[Mapping[str, Any]], answers: Answers, made_at: str, old_after_s: float
) -> bool:
    """What the manager in the cluster has read from the device, if that was lately and holds for this boot."""
    node = answers.node
    at, now = seconds_of(node.get("published_at", "")), seconds_of(made_at)
    if not entry or entry.get("mode") not in MODES or at is None or now is None:
        return False
    if not -CLOCKS_S <= now - at <= old_after_s:
        return False
    if node.get("published_by") != COMPONENT:
        return False
    if node.get("ready") is not True or node.get("changing") or entry.get("boot") != node.get("boot"):
        return False
    row.update(kind=entry.get("kind") or "", name=entry.get("name") or "", mode=entry["mode"])
    row.update(read_at=node["published_at"], read_by=CC_MANAGER, pending=entry.get("pending") or "")
    row["verdict"], row["why"] = _verdict(entry["mode"], row["pending"], entry.get("problem") or "")
    return True


def _take_last(
    row: dict[str, Any],
    last: Optional[dict[str, Any]],
    why: str,
    made_at: str,
    old_after_s: float,
    is_there: bool,
) -> None:
    """What was known last, told as old; never as protected."""
    row["why"] = why
    if last is None or not is_there:
        if last:
            row["why"] = _joined(why, "Last known: %s, %s, by %s." % (last["mode"], last["at"] or "?", last["by"]))
            row["kind"], row["name"] = row["kind"] or last["kind"], row["name"] or last["name"]
        return
    row.update(mode=last["mode"], read_at=last["at"], read_by=last["by"], verdict=OLD)
    row["kind"], row["name"] = row["kind"] or last["kind"], row["name"] or last["name"]
    read, made = seconds_of(last["at"]), seconds_of(made_at)
    if read is not None and made is not None and made - read > old_after_s:
        row["why"] = _joined(why, "The reading is %s old." % age(made - read))


def age(seconds: float) -> str:
    """'3 days', '5 hours', '12 minutes'."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return "%d %s%s" % (count, unit, "" if count == 1 else "s")
    return "less than a minute"


def _last_known(
    answers: Answers, address: str, published: Optional[Mapping[str, Any]], before: Optional[Mapping[str, Any]]
) -> Optional[dict[str, Any]]:
    """The newest of what the trails, the cluster and the previous report have as read back."""
    found = []
    for name, record, device in _changes(answers.trails, address):
        if device.get("after") in MODES:
            by = "%s, audit record %s" % (name, record.get("number"))
            found.append((record.get("time", ""), device["after"], by))
    if published and published.get("mode") in MODES and answers.node.get("published_by") == COMPONENT:
        found.append((answers.node.get("published_at", ""), published["mode"], CC_MANAGER))
    if before and before.get("mode") in MODES and before.get("read_at"):
        found.append((before["read_at"], before["mode"], PREVIOUS))
    if not found:
        return None
    at, mode, by = max(found, key=lambda one: one[0])
    about: Mapping[str, Any] = published or before or {}
    older: Mapping[str, Any] = before or {}
    return {
        "at": at,
        "mode": mode,
        "by": by,
        "kind": about.get("kind") or older.get("kind") or "",
        "name": about.get("name") or older.get("name") or "",
    }


def _changes(trails: Mapping[str, Any], address: str) -> Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    """Trail, record and entry of each change of a device, of trails that are whole."""
    for trail in trails.get("trails") or []:
        if trail.get("state") != "whole":
            continue
        for record in trail.get("records") or []:
            for device in record.get("devices") or []:
                if device.get("address") == address and record.get("event") != "began":
                    yield trail["name"], record, device


def _asked(answers: Answers, address: str) -> dict[str, str]:
    """Who asked for the last change of a device, when, and how that is known."""
    found = []
    for name, record, _device in _changes(answers.trails, address):
        asked = record.get("asked") or {}
        if record.get("event") == "change" and asked.get("by"):
            how = "audit record %s of %s" % (record.get("number"), name)
            found.append((asked.get("at") or record.get("time", ""), asked["by"], how))
    for one in answers.node.get("asked") or []:
        found.append((one["at"], one["by"], "managed fields of %s" % one["key"]))
    at, by, how = max(found, key=lambda one: one[0]) if found else ("", "", "")
    return {"asked_by": by, "asked_at": at, "asked_known_by": how}


def _holder(holder: HolderEntry) -> str:
    return "%s (%s, %s)" % (holder.get("command") or "?", holder.get("pid"), holder.get("file") or "?")


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)
