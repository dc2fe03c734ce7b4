# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a new node gets, and what nodes keep: provider id, labels, addresses, taints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ccm_bed import FOUR, NODES, ORG, SITE, TENANT, UNINITIALIZED, Bed

TYPE, ZONE, REGION = "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
BETA_ZONE = "failure-domain.beta.kubernetes.io/zone"


def test_a_new_node(some: Bed) -> None:
    some.add("gpu-0", provider_id="")
    some.step()
    assert some.node()["spec"]["providerID"] == some.provider_id("gpu-0")
    assert some.taints() == []
    assert some.ips() == ["10.0.0.1", "fd00::1"]
    assert [one["type"] for one in some.node()["status"]["addresses"]] == ["InternalIP", "InternalIP", "Hostname"]
    labels = some.labels()
    assert labels[TYPE] == labels["beta.kubernetes.io/instance-type"] == "gpu.8xh100"
    assert labels[ZONE] == labels[BETA_ZONE] == "site-1"
    assert labels[REGION] == labels["failure-domain.beta.kubernetes.io/region"] == "usa-ca"
    (event,) = some.events()
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Synced", "Node synced successfully")
    assert event["involvedObject"]["uid"] == some.node()["metadata"]["uid"]


def test_a_user_s_zone_is_overwritten(some: Bed) -> None:
    some.add("gpu-0", labels={ZONE: "mine", TYPE: "mine"})
    some.step()
    assert (some.labels()[ZONE], some.labels()[TYPE]) == ("site-1", "gpu.8xh100")


def test_stable_labels_follow_beta_labels(some: Bed) -> None:
    some.settled("gpu-0")
    some.store.patch(NODES, "gpu-0", {"metadata": {"labels": {ZONE: "mine"}}})
    some.step()
    assert some.labels()[ZONE] == "site-1"
    some.store.patch(NODES, "gpu-0", {"metadata": {"labels": {ZONE: "mine", BETA_ZONE: None}}})
    some.step()
    assert some.labels()[ZONE] == "mine"


def test_nothing_is_written_twice(some: Bed) -> None:
    some.settled("gpu-0", "gpu-1")
    before = some.writes()
    some.emulator.add_faults(
        [{"action": one, "path": "instance*", "times": "forever"} for one in ("shuffle", "shuffle_interfaces")]
    )
    some.everything()
    assert some.writes() == before


@pytest.mark.parametrize(
    ("node_ip", "addresses"),
    [
        ("10.0.0.1", ["10.0.0.1"]),
        ("fd00::1", ["fd00::1"]),
        ("fd00:0::0:1", ["fd00::1"]),
        ("fd00::1,10.0.0.1", ["fd00::1", "10.0.0.1"]),
    ],
)
def test_the_kubelet_s_node_ip_comes_alone(some: Bed, node_ip: str, addresses: list[str]) -> None:
    some.add("gpu-0", node_ip=node_ip)
    some.step()
    assert some.taints() == []
    assert some.ips() == addresses


@pytest.mark.parametrize("node_ip", ["10.0.0.77", "nonsense", "10.0.0.1,10.9.9.9"])
def test_a_wrong_node_ip_keeps_the_taint(some: Bed, node_ip: str) -> None:
    some.add("gpu-0", node_ip=node_ip)
    some.step()
    some.step(61.0)
    assert some.taints() == [UNINITIALIZED]
    assert some.reasons() == ["ProvidedNodeIPNotValid"]
    assert not some.writes()


@pytest.mark.parametrize(
    "form",
    [
        "nvidia-bmm://{org}/{tenant}/{site}/{id}",
        "nvidia-bmm://{org}/{site}/{id}",
        "nico://{org}/{tenant}/{site}/{id}",
        "nico://{id}",
    ],
)
def test_all_forms_of_the_provider_id_are_read(some: Bed, form: str) -> None:
    its_id = some.emulator.instance("gpu-2")["id"]
    given = form.format(org=ORG, tenant=TENANT, site=SITE, id=its_id)
    some.add("another-name", provider_id=given)
    some.step()
    assert some.taints("another-name") == []
    assert some.ips("another-name") == ["10.0.0.3", "fd00::3"]
    assert some.node("another-name")["spec"]["providerID"] == given


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("nvidia-bmm", "nvidia-bmm://{org}/{tenant}/{site}/{id}"),
        ("nvidia-bmm-short", "nvidia-bmm://{org}/{site}/{id}"),
        ("nico", "nico://{org}/{tenant}/{site}/{id}"),
        ("nico-uuid", "nico://{id}"),
    ],
)
def test_the_form_that_is_set_is_written(make_bed: Callable[..., Bed], form: str, written: str) -> None:
    bed = make_bed(providerIdForm=form)
    bed.add("gpu-0", provider_id="")
    bed.step()
    its_id = bed.emulator.instance("gpu-0")["id"]
    assert bed.node()["spec"]["providerID"] == written.format(org=ORG, tenant=TENANT, site=SITE, id=its_id)


