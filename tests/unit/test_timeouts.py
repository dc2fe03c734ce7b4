# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A default time-out stands wherever somebody reads or gives it, and is the same everywhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a time-out is called with a number behind it: in Python, YAML, argument specs, settings, and tables.
CALLED = {
    "boot": r"(?<!re)boot_timeout|BOOT_TIMEOUT|bootTimeoutSeconds",
    "busy": r"busy_timeout|BUSY_TIMEOUT|busyTimeoutSeconds",
    "eviction": r"EVICTION_TIMEOUT|eviction_timeout|evictionTimeoutSeconds",
}
# A name, then on the same line, or as the next key `default`, a number. An example or an override has none of these.
AFTER = r"""(?:_s)?\b(?:
      :\ float\ =\ (?P<argument>[\d.]+)
    | ":\ \{"type":\ "float",\ "default":\ (?P<spec>[\d.]+)
    | ",\ "\w+",\ "(?P<setting>[\d.]+)"
    | :\ (?P<value>[\d.]+)$
    | `\ \|\ (?:`refuse`,\ )?`(?P<table>[\d.]+)`
    | \ \|\ default\((?P<playbook>[\d.]+)\)
    | :\n(?:\ +(?!default)\S.*\n)*?\ +default:\ (?P<document>[\d.]+)
)"""
SHIPPED = ("plugins", "roles", "playbooks", "container", "docs")


def defaults(called: str) -> dict[str, set[float]]:
    """File and line to the numbers that stand there. A module's examples are no defaults."""
    listed = subprocess.run(["git", "ls-files", *SHIPPED], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, set[float]] = {}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix not in (".py", ".yml", ".yaml", ".md") or not path.is_file():
            continue
        text = re.sub(r'^EXAMPLES = r?"""(.*?)^"""', "", path.read_text(), flags=re.M | re.S)
        for match in re.finditer(f"(?:{called}){AFTER}", text, re.M | re.X):
            line = text.count("\n", 0, match.start()) + 1
            numbers = {float(number) for number in match.groups() if number is not None}
            if numbers != {0.0}:  # which is: do not wait
                found[f"{name}:{line}"] = numbers
    return found


@pytest.mark.parametrize(("name", "places"), [("boot", 12), ("busy", 16), ("eviction", 4)])
def test_a_default_is_the_same_everywhere(name: str, places: int) -> None:
    found = defaults(CALLED[name])
    assert len(found) >= places, found
    assert len(set.union(*found.values())) == 1, found
