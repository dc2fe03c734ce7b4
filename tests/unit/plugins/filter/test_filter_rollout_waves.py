# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Waves of hosts: what holds for every fleet, and what is refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.filter.rollout_waves import FilterModule

waves = FilterModule().filters()["rollout_waves"]
FLEETS = st.dictionaries(
    st.from_regex(r"[a-c][0-9]{1,3}", fullmatch=True), st.sampled_from(["", "z1", "z2", "z3"]), min_size=1, max_size=40
)
NUMBERS = st.integers(1, 50)
BUDGETS = NUMBERS | NUMBERS.map(str) | st.integers(1, 100).map("{}%".format)


def share(budget: int | str, size: int) -> int:
    """What a budget means, in other words than the filter's."""
    text = str(budget)
    return max(1, int(size * int(text[:-1]) / 100)) if text.endswith("%") else int(text)


@given(zones=FLEETS, canary=NUMBERS, budget=BUDGETS, per_zone=st.booleans(), order=st.randoms())
def test_what_holds_for_every_fleet(
    zones: dict[str, str], canary: int, budget: Any, per_zone: bool, order: Any
) -> None:
    hosts = list(zones)
    order.shuffle(hosts)
    options = {"zones": zones, "canary": canary, "budget": budget, "per_zone": per_zone, "allow_last": True}
    found = waves(hosts, **options)
    assert sorted(host for wave in found for host in wave) == sorted(hosts), "each host once"
    assert all(found), "no empty wave: its size would be Ansible's word for all hosts"
    assert len(found[0]) <= canary
    sizes = Counter(zones.values())
    for wave in found:
        taken = Counter(zones[host] for host in wave)
        assert all(count < sizes[zone] or sizes[zone] == 1 for zone, count in taken.items())
        if per_zone:
            assert all(count <= share(budget, sizes[zone]) for zone, count in taken.items())
        else:
            assert len(wave) <= share(budget, len(hosts))
    assert waves(sorted(hosts), **options) == found, "the order of the inventory does not matter"


@given(zones=FLEETS)
def test_a_zone_of_one_host_is_refused(zones: dict[str, str]) -> None:
    alone = [host for host, zone in zones.items() if list(zones.values()).count(zone) == 1]
    if alone:
        with pytest.raises(AnsibleFilterError, match="never taken"):
            waves(list(zones), zones=zones)
    else:
        assert waves(list(zones), zones=zones)


def test_the_canary_then_the_budget_in_the_order_of_names() -> None:
    zones = {"gpu10": "a", "gpu2": "a", "gpu1": "b", "gpu3": "b", "gpu4": "b"}
    assert waves(list(zones), zones=zones, budget=3) == [["gpu1"], ["gpu2", "gpu3", "gpu4"], ["gpu10"]]
    assert waves(list(zones), zones=zones, budget="40%", canary="2") == [["gpu1", "gpu2"], ["gpu3", "gpu4"], ["gpu10"]]
    assert waves(list(zones), zones=zones, budget=1, per_zone=True) == [["gpu1"], ["gpu2", "gpu3"], ["gpu4", "gpu10"]]


@pytest.mark.parametrize(
    ("hosts", "options", "words"),
    [
        ([], {}, "at least one"),
        ("gpu1", {}, "as a list"),
        (["a", 1], {}, "not a host's name"),
        (["a", "b", "a"], {}, "a: named twice"),
        (["a", "b"], {"canary": 0}, "canary is 0"),
        (["a", "b"], {"canary": True}, "canary is True"),
        (["a", "b"], {"budget": "0"}, "budget is '0'"),
        (["a", "b"], {"budget": "101%"}, "from 1% to 100%"),
        (["a", "b"], {"budget": 1.5}, "budget is 1.5"),
        (["a", "b"], {"budget": True}, "budget is True"),
        (["a", "b"], {"zones": ["a"]}, "mapping"),
        (["a", "b"], {"zones": {"a": ["z"]}}, "zone of a"),
        (["a", "b"], {"per_zone": "yes"}, "per_zone is true or false"),
        (["a", "b"], {"allow_last": 1}, "allow_last is true or false"),
        (["a", "b"], {"zones": {"a": "z"}}, "a, b: the last host of its zone"),
    ],
)
def test_refusals(hosts: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        waves(hosts, **options)