FOREIGN = [
    "aws:///us-east-1a/i-0123456789abcdef0",
    "kind://docker/kind/kind-control-plane",
    "nvidia-bmm://other/{tenant}/{site}/{id}",
    "nvidia-bmm://{org}/other/{site}/{id}",
    "nvidia-bmm://{org}/{tenant}/other/{id}",
    "nvidia-bmm://{org}/other/{id}",
    "nico://other/{tenant}/{site}/{id}",
    "nico://not-an-id",
    "nvidia-bmm://",
]


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("ready", [True, False])
def test_other_providers_nodes_are_left_alone(some: Bed, foreign: str, ready: bool) -> None:
    """Not asked about, not changed, not deleted, whatever their taints and state."""
    given = foreign.format(org=ORG, tenant=TENANT, site=SITE, id="00000000-0000-4000-8000-000000000000")
    some.add("theirs", provider_id=given, ready=ready)
    some.store.create(
        NODES, {**some.node("theirs"), "metadata": {"name": "old", "labels": {}}, "spec": {"providerID": given}}
    )
    some.emulator.forget_requests()
    some.everything()
    assert not some.writes()
    assert not some.asked()


def test_no_instance_of_that_name(some: Bed) -> None:
    some.add("nobody", provider_id="")
    some.step()
    some.step(61.0)
    assert some.taints("nobody") == [UNINITIALIZED]
    assert some.reasons() == ["CloudInstanceNotFound"]


def test_a_name_that_another_node_has_taken(some: Bed) -> None:
    some.add("first", provider_id=some.provider_id("gpu-0"))
    some.add("gpu-0", provider_id="")
    some.step()
    assert some.taints("first") == []
    assert some.taints("gpu-0") == [UNINITIALIZED]
    assert "CloudInstanceNotUnique" in some.reasons()


def test_a_terminated_record_keeps_its_name(some: Bed) -> None:
    some.emulator.add_instance(
        {"name": "gpu-0", "id": "0" * 8 + "-0000-4000-8000-" + "0" * 12, "addresses": ["10.9.9.9"]}
    )
    some.emulator.alter("instance", "0" * 8 + "-0000-4000-8000-" + "0" * 12, {"status": "Terminated"})
    some.add("gpu-0", provider_id="")
    some.step()
    assert some.ips() == ["10.0.0.1", "fd00::1"]


def test_addresses_follow_the_instance(some: Bed) -> None:
    some.settled("gpu-0")
    interfaces = some.emulator.instance("gpu-0")["interfaces"]
    changed = [{**interfaces[0], "ipAddresses": ["10.7.7.7"]}, interfaces[1]]
    some.emulator.alter("instance", "gpu-0", {"interfaces": changed})
    some.update()
    assert some.ips() == ["10.7.7.7", "fd00::1"]
    assert [one["address"] for one in some.node()["status"]["addresses"]][-1] == "gpu-0"


def test_an_instance_that_is_not_ready_loses_no_address(some: Bed) -> None:
    some.settled("gpu-0")
    interfaces = some.emulator.instance("gpu-0")["interfaces"]
    some.emulator.alter("instance", "gpu-0", {"interfaces": interfaces[:1], "status": "Updating"})
    some.update()
    assert some.ips() == ["10.0.0.1", "fd00::1"]
    some.emulator.alter("instance", "gpu-0", {"status": "Ready"})
    some.update()
    assert some.ips() == ["10.0.0.1"]


