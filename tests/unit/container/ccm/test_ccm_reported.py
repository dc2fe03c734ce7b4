# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Faults that were reported of other controller managers and that no other test here looks at.

The table in docs/cloud-controller.md lists all of them, with the tests that show what happens here.
"""

from __future__ import annotations

from typing import Any

import pytest
from ccm_bed import FOUR, NODES, UNINITIALIZED, Bed

OTHER = "12345678-1234-4234-8234-123456789abc"


@pytest.mark.parametrize("taints", [[], [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}]])
def test_a_node_without_an_id_is_never_deleted(some: Bed, taints: list[dict[str, Any]]) -> None:
    """No instance has its name: it may be told under another one, or not yet."""
    some.add("nobody", provider_id="", ready=False, spec={"taints": taints})
    some.everything()
    assert some.names() == ["nobody"]


def test_a_machine_that_was_replaced_under_the_same_name(some: Bed) -> None:
    """What was known of the old one is not taken for the new one."""
    old = some.emulator.instance("gpu-0")["id"]
    some.add("gpu-0", provider_id="")
    some.step()
    assert some.node("gpu-0")["spec"]["providerID"].endswith(old)
    some.store.delete(NODES, "gpu-0")
    some.emulator.remove_instance("gpu-0")
    some.emulator.add_instance({**FOUR, "name": "gpu-0", "count": 1, "id": OTHER, "addresses": ["10.8.0.1"]})
    some.add("gpu-0", provider_id="")
    for _round in range(3):
        some.step(61.0)
    assert some.node("gpu-0")["spec"]["providerID"].endswith(OTHER)
    assert some.ips("gpu-0") == ["10.8.0.1"]
    some.lose("gpu-0")
    some.look(61.0)
    assert some.names() == ["gpu-0"], "its instance is there"


def test_the_id_of_a_machine_that_was_made_anew_is_told(some: Bed) -> None:
    """The node has the old machine's id, which cannot be changed; it is named, and the node stays tainted."""
    old = some.provider_id("gpu-0")
    some.emulator.remove_instance("gpu-0")
    some.emulator.add_instance({**FOUR, "name": "gpu-0", "count": 1, "id": OTHER})
    some.add("gpu-0", provider_id=old)
    some.step()
    assert some.taints("gpu-0") == [UNINITIALIZED]
    (event,) = [one for one in some.events() if one["reason"] == "CloudInstanceNotFound"]
    assert old.rpartition("/")[2] in event["message"]


def test_a_wrong_token_is_told_as_that(some: Bed) -> None:
    """Not as an address or an instance that cannot be found, and not once for each node."""
    some.spoil({"action": "status", "status": 401})
    for number in range(4):
        some.add(f"gpu-{number}", provider_id="" if number else some.provider_id("gpu-0"), node_ip="10.0.0.1")
    some.step()
    some.step(61.0)
    assert [some.taints(name) for name in some.names()] == [[UNINITIALIZED]] * 4
    assert some.reasons() == ["NotAuthenticated"]
    (sentence,) = some.problems.sentences()
    assert "token" in sentence
