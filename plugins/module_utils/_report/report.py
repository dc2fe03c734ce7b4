# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The report as plain data: hosts and nodes joined, devices, readiness, drift, changes, audit trails. Pure."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Optional, Sequence

from . import rows
from .drift import drift
from .rows import Answers

if TYPE_CHECKING:
    from .._core.answers import RegisteredInfo

FORMAT, VERSION = "confidential.gpu fleet report", 1
NOTHING: Mapping[str, Any] = MappingProxyType({})


class Sources(NamedTuple):
    """What was gathered. All but the hosts are mappings by the host's name; ``nodes`` are ``cluster.node_facts``."""

    hosts: Sequence[str]
    readings: Mapping[str, RegisteredInfo] = NOTHING
    readiness: Mapping[str, Any] = NOTHING
    trails: Mapping[str, Any] = NOTHING
    provider_ids: Mapping[str, str] = NOTHING
    nodes: Sequence[Mapping[str, Any]] = ()
    cluster: str = ""  # its name, for people; empty: none was asked
    cluster_problem: str = ""


def build(
    sources: Sources,
    made_at: str,
    made_by: str,
    old_after_s: float,
    previous: Optional[Mapping[str, Any]] = None,
    previous_about: Mapping[str, Any] = NOTHING,
) -> dict[str, Any]:
    """The report. ``previous``: the data of the one before; ``previous_about``: which file that is."""
    before = (previous or {}).get("devices") or []
    devices: list[dict[str, Any]] = []
    hosts: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    trails: list[dict[str, Any]] = []
    for answers in joined(sources, before):
        devices += rows.device_rows(answers, made_at, old_after_s)
        hosts.append(rows.host_row(answers))
        trails += _trails(answers)
        changes += _changes(answers)
    changes.sort(key=lambda one: (one["time"], one["host"]), reverse=True)
    report = {
        "format": FORMAT,
        "version": VERSION,
        "made_at": made_at,
        "made_by": made_by,
        "old_after_s": old_after_s,
        "sources": {
            "inventory_hosts": len(sources.hosts),
            "cluster": sources.cluster,
            "cluster_nodes": len(sources.nodes),
            "cluster_problem": sources.cluster_problem,
        },
        "previous": dict(previous_about) or None,
        "devices": devices,
        "hosts": hosts,
        "trails": trails,
        "changes": changes,
        "drift": drift(before, devices) if previous else [],
        "anchors": anchors(trails, (previous or {}).get("anchors") or {}),
    }
    return {**report, "summary": summary(report)}


def joined(sources: Sources, before: Sequence[Mapping[str, Any]]) -> list[Answers]:
    """Hosts and nodes, joined by provider id where both have one, else by name.

    Whoever was in the previous report and is in none of the sources is there as well: nothing gets lost unseen.
    """
    by_id = {machine(one["provider_id"]): one for one in sources.nodes if one.get("provider_id")}
    by_name = {one["name"]: one for one in sources.nodes}
    earlier: dict[str, list[Mapping[str, Any]]] = {}
    for device in before:
        earlier.setdefault(str(device.get("host", "")), []).append(device)
    found, taken = [], set()
    for host in dict.fromkeys(sources.hosts):
        own = sources.provider_ids.get(host) or ""
        node = by_id.get(machine(own)) if own else None
        if node is None:
            named = by_name.get(host)
            # A node of that name that has another id is another machine.
            node = named if named and not (own and named.get("provider_id")) else None
        if node:
            taken.add(node["name"])
        found.append(_answers(sources, host, node or {}, own, earlier.pop(host, [])))
    for node in sources.nodes:
        if node["name"] not in taken:
            name = node["name"] if node["name"] not in sources.hosts else "%s (node)" % node["name"]
            found.append(_answers(sources, name, node, "", earlier.pop(name, []), in_inventory=False))
    for host, devices in earlier.items():
        if any(one.get("address") for one in devices):
            found.append(_answers(sources, host, {}, "", devices, in_inventory=False))
    return found


def machine(provider_id: str) -> str:
    """What of a provider id names the machine: the bare-metal manager's is written in several forms."""
    scheme, _separator, rest = provider_id.partition("://")
    return rest.rpartition("/")[2].lower() if scheme in ("nvidia-bmm", "nico") else provider_id


