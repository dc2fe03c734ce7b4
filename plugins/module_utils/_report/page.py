# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file that needs nothing else: no network, no framework.

What hosts have answered is in it as data alone, in which no character ends the script, or as escaped text. Its policy
(Content-Security-Policy) lets run what is written here, by its hash, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from html import escape
from typing import Any, Mapping, NamedTuple, Sequence

from .script import JS
from .style import CSS

# As the page's script has them.
VERDICTS = {"unprotected": "not protected", "pending": "change pending", "old": "old reading"}
# A character that could end a script element or begin a comment in it; JSON has it in strings only.
IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Column(NamedTuple):
    """``choose``: whether rows can be chosen by its value.

    ``kind``: text, code, hash, long, verdict, or when (a list of a moment and what belongs to it).
    """

    title: str
    kind: str = "text"
    choose: bool = False


class Table(NamedTuple):
    """``header``: the column that names the row. ``none``: what is said where there is no row."""

    title: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    none: str
    header: int = 0


def page(report: Mapping[str, Any]) -> str:
    """The HTML."""
    tables = {
        "devices": _devices(report),
        "hosts": _hosts(report),
        "drift": _drift(report),
        "trails": _trails(report),
        "changes": _changes(report),
    }
    data = _in_script({"tables": {name: _data(table) for name, table in tables.items()}})
    sections = "".join(
        '<section id="%s" data-table="%s" aria-labelledby="%s-title"><h2 id="%s-title">%s</h2></section>\n'
        % (name, name, name, name, escape(table.title))
        for name, table in tables.items()
    )
    links = "".join('<a href="#%s">%s</a>' % (name, escape(table.title)) for name, table in tables.items())
    policy = "default-src 'none'; style-src '%s'; script-src '%s'; base-uri 'none'; form-action 'none'" % (
        _hash(CSS),
        _hash(JS),
    )
    return "".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            '<meta http-equiv="Content-Security-Policy" content="%s">\n' % policy,
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            "<title>Confidential GPUs, report of %s</title>\n" % escape(report["made_at"]),
            "<style>%s</style>\n</head>\n<body>\n" % CSS,
            _header(report, links),
            "<main>\n%s%s</main>\n" % (_summary(report), sections),
            _footer(),
            '<script type="application/json" id="data">%s</script>\n<script>%s</script>\n' % (data, JS),
            "</body>\n</html>\n",
        )
    )


def _in_script(content: Any) -> str:
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character, escaped in IN_SCRIPT.items():
        text = text.replace(character, escaped)
    return text


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _data(table: Table) -> dict[str, Any]:
    columns = [{"title": one.title, "type": one.kind, "choose": one.choose} for one in table.columns]
    named = table._asdict()
    return {**named, "columns": columns, "rows": [list(row) for row in table.rows]}


# --- what stands around the tables ------------------------------------------------------------------------------------


def _header(report: Mapping[str, Any], links: str) -> str:
    sources = report["sources"]
    told = ["%d hosts of the inventory" % sources["inventory_hosts"]] if sources["inventory_hosts"] else []
    if sources["cluster"]:
        told.append("%d nodes of the cluster %s" % (sources["cluster_nodes"], sources["cluster"]))
    previous = report["previous"]
    if previous:
        against = "Compared with the report of %s (SHA-256 %s)." % (previous["made_at"], previous["sha256"])
    else:
        against = "There is no earlier report to compare with."
    return (
        "<header>\n<h1>Confidential GPUs: fleet report</h1>\n"
        '<p>Made at <time datetime="%s">%s UTC</time> by %s from %s.</p>\n<p class="faint">%s</p>\n'
        '<nav class="contents" aria-label="Contents">%s</nav>\n'
        "<noscript><p>The tables need JavaScript. The same is in report.csv and report.json.</p></noscript>\n"
        "</header>\n"
    ) % (
        escape(report["made_at"]),
        escape(report["made_at"].replace("T", " ").rstrip("Z")),
        escape(report["made_by"]),
        escape(" and ".join(told) or "nothing"),
        escape(against),
        links,
    )


def _summary(report: Mapping[str, Any]) -> str:
    count = report["summary"]
    of_devices = (
        ("devices", "devices"),
        ("protected", "protected"),
        ("unprotected", "not protected"),
        ("pending", "change pending"),
        ("old", "old readings"),
        ("unknown", "unknown"),
    )
    of_hosts = (
        ("hosts", "hosts"),
        ("hosts_not_reached", "hosts not read"),
        ("hosts_ready", "hosts ready"),
        ("trails", "audit trails"),
        ("trails_broken", "broken trails"),
        ("drift", "differences"),
    )
    tiles = "".join(
        '<dl class="counts">%s</dl>\n'
        % "".join("<div><dt>%s</dt><dd>%d</dd></div>" % (words, count[name]) for name, words in shown)
        for shown in (of_devices, of_hosts)
    )
    alarms = []
    if report["sources"]["cluster_problem"]:
        alarms.append("The cluster could not be read: %s" % report["sources"]["cluster_problem"])
    if count["trails_broken"]:
        alarms.append("Broken audit trails: %d. See Audit trails." % count["trails_broken"])
    if count["hosts_not_reached"]:
        alarms.append("Hosts not read: %d. Their devices are unknown or old." % count["hosts_not_reached"])
    told = "".join('<p class="alarm">%s</p>\n' % escape(one) for one in alarms)
    return '<section aria-label="Summary">\n%s%s</section>\n' % (tiles, told)


