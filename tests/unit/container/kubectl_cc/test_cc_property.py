# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order: budget, zones, order, no node after a failure; and a kill changes no end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from cc_world import RACK, World, parts
from hypothesis import given, settings
from hypothesis import strategies as st
from kubectl_cc import plan, record, steps
from kubectl_cc.names import DRAIN, REFUSE, WAIT
from kubectl_cc.record import FINISHED, UNDONE
from kubectl_cc.rules import Refused, Rules, share

BUDGETS = st.one_of(st.integers(1, 5).map(str), st.integers(1, 100).map(lambda number: f"{number}%"))
RULES = st.builds(
    Rules,
    mode=st.sampled_from(["on", "devtools", "ppcie"]),
    canary=st.integers(1, 3),
    budget=BUDGETS,
    per=st.sampled_from(["", RACK]),
    busy=st.sampled_from([REFUSE, WAIT, DRAIN]),
    pods_timeout_s=st.just(60.0),
    node_timeout_s=st.just(200.0),
    settle_s=st.sampled_from([0.0, 1.0]),
)


@st.composite
def fleets(draw: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Zone and rack of each node; each zone has two or more."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=3))
    names = [(f"gpu-{zone}-{number}", f"z{zone}") for zone, size in enumerate(sizes) for number in range(size)]
    return dict(names), {name: draw(st.sampled_from("pq")) for name, _zone in names}


@settings(max_examples=60, deadline=None)
@given(rules=RULES, fleet=fleets())
def test_waves_hold_each_node_once_within_budget_and_zone(rules: Rules, fleet: Any) -> None:
    zones, racks = fleet
    made = World(rules, zones, racks).record.plan
    assert sorted(entry.name for entry in made.entries) == sorted(zones)
    assert len(made.waves[0]) <= rules.canary
    for wave, counts in zip(made.waves, parts(made), strict=True):
        assert wave
        assert all(counts[part] <= made.budgets[part] for part in counts)
        in_zones = Counter(zones[entry.name] for entry in wave)
        assert all(in_zones[zone] < Counter(zones.values())[zone] for zone in in_zones)
    sizes = Counter(racks.values()) if rules.per else {"": len(zones)}
    assert made.budgets == {part: share(rules.budget, size) for part, size in sizes.items()}


@settings(max_examples=25, deadline=None)
@given(rules=RULES, fleet=fleets(), kills=st.frozensets(st.integers(0, 120), max_size=12))
def test_a_kill_changes_no_end(rules: Rules, fleet: Any, kills: frozenset[int]) -> None:
    zones, racks = fleet
    whole, cut = World(rules, zones, racks), World(rules, zones, racks)
    whole.settle()
    cut.settle(kills)
    assert cut.end() == whole.end() == dict.fromkeys(zones, (rules.mode, rules.mode, False))
    assert cut.record.status.phase == FINISHED
    assert cut.taken == whole.taken  # nobody is taken twice


@settings(max_examples=25, deadline=None)
@given(rules=RULES, fleet=fleets(), kills=st.frozensets(st.integers(0, 120), max_size=12), data=st.data())
def test_undo_puts_back_whatever_was_done(rules: Rules, fleet: Any, kills: frozenset[int], data: Any) -> None:
    zones, racks = fleet
    world = World(rules, zones, racks)
    before = world.end()
    for _step in range(data.draw(st.integers(0, 60))):
        if isinstance(world.work(), steps.Wait):
            world.manager(data.draw(st.sampled_from(sorted(zones))))
    world.undo()
    world.settle(kills)
    assert world.record.status.phase == UNDONE, world.record.status
    assert world.end() == before


class Chaos:
    """Anything that may happen between two steps."""

    def __init__(self, world: World, data: Any) -> None:
        self.world, self.draw = world, data.draw
        self.names = sorted(world.objects)
        self.cordoned: set[str] = set()  # by somebody else

    def one(self) -> None:
        what = self.draw(
            st.sampled_from(
                ["manager"] * 6 + ["break", "mend", "kubelet", "cordon", "pod", "kill", "time", "user", "user", "label"]
            )
        )
        getattr(self, what)(self.draw(st.sampled_from(self.names)))

    def manager(self, name: str) -> None:
        self.world.manager(name)

    def break_(self, name: str) -> None:
        self.world.broken.add(name)

    def mend(self, name: str) -> None:
        self.world.broken.discard(name)

    def kubelet(self, name: str) -> None:
        ready = self.world.objects[name]["status"]["conditions"][0]["status"] == "True"
        self.world.change(name, ready=not ready)

    def cordon(self, name: str) -> None:
        claim = self.world.claim(name)
        if claim is not None and claim["stage"] != "done":
            return  # who cordons what is cordoned already leaves no trace
        self.world.change(name, spec={"unschedulable": None if self.world.is_cordoned(name) else True})

    def pod(self, name: str) -> None:
        if self.world.is_cordoned(name):
            self.world.pods.pop(name, None)
        else:
            self.world.pods[name] = set() if self.world.pods.get(name) else {"default/guest"}
            self.world.users.pop(name, None)  # what is too old by a moment is not what is looked at here

    def kill(self, _name: str) -> None:
        self.world.forget()

    def time(self, _name: str) -> None:
        self.world.now += self.draw(st.sampled_from([1.0, 11.0, 70.0, 400.0]))

    def user(self, name: str) -> None:
        what = self.draw(st.sampled_from(["resume", "resume", "resume", "skip", "pause", "pause", "pause", "undo"]))
        if self.world.record.status.is_over and what != "undo":
            return
        if self.world.record.status.phase == UNDONE:
            return
        if what == "pause":
            self.world.status(paused=record.Pause("asked", "", self.world.now))
        elif what == "undo":
            self.world.undo()
        else:
            self.world.resume((name,) if what == "skip" else ())

    def label(self, name: str) -> None:
        self.world.change(name, {"nvidia.com/cc.mode": self.draw(st.sampled_from(["off", "on"]))})


setattr(Chaos, "break", Chaos.break_)


@settings(max_examples=60, deadline=None)
@given(rules=RULES, fleet=fleets(), data=st.data())
def test_no_order_of_events_breaks_the_rules(rules: Rules, fleet: Any, data: Any) -> None:
    """World.work asserts what must hold at each step."""
    zones, racks = fleet
    world = World(rules, zones, racks)
    chaos = Chaos(world, data)
    for _round in range(data.draw(st.integers(1, 80))):
        for _step in range(data.draw(st.integers(0, 3))):
            world.work()
        chaos.one()
    # And when all is well again, and it is resumed, it comes to an end.
    world.broken.clear()
    world.pods.clear()
    world.forget()
    for name in zones:
        claim = world.claim(name)
        mine = claim is not None and claim["cordoned"]
        world.change(name, ready=True, spec={} if mine else {"unschedulable": None})
        if world.state(name) == "failed" and (claim is None or claim["stage"] == "done"):
            world.change(name, {"nvidia.com/cc.mode.state": world.label(name)})
        while world.manager(name):
            pass
    for _again in range(3):
        if not world.record.status.is_over:
            world.resume()
            world.settle()
    assert world.record.status.is_over, world.record.status
    for name in zones:
        claim = world.claim(name)
        assert not world.is_cordoned(name)
        assert claim is None or claim["stage"] == "done"


def test_the_last_ready_node_of_a_zone_is_refused() -> None:
    with pytest.raises(Refused, match=r"gpu-b-0: the last ready node of topology.kubernetes.io/zone=b"):
        World(Rules("on"), {"gpu-a-0": "a", "gpu-a-1": "a", "gpu-b-0": "b"})


@pytest.mark.parametrize("budget", ["0", "-1", "0%", "101%", "some", "", "1.5"])
def test_a_budget_that_is_none_is_refused(budget: str) -> None:
    with pytest.raises(Refused, match=r"budget"):
        Rules("on", budget=budget)


def test_a_record_that_was_edited_is_not_guessed_at() -> None:
    world = World(Rules("on"), {"a": "z", "b": "z"})
    for key, text in (
        ("plan", "{}"),
        ("status", "null"),
        ("plan", world.text["data"]["plan"].replace('"version": 1', '"version": 9')),
    ):
        edited = {**world.text, "metadata": {"resourceVersion": "1"}, "data": {**world.text["data"], key: text}}
        with pytest.raises(record.Unreadable, match=r"no record of a rollout"):
            record.read(edited)


def test_the_record_says_all_that_was_planned() -> None:
    world = World(Rules("on", per=RACK, gates=(("command", "abc"),)), {"a": "z", "b": "z"}, {"a": "p", "b": "q"})
    made = world.record
    world.status(paused=record.Pause("why", "a", 7.0), skipped=("b",), passed=1, attempt=2)
    again = world.record
    assert replace(again.plan, left_out={}) == replace(made.plan, left_out={})
    assert again.status == replace(
        made.status, paused=record.Pause("why", "a", 7.0), skipped=("b",), passed=1, attempt=2
    )
    assert plan.natural("gpu-2") < plan.natural("gpu-10")