def _answers(
    sources: Sources,
    host: str,
    node: Mapping[str, Any],
    provider_id: str,
    before: Sequence[Mapping[str, Any]],
    in_inventory: bool = True,
) -> Answers:
    named = host if in_inventory else ""
    return Answers(
        host,
        sources.readings.get(named) or {},
        sources.readiness.get(named) or {},
        sources.trails.get(named) or {},
        node,
        provider_id,
        before,
        in_inventory,
    )


def _trails(answers: Answers) -> list[dict[str, Any]]:
    """One row for each trail of a host; one that says why where there is none."""
    found = answers.trails
    named = [
        {
            "host": answers.host,
            "name": one["name"],
            "state": one["state"],
            "count": one["count"],
            "anchor": one["anchor"],
            "findings": one["findings"],
            "notes": one["notes"],
        }
        for one in found.get("trails") or []
    ]
    if named or not found or found.get("skipped"):
        return named
    failed = found.get("failed") or found.get("unreachable")
    row = {"host": answers.host, "name": "", "state": "unknown", "count": 0, "anchor": "", "findings": []}
    return [{**row, "notes": [str(found.get("msg") or "") if failed else "There are no records."]}]


def _changes(answers: Answers) -> list[dict[str, Any]]:
    """Who asked for what, when, and what became of it: audit records, managed fields, Events."""
    found = []
    for trail in answers.trails.get("trails") or []:
        for record in trail["records"]:
            source = "audit record %s (%s)" % (record.get("number"), trail["name"])
            source += "" if trail["state"] == "whole" else ", trail %s" % trail["state"]
            by = (record.get("asked") or {}).get("by", "")
            change = _change(answers.host, record.get("time", ""), source, by, record.get("event", ""))
            text = ["%s: %s" % (one.get("address"), _course(one)) for one in record.get("devices") or []]
            text += [record["reason"]] if record.get("reason") else []
            found.append({**change, "result": record.get("result", ""), "text": "; ".join(text)})
    for one in answers.node.get("asked") or []:
        found.append(_change(answers.host, one["at"], "managed fields", one["by"], "asked"))
        found[-1]["text"] = "set %s" % one["key"]
    for one in answers.node.get("events") or []:
        found.append(_change(answers.host, one["time"], "Event", one["by"], one["reason"]))
        found[-1]["text"] = one["message"] + (" (%d times)" % one["count"] if (one["count"] or 1) > 1 else "")
    return found


def _change(host: str, moment: str, source: str, by: str, event: str) -> dict[str, Any]:
    return {"time": moment or "", "host": host, "source": source, "by": by, "event": event, "result": "", "text": ""}


def _course(device: Mapping[str, Any]) -> str:
    """'off to on' of a change, 'wanted on' of one that began."""
    if "after" in device:
        return "%s to %s" % (device.get("before") or "not known", device["after"] or "not known")
    return "wanted %s" % device.get("desired")


def summary(report: Mapping[str, Any]) -> dict[str, int]:
    """Counts."""
    verdicts = [one["verdict"] for one in report["devices"] if one["address"]]
    return {
        "devices": len(verdicts),
        **{name: verdicts.count(name) for name in rows.VERDICTS},
        "hosts": len(report["hosts"]),
        "hosts_not_reached": sum(not one["reached"] and one["sources"] != ["cluster"] for one in report["hosts"]),
        "hosts_ready": sum(one["ready"] is True for one in report["hosts"]),
        "hosts_not_ready": sum(one["ready"] is False for one in report["hosts"]),
        "hosts_readiness_unknown": sum(one["ready"] is None for one in report["hosts"]),
        "trails": sum(bool(one["name"]) for one in report["trails"]),
        "trails_broken": sum(one["state"] == "broken" for one in report["trails"]),
        "drift": len(report["drift"]),
    }


def anchors(trails: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Host to trail to its last record, for the next report to hold the trails against.

    Of a trail that could not be read, or is broken, what was known before stays.
    """
    found = {host: dict(names) for host, names in before.items()}
    for one in trails:
        if one["name"] and one["state"] == "whole":
            found.setdefault(one["host"], {})[one["name"]] = one["anchor"]
    return found