def _footer() -> str:
    return (
        "<footer>\n<h2>What this proves</h2>\n"
        "<p>A device counts as protected where its mode was read back from its registers for this report, or by the "
        "node's manager in the time that counts as new, in the present boot of the host. An old reading says what was "
        "true when it was made. What is unknown is not protected.</p>\n"
        "<p>Whoever is root on a host can make that host's answers. Names of who asked are what their programs said; "
        "the API server's audit log has the names that were authenticated.</p>\n"
        "<p>SHA256SUMS.sig signs this file with the others. To verify, with the signer's public key in the file "
        "allowed_signers:</p>\n"
        "<pre>ssh-keygen -Y verify -f allowed_signers -I SIGNER -n confidential-gpu-report -s SHA256SUMS.sig "
        "&lt; SHA256SUMS\nsha256sum -c SHA256SUMS</pre>\n</footer>\n"
    )


# --- the tables -------------------------------------------------------------------------------------------------------


def _devices(report: Mapping[str, Any]) -> Table:
    columns = (
        Column("Host", "text"),
        Column("Device", "code"),
        Column("Product"),
        Column("Verdict", "verdict", choose=True),
        Column("Mode", choose=True),
        Column("Why", "long"),
        Column("Last read (UTC), by", "when"),
        Column("Pending"),
        Column("Firmware", choose=True),
        Column("Driver", choose=True),
        Column("In use by"),
        Column("Last change asked (UTC), by", "when"),
    )
    rows = [
        (
            *(one["host"], one["address"] or "none known", one["name"] or one["kind"], one["verdict"]),
            *(one["mode"] or "not known", one["why"], [one["read_at"], one["read_by"]], _pending(one)),
            *(one["firmware"], one["driver"], one["holders"], [one["asked_at"], one["asked_by"]]),
        )
        for one in report["devices"]
    ]
    caption = "Each GPU and NVSwitch: its mode, when it was read back and by whom, and who asked for its last change."
    return Table("Devices", caption, columns, rows, "There is no device.", header=1)


def _pending(device: Mapping[str, Any]) -> str:
    if not device["pending"]:
        return ""
    knobs = ", ".join("%s=%s" % one for one in sorted(device["knobs"].items()))
    return "%s (%s)" % (device["pending"], knobs) if knobs else device["pending"]


def _hosts(report: Mapping[str, Any]) -> Table:
    columns = (
        Column("Host"),
        Column("Readiness", "verdict", choose=True),
        Column("What is missing or not known", "long"),
        Column("What to do", "long"),
        Column("Node"),
        Column("Desired mode", choose=True),
        Column("State label", choose=True),
        Column("Known from"),
        Column("Problem", "long"),
    )
    words = {True: "ready", False: "lacking", None: "unknown"}
    rows = [
        (
            one["host"],
            words[one["ready"]],
            ["%s is %s: %s" % (each["requirement"], each["state"], each["seen"]) for each in one["lacks"]],
            [each["remedy"] for each in one["lacks"] if each["remedy"]],
            one["node"] + (" (not ready)" if one["node_ready"] is False else ""),
            one["wanted"],
            one["state"],
            one["sources"],
            " ".join(part for part in (one["problem"] or one["readiness_problem"], one["reason"]) if part),
        )
        for one in report["hosts"]
    ]
    caption = "What each host lacks for confidential GPUs, with the remedy, and what its node in the cluster says."
    return Table("Hosts", caption, columns, rows, "There is no host.")


def _drift(report: Mapping[str, Any]) -> Table:
    columns = (
        Column("Host"),
        Column("Device", "code"),
        Column("What", choose=True),
        Column("Before"),
        Column("Now"),
        Column("Last change asked (UTC), by", "when"),
    )
    rows = [
        (
            *(one["host"], one["address"], one["what"]),
            *(VERDICTS.get(one[name], one[name]) for name in ("before", "now")),
            [one["asked_at"], one["asked_by"]],
        )
        for one in report["drift"]
    ]
    none = "Nothing differs." if report["previous"] else "There is no earlier report to compare with."
    return Table("Differences", "What is another thing than in the previous report.", columns, rows, none)


def _trails(report: Mapping[str, Any]) -> Table:
    columns = (
        Column("Host"),
        Column("Trail", choose=True),
        Column("State", "verdict", choose=True),
        Column("Records"),
        Column("Findings", "long"),
        Column("Notes", "long"),
        Column("Last record", "hash"),
    )
    rows = [
        (
            *(one["host"], one["name"] or "none", one["state"], str(one["count"])),
            [
                "%s, line %s: %s. %s" % (each["file"], each["line"], each["what"], each["text"])
                for each in one["findings"]
            ],
            one["notes"],
            one["anchor"],
        )
        for one in report["trails"]
    ]
    caption = "The hosts' audit records: whether each holds the hash of the one before, and the last one known before."
    return Table("Audit trails", caption, columns, rows, "No audit records were read.")


def _changes(report: Mapping[str, Any]) -> Table:
    columns = (
        Column("Time (UTC)", "when"),
        Column("Host"),
        Column("Who"),
        Column("Event", choose=True),
        Column("Result", choose=True),
        Column("What", "long"),
        Column("Known from"),
    )
    names = ("host", "by", "event", "result", "text", "source")
    rows = [([one["time"]], *(one[name] for name in names)) for one in report["changes"]]
    caption = "Who asked for which change, when, and what was read back: audit records, managed fields, Events."
    return Table("Changes", caption, columns, rows, "No change is known.", header=1)
