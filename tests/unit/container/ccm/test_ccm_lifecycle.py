# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Nodes that are not ready: which are deleted, which are tainted, and that nothing but a proof deletes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bmm_emulator.shapes import made_id
from ccm_bed import FOUR, NODES, SITE, TENANT, Bed
from fake_api.store import Request
from kube.lease import Lost

SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
FOREVER: dict[str, Any] = {"times": "forever"}
# What can be answered instead of the truth.
FAULTS: dict[str, list[dict[str, Any]]] = {
    "401": [{"action": "status", "status": 401}],
    "401 without the envelope": [{"action": "status", "status": 401, "envelope": False}],
    "403": [{"action": "status", "status": 403}],
    "403 of the instance": [{"action": "status", "status": 403, "path": "instance/*"}],
    "404 of a route": [{"action": "no_route"}],
    "404 without the envelope": [{"action": "status", "status": 404, "envelope": False}],
    "404 of another thing": [{"action": "status", "status": 404, "message": "Could not find Site with specified ID"}],
    "404, and the tenant cannot be had": [{"action": "status", "status": 500, "path": "tenant/*"}],
    "404, and the tenant is forbidden": [{"action": "status", "status": 403, "path": "tenant/*"}],
    "404, and the tenant has no route": [{"action": "no_route", "path": "tenant/*"}],
    "404, and the site cannot be had": [{"action": "status", "status": 503, "path": "site/*"}],
    "404, and the site is unknown": [{"action": "status", "status": 404, "path": "site/*", "message": "no site"}],
    "429": [{"action": "rate_limit"}],
    "429 with Retry-After": [{"action": "rate_limit", "seconds": 60}],
    "500": [{"action": "status", "status": 500}],
    "502 of a proxy": [{"action": "status", "status": 502, "envelope": False}],
    "503": [{"action": "status", "status": 503}],
    "no answer": [{"action": "hang"}],
    "too slow": [{"action": "delay", "seconds": 1.0}],
    "reset": [{"action": "reset"}],
    "cut": [{"action": "cut"}],
    "broken JSON": [{"action": "broken"}],
    "a sign-in page": [{"action": "html"}],
    "a sign-in page with 404": [{"action": "html", "status": 404}],
    "expired": [{"action": "status", "status": 401, "message": "Authorization token in request is invalid or expired"}],
}
# Lists that are wrong, while single instances are told right.
LISTS: dict[str, dict[str, Any]] = {
    "empty": {"action": "empty"},
    "the first page for each": {"action": "one_page"},
    "shuffled": {"action": "shuffle"},
    "no pagination": {"action": "no_pagination"},
    "no interfaces": {"action": "empty_interfaces"},
    "stale": {"action": "stale"},
}
STATUSES = (
    "Pending", "Provisioning", "Configuring", "Ready", "Updating", "Repairing", "Rebooting", "Terminating", "Error",
    "Something new",
)  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_gone", [False, True])
def test_no_fault_deletes_a_node(make_bed: Callable[..., Bed], fault: str, is_gone: bool) -> None:
    """Whether the instance is there or gone: what is answered proves nothing."""
    bed = make_bed()
    bed.settled("gpu-0", "gpu-1", ready=False)
    before = bed.node("gpu-0")
    if is_gone or fault.startswith("404, and"):
        bed.emulator.remove_instance("gpu-0")
    bed.spoil(*FAULTS[fault])
    bed.everything(2)
    assert bed.names() == ["gpu-0", "gpu-1"]
    assert bed.ips("gpu-0") == ["10.0.0.1", "fd00::1"]
    assert bed.labels("gpu-0") == before["metadata"]["labels"]
    warnings = [one for one in bed.events() if one["type"] == "Warning"]
    assert len({one["reason"] for one in warnings}) == len(warnings), "the reason is told once"
    if fault not in ("403 of the instance",) or is_gone:
        assert bed.problems.sentences()
        assert warnings
    bed.mend()
    bed.everything(2)
    assert not bed.problems.sentences()


