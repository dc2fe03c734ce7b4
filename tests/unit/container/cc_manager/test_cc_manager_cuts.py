# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A change cut at every point: before and after each request to the API, and at each write to a device.

A change is run once to count the points, then once more for each with a kill -9 of the pod there. The next pod must
bring the node to the request, with every component label as the user has it, whatever he changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from simulation import CHANGING, COMPONENTS, JOURNAL, PAUSED, Site

CHANGES = [("off", "on"), ("on", "off"), ("off", "ppcie"), ("ppcie", "on")]


def begun(start: str, cut_at: int | None) -> Site:
    """A node in one mode, at rest; the cut is counted from here."""
    one = Site(grace_s=0.5)
    one.devices.put(start)
    one.label(mode=start)
    one.run(3)
    assert one.state == start
    one.cut_points.clear()
    one.cut_at = cut_at
    return one


def ends_well(one: Site, desired: str, components: dict[str, str]) -> str:
    """What is wrong in the end, or nothing."""
    one.label(mode=desired)
    one.run(60)
    facts = {
        "violations": (one.violations, []),
        "state": (one.state, desired),
        "devices": (set(one.devices.modes()), {desired}),
        "components": (one.components(), components),
        "journal": (JOURNAL in one.annotations or CHANGING in one.annotations, False),
    }
    return "; ".join(f"{name}: {seen}, not {wanted}" for name, (seen, wanted) in facts.items() if seen != wanted)


@pytest.mark.parametrize(("start", "desired"), CHANGES)
def test_cut_everywhere(start: str, desired: str, capsys: pytest.CaptureFixture[str]) -> None:
    running = dict.fromkeys(COMPONENTS, "true")
    whole = begun(start, None)
    assert ends_well(whole, desired, running) == ""
    points = list(whole.cut_points)
    failed = []
    for number in range(1, len(points) + 1):
        one = begun(start, number)
        wrong = ends_well(one, desired, running)
        if wrong or one.cut_at is not None:
            failed.append(f"cut {number}, {points[number - 1]}: {wrong or 'was not reached'}")
    with capsys.disabled():
        print(f"\nCC manager {start} -> {desired}: {len(points) - len(failed)}/{len(points)} cuts recovered")
    assert failed == []
    assert len(points) > 10


@pytest.mark.parametrize("change", [("sandbox-validator", "false"), ("vfio-manager", "true"), ("vfio-manager", None)])
def test_what_the_user_changes_while_nobody_looks_is_kept(change: tuple[str, str | None]) -> None:
    name, value = change
    whole = begun("off", None)
    assert ends_well(whole, "on", dict.fromkeys(COMPONENTS, "true")) == ""
    wanted = {**dict.fromkeys(COMPONENTS, "true"), name: value}
    for number in range(1, len(whole.cut_points) + 1):
        one = begun("off", None)
        kill_at(one, number, lambda one=one: one.component(name, value))  # type: ignore[misc]
        expected = {key: text for key, text in wanted.items() if text is not None}
        assert ends_well(one, "on", expected) == "", whole.cut_points[number - 1]
        assert PAUSED not in one.components().values()


def kill_at(one: Site, number: int, meanwhile: Callable[[], None]) -> None:
    """Let the process die at a point; somebody does something before the next one starts."""
    one.cut_at = number
    begin = one.begin

    def after() -> None:
        one.begin = begin  # type: ignore[method-assign]
        meanwhile()
        begin()

    one.begin = after  # type: ignore[method-assign]
