# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Run the scenarios below extensions/molecule, two at a time: python -m tests.molecule.run [name ...]

Molecule runs check mode, but passes whatever it finds. Here its answers are read: on a fresh machine check mode has to
announce changes, and after the role has run, it has to announce none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.molecule import images
from tests.vm.bench import control
from tools import cache

SCENARIOS = cache.ROOT / "extensions" / "molecule"
# A longer one is stuck.
MOST_S = 900
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a scenario went; ``problem`` is empty when all is well."""

    name: str
    seconds: float
    words: str
    problem: str = ""


def main() -> int:
    """0 when every scenario passed."""
    names = sys.argv[1:] or sorted(path.parent.name for path in SCENARIOS.glob("*/molecule.yml"))
    began = time.monotonic()
    environment = surroundings()
    print(f"images and collections: {time.monotonic() - began:.1f} s", flush=True)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda name: run(name, environment), names))
    for outcome in outcomes:
        if outcome.problem:
            print(f"\n--- {outcome.name}\n{outcome.words}\n--- {outcome.name}: {outcome.problem}")
    print("\nscenario           seconds")
    for outcome in outcomes:
        print(f"{outcome.name:16} {outcome.seconds:9.1f}  {outcome.problem or 'passed'}")
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def surroundings() -> dict[str, str]:
    """The environment of molecule: everything that it makes lies in .cache."""
    podman = images.prepare()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": str(cache.ROOT / ".cache" / "collections"),
        "ANSIBLE_HOME": str(cache.ROOT / ".cache" / "ansible"),
        "XDG_CACHE_HOME": str(images.FOLDER / "xdg"),
        "PODMAN_OF_SCENARIOS": str(podman.script),
        "WHEELS_OF_SCENARIOS": str(control.wheels()),
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
    }


def run(name: str, environment: Mapping[str, str]) -> Outcome:
    """One scenario from its creation to its end."""
    began = time.monotonic()
    command = [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", name]
    try:
        done = subprocess.run(
            command,
            cwd=cache.ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=MOST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as stuck:
        return Outcome(name, MOST_S, str(stuck.output), "not done in time")
    words = done.stdout
    problem = f"molecule ended with {done.returncode}" if done.returncode else judged(words)
    return Outcome(name, time.monotonic() - began, words, problem)


def judged(words: str) -> str:
    """What is wrong with the answers of the two check runs; empty when nothing is."""
    checks = [RECAP.findall(section) for section in sections(words, "check")]
    if len(checks) != 2 or not all(checks):
        return f"{len(checks)} runs in check mode instead of two"
    before, after = checks
    silent = [host for host, changed in before if changed == "0"]
    loud = [host for host, changed in after if changed != "0"]
    if silent:
        return f"check mode announced no change before the role had run: {', '.join(silent)}"
    return f"check mode announced a change after the role had run: {', '.join(loud)}" if loud else ""


def sections(words: str, action: str) -> list[str]:
    """What molecule's runs of one action said."""
    parts = re.split(r"^INFO +\[\w+ > (\w+)\] Executing$", words, flags=re.MULTILINE)
    return [text for title, text in zip(parts[1::2], parts[2::2], strict=True) if title == action]


if __name__ == "__main__":
    sys.exit(main())