@pytest.mark.parametrize("fault", LISTS)
def test_no_list_deletes_a_node(make_bed: Callable[..., Bed], fault: str) -> None:
    bed = make_bed(data={"instances": [{**FOUR, "count": 120}]})
    bed.settled("gpu-0", "gpu-1", "gpu-2", "gpu-119", ready=False)
    bed.emulator.add_faults([{**FOREVER, "path": "instance", **LISTS[fault]}])
    bed.everything(3)
    assert len(bed.names()) == 4
    for name in bed.names():
        assert len(bed.ips(name)) == 2


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_no_state_of_an_instance_deletes_its_node(make_bed: Callable[..., Bed], fault: str | None) -> None:
    bed = make_bed(data={"instances": [{**FOUR, "count": len(STATUSES)}]})
    names = {f"gpu-{number}": status for number, status in enumerate(STATUSES)}
    bed.settled(*names, ready=False)
    for name, status in names.items():
        bed.emulator.alter("instance", name, {"status": status})
    if fault is not None:
        bed.spoil(*FAULTS[fault])
    for _round in range(2):
        bed.look(61.0)
    assert bed.names() == sorted(names)
    if fault is None:
        off = {name for name in names if SHUTDOWN in bed.taints(name)}
        assert {names[name] for name in off} == {"Terminating", "Error"}


def test_an_instance_that_is_gone_takes_its_node_along(some: Bed) -> None:
    some.settled("gpu-0", "gpu-1", ready=False)
    some.emulator.remove_instance("gpu-0")
    some.look()
    assert some.names() == ["gpu-1"]
    event = next(one for one in some.events() if one["reason"] == "DeletingNode")
    assert event["message"] == "Deleting node gpu-0 because it does not exist in the cloud provider"
    (delete,) = [one for one in some.store.requests if one.verb == "delete"]
    assert set(delete.body["preconditions"]) == {"uid", "resourceVersion"}


def test_a_terminated_instance_takes_its_node_along(some: Bed) -> None:
    some.settled("gpu-0", ready=False)
    some.emulator.alter("instance", "gpu-0", {"status": "Terminated"})
    some.look()
    assert some.names() == []


def test_a_ready_node_is_never_deleted(some: Bed) -> None:
    some.settled("gpu-0")
    some.emulator.remove_instance("gpu-0")
    some.emulator.forget_requests()
    some.everything()
    assert some.names() == ["gpu-0"]
    assert not [one for one in some.asked() if one.startswith("instance/")]


def test_a_node_that_has_changed_since_is_not_deleted(some: Bed) -> None:
    """Ready again, or made again, between the proof and the deletion."""
    some.settled("gpu-0", ready=False)
    some.emulator.remove_instance("gpu-0")

    def change(request: Request) -> None:
        if request.verb == "delete":
            some.store.patch(NODES, "gpu-0", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})

    some.store.before = change
    some.look()
    assert some.names() == ["gpu-0"]
    some.store.before = lambda request: None
    some.look()
    assert some.names() == ["gpu-0"], "it is ready"


