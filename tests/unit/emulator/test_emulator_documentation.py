# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""docs/emulator.md tells of everything there is: its tables against the code."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields

import pytest
from emulator import Emulator, faults, node
from emulator.__main__ import build_parser
from emulator.control_server import REQUESTS
from emulator.device import Counters
from emulator.models import MODELS
from emulator.recording import command, form
from emulator.spec import DURING_RESET, POWER_STATES
from emulator.trace import EVENTS
from emulator_node import HOPPER, ROOT

NAME = re.compile(r"`([^` ]+)[^`]*`")


def tables(text: str) -> dict[str, list[list[str]]]:
    """Rows of each table, by the words of its first column's head."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            rows = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not rows:
            rows = [cells]
            assert cells[0] not in found, "two tables begin with %r" % cells[0]
            found[cells[0]] = rows
        elif set(line) - set("|- "):
            rows.append(cells)
    return {head: rows[1:] for head, rows in found.items()}


TABLES = tables((ROOT / "docs" / "emulator.md").read_text(encoding="utf-8"))


def names(head: str) -> list[str]:
    """What the first column lists."""
    return [name for row in TABLES[head] for name in NAME.findall(row[0])]


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {text for action in parser._actions for text in action.option_strings} - {"-h", "--help"}


LISTED = {
    "option": options(build_parser()),
    "option of `record`": options(command.build_parser()),
    "node": {path.stem for path in node.SHIPPED.glob("*.yaml")},
    "key of the node": node.NODE_KEYS,
    "key of `timing`": node.TIMING_KEYS,
    "model": set(MODELS),
    "key of a device": node.DEVICE_KEYS,
    "key of a recording": form.KEYS,
    "key of a rule": faults.KEYS,
    "event": faults.EVERY_EVENT,
    "action": set(faults.ACTIONS),
    "request": {*REQUESTS, "fault"},
    "op": {*EVENTS, "write"},
}


@pytest.mark.parametrize("head", LISTED)
def test_tables_list_what_there_is(head: str) -> None:
    assert sorted(names(head)) == sorted(LISTED[head])


def test_no_table_is_left_unchecked() -> None:
    assert set(TABLES) == {*LISTED, "key of a state", "refused"}


def test_keys_of_a_state(emulator: Emulator) -> None:
    state = emulator.control.state(HOPPER)
    assert sorted(names("key of a state")) == sorted(state)
    counters = next(row for row in TABLES["key of a state"] if row[0] == "`counters`")
    assert sorted(NAME.findall(counters[1])) == sorted(field.name for field in fields(Counters))


def test_keys_beside_a_recording() -> None:
    text = (ROOT / "docs" / "emulator.md").read_text(encoding="utf-8")
    listed = re.search(r"^Beside `recording` a device takes (.*?)\.", text, re.MULTILINE | re.DOTALL)
    assert listed
    assert {*NAME.findall(listed[1]), "recording"} == node.RECORDED_KEYS


def test_events_of_actions() -> None:
    for row in TABLES["action"]:
        listed = set(NAME.findall(row[1]))
        meant = faults.EVERY_EVENT - listed if row[1].startswith("all") else listed
        assert meant == faults.ACTIONS[NAME.findall(row[0])[0]], row[0]


def test_keys_of_requests() -> None:
    for row in TABLES["request"]:
        (name,) = NAME.findall(row[0])
        if name != "fault":
            assert set(NAME.findall(row[1])) == REQUESTS[name], name


@pytest.mark.parametrize(
    ("key", "values"),
    [("power", POWER_STATES), ("during_reset", DURING_RESET), ("firmware", node.FIRMWARES)],
)
def test_values_of_keys(key: str, values: tuple[str, ...]) -> None:
    row = next(row for row in TABLES["key of a device"] if row[0] == f"`{key}`")
    assert NAME.findall(row[1]) == list(values)