@pytest.mark.parametrize("action", ["empty_interfaces", "stale", "empty"])
def test_a_list_that_is_wrong_changes_no_address(some: Bed, action: str) -> None:
    some.settled("gpu-0")
    some.emulator.add_faults([{"action": action, "path": "instance", "times": "forever"}])
    if action == "stale":
        interfaces = some.emulator.instance("gpu-0")["interfaces"]
        some.emulator.alter("instance", "gpu-0", {"interfaces": [{**interfaces[0], "ipAddresses": ["10.7.7.7"]}]})
        some.store.patch(NODES, "gpu-0", {"status": {"addresses": [{"type": "InternalIP", "address": "10.7.7.7"}]}})
        some.emulator.add_faults([{"action": "stale", "path": "instance", "times": "forever"}])
    before = some.ips()
    some.update()
    some.update()
    assert some.ips() == before


def test_addresses_that_are_of_no_use_are_left_out(make_bed: Callable[..., Bed]) -> None:
    useless = ["fe80::1", "127.0.0.1", "nonsense", "10.0.0.9", "fd00::99%eth0", "10.0.0.9"]
    bed = make_bed(
        data={"instances": [{"name": "gpu-0", "addresses": [{"ipAddresses": useless, "isPhysical": False}]}]}
    )
    bed.add("gpu-0")
    bed.step()
    assert bed.ips() == ["10.0.0.9"]


def test_without_any_address_the_taint_stays(make_bed: Callable[..., Bed]) -> None:
    bed = make_bed(data={"instances": [{"name": "gpu-0"}, {"name": "gpu-1", "fields": {"autoNetwork": True}}]})
    bed.add("gpu-0")
    bed.add("gpu-1")
    bed.step()
    assert bed.taints("gpu-0") == [UNINITIALIZED]
    assert bed.taints("gpu-1") == []
    assert "NoAddresses" in bed.reasons()


@pytest.mark.parametrize("count", [1, 100, 250])
def test_calls_depend_on_pages(make_bed: Callable[..., Bed], count: int) -> None:
    entry: dict[str, Any] = {**FOUR, "count": count, "addresses": ["10.0.0.0/16"]}
    bed = make_bed(data={"instances": [entry]})
    for number in range(count):
        bed.add(f"gpu-{number}", provider_id="" if number % 2 else bed.provider_id(f"gpu-{number}"))
    bed.step()
    pages = -(-count // 100)
    assert bed.asked().count("instance") == pages
    assert not [one for one in bed.asked() if one.startswith("instance/")]
    assert not [name for name in bed.names() if bed.taints(name)]
    bed.emulator.forget_requests()
    bed.update()
    assert bed.asked() == ["instance"] * pages


def test_the_site_is_asked_for_once(some: Bed) -> None:
    for number in range(4):
        some.add(f"gpu-{number}")
        some.step(40.0)
    assert [one for one in some.asked() if one.startswith("site/")] == [f"site/{SITE}"]


def test_a_node_made_anew_meanwhile(some: Bed) -> None:
    """A patch for the old node does not reach the new one of its name."""
    some.add("gpu-0")
    some.told()
    some.store.delete(NODES, "gpu-0")
    some.add("gpu-0", labels={"new": "yes"})
    some.initialiser.step(some.nodes.take())
    assert some.taints() == [UNINITIALIZED]
    some.step(61.0)
    assert some.taints() == []


def test_a_conflict_with_a_heartbeat_is_none(some: Bed) -> None:
    some.add("gpu-0")
    some.told()
    some.store.patch(NODES, "gpu-0", {"metadata": {"annotations": {"heartbeat": "1"}}})
    some.initialiser.step(some.nodes.take())
    assert some.taints() == []


def test_other_taints_stay(some: Bed) -> None:
    mine = {"key": "mine", "effect": "NoSchedule"}
    taint = {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}
    some.add("gpu-0", spec={"taints": [mine, taint, {"key": "yours", "effect": "NoExecute"}]})
    some.step()
    assert some.taints() == ["mine", "yours"]


def test_the_type_is_known_after_a_proof(some: Bed) -> None:
    """What is asked to prove something holds less than what a new node needs."""
    some.settled("gpu-0")
    interfaces = some.emulator.instance("gpu-0")["interfaces"]
    some.emulator.alter("instance", "gpu-0", {"interfaces": [{**interfaces[0], "ipAddresses": ["10.7.7.7"]}]})
    some.update()
    assert some.ips() == ["10.7.7.7"]
    some.store.delete(NODES, "gpu-0")
    some.add("gpu-0")
    some.step(1.0)
    assert some.labels()[TYPE] == "gpu.8xh100"
    assert some.ips() == ["10.7.7.7"]