def test_another_tenant_is_no_proof(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed()
    bed.settled("gpu-0", ready=False)
    bed.emulator.remove_instance("gpu-0")
    bed.emulator.world.tenant["id"] = made_id("tenant", "somebody else")
    bed.everything()
    assert bed.names() == ["gpu-0"]
    bed.emulator.world.tenant["id"] = TENANT
    bed.look(61.0)
    assert bed.names() == []


def test_a_deletion_that_fails_is_told_and_tried_again(some: Bed) -> None:
    some.settled("gpu-0", ready=False)
    some.emulator.remove_instance("gpu-0")
    some.store.faults.refuse("delete", status=500)
    some.look()
    assert some.names() == ["gpu-0"]
    assert "DeletingNodeFailed" in some.reasons()
    some.store.faults.clear()
    some.look()
    assert some.names() == []


def test_a_mass_deletion_is_stopped(make_bed: Callable[..., Bed]) -> None:
    """Ten percent within the window, and then again ten percent of those that are left."""
    bed = make_bed(data={"instances": [{**FOUR, "count": 20}]})
    names = [f"gpu-{number}" for number in range(20)]
    bed.settled(*names, ready=False)
    for name in names:
        bed.emulator.remove_instance(name)
    for _round in range(4):
        bed.look()
    assert len(bed.names()) == 18
    assert "DeletionHeld" in bed.reasons()
    assert bed.problems.sentences()[0].startswith("NodeDeletionsHeld")
    assert bed.metrics.deletions.labels("held")._value.get() > 0
    bed.look(599.0)
    assert len(bed.names()) == 17
    bed.look(601.0)
    assert len(bed.names()) == 16


def test_at_least_one_may_be_deleted(some: Bed) -> None:
    some.settled("gpu-0", "gpu-1", ready=False)
    some.emulator.remove_instance("gpu-0")
    some.emulator.remove_instance("gpu-1")
    some.look()
    some.look()
    assert len(some.names()) == 1


def test_an_empty_list_makes_few_calls(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(data={"instances": [{**FOUR, "count": 60}]})
    bed.settled(*(f"gpu-{number}" for number in range(60)), ready=False)
    bed.emulator.add_faults([{"action": "empty", "path": "instance", **FOREVER}])
    bed.emulator.forget_requests()
    bed.look()
    assert len(bed.asked()) <= 21
    assert len(bed.names()) == 60


def test_nodes_that_are_lost_together_cost_a_list(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(data={"instances": [{**FOUR, "count": 250, "addresses": ["10.0.0.0/16"]}]})
    bed.settled(*(f"gpu-{number}" for number in range(50)), ready=False)
    bed.emulator.forget_requests()
    bed.look()
    assert bed.asked() == ["instance"] * 3


def test_one_poisonous_node_does_not_keep_others(some: Bed) -> None:
    """Another tenant's instance: 403 for it, and for it alone."""
    some.emulator.add_instance({"name": "theirs", "tenant": "other", "addresses": ["10.1.1.1"]})
    some.add("theirs", spec={"taints": []}, ready=False)
    some.settled("gpu-0", "gpu-1", ready=False)
    some.emulator.remove_instance("gpu-0")
    for _round in range(3):
        some.look(61.0)
    assert some.names() == ["gpu-1", "theirs"]


def test_the_shutdown_taint_goes_when_the_node_is_ready(some: Bed) -> None:
    some.settled("gpu-0", ready=False)
    some.emulator.alter("instance", "gpu-0", {"status": "Error"})
    some.look()
    assert some.taints() == [SHUTDOWN]
    some.look()
    assert some.taints() == [SHUTDOWN]
    some.store.patch(NODES, "gpu-0", {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    some.look()
    assert some.taints() == []


def test_an_id_without_a_site_needs_more_than_a_404(some: Bed) -> None:
    """nico://uuid may be of another manager: without our zone, and never seen here, it is left alone."""
    stranger = "nico://12345678-1234-4234-8234-123456789abc"
    some.add("stranger", provider_id=stranger, ready=False, spec={"taints": []})
    some.everything()
    assert some.names() == ["stranger"]
    assert "CloudInstanceUnknown" in some.reasons()
    its_id = some.emulator.instance("gpu-0")["id"]
    some.add("ours", provider_id=f"nico://{its_id}")
    some.step()
    some.lose("ours")
    some.emulator.remove_instance("gpu-0")
    some.look(61.0)
    assert some.names() == ["stranger"]


def test_who_leads_no_longer_writes_nothing(some: Bed) -> None:
    some.settled("gpu-0", ready=False)
    some.add("gpu-1")
    some.emulator.remove_instance("gpu-0")
    assert some.reasons() == ["Synced"]
    before = len(some.store.requests)

    def lost() -> float:
        raise Lost("not any more")

    some.leads = lost
    with pytest.raises(Lost):
        some.look()
    with pytest.raises(Lost):
        some.step()
    assert len(some.store.requests) == before


def test_a_node_whose_right_is_missing_is_told(some: Bed) -> None:
    some.settled("gpu-0", ready=False)
    some.emulator.remove_instance("gpu-0")
    some.store.faults.refuse("delete")
    some.look()
    assert any("may not delete nodes" in one for one in some.problems.sentences())
    assert "MayNotDeleteNodes" in some.reasons()
    some.store.faults.clear()
    some.look()
    assert not some.problems.sentences()
    assert SITE
