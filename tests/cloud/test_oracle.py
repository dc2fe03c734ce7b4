# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The same scenes, played by Kubernetes' own controllers and by ours: nodes and Events are equal.

Which are not, and why, says ``differs`` of a scene (scenes.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from bmm_emulator.launch import launch
from bmm_emulator.server import Emulator

from tests.cloud.programs import OFTEN, oracle, start_oracle, start_ours
from tests.cloud.scenes import SCENES, Scene, Stage
from tests.cloud.server import Child, Server

# Two rounds of the slower controller without a change: nothing more comes.
QUIET_S = 4.5
MOST_S = 60.0
# What Kubernetes' own controllers say; ours say more.
REASONS = ("Synced", "DeletingNode", "DeletingNodeFailed")
Outcome = dict[str, Any]
_played: dict[str, dict[str, Outcome]] = {}


@pytest.fixture
def played(server: Server) -> dict[str, dict[str, Outcome]]:
    """Who to scene to outcome; played once."""
    if not _played:
        oracle()
        _played["theirs"] = play(server, start_oracle)
        server.clear()
        # A limit for mass deletions is ours alone.
        _played["ours"] = play(server, lambda *where: start_ours(*where, "--node-deletion-limit=100%"))
    return _played


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_equal(played: dict[str, dict[str, Outcome]], scene: Scene) -> None:
    ours, theirs = played["ours"][scene.name], played["theirs"][scene.name]
    if scene.differs:
        assert ours != theirs, f"nothing differs any more: {scene.differs}"
    else:
        assert ours == theirs


def play(server: Server, start: Callable[..., Child]) -> dict[str, Outcome]:
    """All scenes, step by step."""
    with launch({}) as emulator:
        for scene in SCENES:
            scene.prepare(emulator)
        for scene in SCENES:
            scene.begin(server, emulator)
        child = start(server, emulator, *OFTEN)
        try:
            settle(server, child)
            for number in range(max(len(scene.steps) for scene in SCENES)):
                step(server, emulator, number)
                settle(server, child)
            return {scene.name: outcome(server, scene.name) for scene in SCENES}
        finally:
            child.end()


def step(server: Server, emulator: Emulator, number: int) -> None:
    for scene in SCENES:
        if number < len(scene.steps):
            scene.steps[number](Stage(server, emulator, scene.name))


def settle(server: Server, child: Child) -> None:
    """Until nothing has changed for a while."""
    before: object = None
    since = began = time.monotonic()
    while time.monotonic() - since < QUIET_S:
        child.check()
        now = {name: one["metadata"]["resourceVersion"] for name, one in server.nodes().items()}
        if now != before:
            before, since = now, time.monotonic()
        assert time.monotonic() - began < MOST_S, "it does not settle"
        time.sleep(0.2)  # that nothing comes is told by nobody


def outcome(server: Server, name: str) -> Outcome:
    """What is compared."""
    events = {
        (one["reason"], one["type"], one["message"])
        for one in server.events()
        if one["involvedObject"]["name"] == name and one["reason"] in REASONS
    }
    node = server.nodes().get(name)
    found: Outcome = {"events": events, "exists": node is not None}
    if node is not None:
        found["labels"] = node["metadata"]["labels"]
        found["provider id"] = node["spec"].get("providerID")
        found["taints"] = [(one["key"], one["effect"]) for one in node["spec"].get("taints") or []]
        found["addresses"] = node["status"].get("addresses")
    return found
