# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Explore what can happen to the CC manager: every interleaving, to the depth that the time allows.

    python tests/cuts/explore_cc_manager.py
    python tests/cuts/explore_cc_manager.py --minutes 30 --busy drain
    python tests/cuts/explore_cc_manager.py --depth 2

Each search begins in every state of a change that nothing disturbs, and tries every sequence of events from there:
requests, retries, answers of the module, guests' pods and guests, kills, stops, devices that fail, requests that are
refused, get lost or are the last. The two laws hold in each state; and from each the node comes to rest with nothing
paused and the newest request carried out, once nothing more happens.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(1, str(Path(__file__).resolve().parent.parent / "unit/container/cc_manager"))

import conftest  # noqa: F401  (makes the CC manager importable)
from exploration import Explorer

BUSY = ("refuse", "drain", "wait")


def main() -> int:
    """Search with each setting; 0 if nothing was found that must not be."""
    parser = argparse.ArgumentParser(description="Explore every interleaving of what can happen to the CC manager.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all searches together")
    parser.add_argument("--depth", type=int, default=99, help="events after the undisturbed ones")
    parser.add_argument("--busy", choices=BUSY, action="append", help="with this setting only")
    options = parser.parse_args()
    chosen, wrong = options.busy or ["refuse", "drain"], False
    for busy in chosen:
        explorer = Explorer("--cc-manager-busy", busy)
        found = explorer.search(options.depth, options.minutes * 60 / len(chosen))
        whole = "all there are" if found.complete else f"depth {found.depth} whole, {found.depth + 1} in part"
        numbers = f"{found.states} states, {found.transitions} transitions from {found.roots} beginnings"
        print(f"busy={busy}: {numbers}; {whole}", flush=True)
        for line in found.wrong:
            print(f"FAILED: {line}", flush=True)
        wrong = wrong or bool(found.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
