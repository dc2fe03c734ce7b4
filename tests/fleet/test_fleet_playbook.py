# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The playbook fleet from delivered machines to nodes with GPUs in the wanted mode, and what is left out on the way."""

from __future__ import annotations

import pytest

from tests.cloud.programs import UNINITIALIZED, kubelet_node, provider_id, taints
from tests.fleet.conftest import Fleet, Run


@pytest.fixture(scope="module")
def first(fleet: Fleet) -> Run:
    """The first run, in two batches.

    gpu-0 and gpu-1 do not come back by themselves, and gpu-0 turns Repairing when it is power-cycled; gpu-2 is
    Repairing from the start.
    """
    fleet.api.alter("instance", "gpu-2", {"status": "Repairing", "message": "A fan is replaced"})
    fleet.lost.add("gpu-0")
    for name in ("gpu-0", "gpu-1"):
        fleet.machines[name].comes_back = False
    done = fleet.run()
    print(done.output)
    return done


def test_the_others_are_done(first: Run, fleet: Fleet) -> None:
    assert first.status == 0
    assert first.failed == set()
    for name in ("gpu-1", "gpu-3"):
        assert fleet.mode(name) == {"on"}
        assert fleet.label(name) == "on"
        node = fleet.server.nodes()[name]
        assert node["spec"]["providerID"] == provider_id(fleet.api, name)
        assert UNINITIALIZED not in taints(node)
        assert "confidential_gpu.fleet=1" in fleet.machines[name].read("/boot/grub/grub.cfg")


def test_a_machine_that_does_not_come_back_is_power_cycled(first: Run, fleet: Fleet) -> None:
    assert len(fleet.machines["gpu-1"].boots) == 2
    assert len(fleet.machines["gpu-3"].boots) == 2
    cycled = [one for one in fleet.api.requests if one["method"] == "PATCH" and "gpu-3" not in str(one["path"])]
    asked = [str(one["path"]) for one in cycled]
    ids = {name: fleet.api.instance(name)["id"] for name in ("gpu-0", "gpu-1", "gpu-3")}
    assert asked.count(f"instance/{ids['gpu-0']}") == 1, "its power cycle"
    assert asked.count(f"instance/{ids['gpu-1']}") == 2, "its power cycle and its label"
    assert asked.count(f"instance/{ids['gpu-3']}") == 1, "its label"


def test_a_machine_that_is_repaired_is_left_alone_and_told(first: Run, fleet: Fleet) -> None:
    assert "gpu-2 is left out: its instance is Repairing (A fan is replaced). Nothing was changed." in first.output
    assert len(fleet.machines["gpu-2"].boots) == 1
    assert "confidential_gpu.fleet" not in fleet.machines["gpu-2"].read("/boot/grub/grub.cfg")


def test_a_machine_that_turns_repairing_is_left_out_and_told(first: Run, fleet: Fleet) -> None:
    assert "gpu-0 is left out: its instance is Repairing (A power supply is replaced)." in first.output
    for name in ("gpu-0", "gpu-2"):
        assert fleet.mode(name) == {"off"}
        assert fleet.label(name) is None
        assert name not in fleet.server.nodes()


def test_a_second_run_changes_nothing(first: Run, fleet: Fleet) -> None:
    for gpus in fleet.gpus.values():
        gpus.control.reset_counters()
    versions = {name: one["metadata"]["resourceVersion"] for name, one in fleet.server.nodes().items()}
    fleet.api.forget_requests()
    again = fleet.run()
    assert again.status == 0, again.output
    assert again.changed == set(), again.output
    assert [one for one in fleet.api.requests if one["method"] != "GET"] == []
    assert {name: one["metadata"]["resourceVersion"] for name, one in fleet.server.nodes().items()} == versions
    assert [len(fleet.machines[name].boots) for name in ("gpu-1", "gpu-3")] == [2, 2]
    for name in ("gpu-1", "gpu-3"):
        counters = [one["counters"] for one in fleet.gpus[name].control.state().values()]
        assert [(one["knob_writes"], one["resets"]) for one in counters] == [(0, 0)]


def test_check_mode_changes_nothing(first: Run, fleet: Fleet) -> None:
    """Neither where all is done nor where another mode is wanted."""
    fleet.api.forget_requests()
    done = fleet.run("--check", "--limit", "gpu-3", cc_mode_mode="off")
    assert done.status == 0, done.output
    assert done.changed == {"gpu-3"}
    assert (fleet.mode("gpu-3"), fleet.label("gpu-3")) == ({"on"}, "on")
    assert [one for one in fleet.api.requests if one["method"] != "GET"] == []


def test_a_repaired_machine_joins_in_the_next_run(first: Run, fleet: Fleet) -> None:
    fleet.api.alter("instance", "gpu-2", {"status": "Ready"})
    done = fleet.run("--limit", "gpu-2")
    assert done.status == 0, done.output
    assert (fleet.mode("gpu-2"), fleet.label("gpu-2")) == ({"on"}, "on")
    assert UNINITIALIZED not in taints(fleet.server.nodes()["gpu-2"])


def test_a_failure_stops_the_next_batch(first: Run, fleet: Fleet) -> None:
    """A node of that name is another instance's: it is refused, and the other machine is not touched."""
    fleet.server.request("DELETE", "/api/v1/nodes/gpu-1")
    other = provider_id(fleet.api, "gpu-3")
    fleet.machines["gpu-1"].comes_back = True
    fleet.server.register(kubelet_node("gpu-1", provider_id=other, taints=[]))
    done = fleet.run("--limit", "gpu-1,gpu-3", fleet_serial=1, cc_mode_mode="devtools")
    assert done.status != 0
    assert "A provider id never changes" in done.output
    assert done.failed == {"gpu-1"}
    assert fleet.mode("gpu-3") == {"on"}, "the next batch is not begun"
