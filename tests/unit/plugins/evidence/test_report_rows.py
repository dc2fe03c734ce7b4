# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the report says of devices and hosts: nothing unknown, old or unread is ever told as protected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from report_answers import (
    LATELY,
    LONG_AGO,
    NOW,
    change,
    device,
    held,
    node,
    published,
    readiness,
    reading,
    trail,
)

from ansible_collections.confidential.gpu.plugins.module_utils._report import cluster, report

GPU = "0000:17:00.0"


def made(
    hosts: dict[str, Any] | None = None,
    previous: dict[str, Any] | None = None,
    nodes: tuple[dict[str, Any], ...] = (),
    **more: Any,
) -> dict[str, Any]:
    sources = report.Sources(list(hosts or {}), hosts or {}, nodes=nodes, cluster="test" if nodes else "", **more)
    return report.build(sources, NOW, "tester", 86400, previous, {"made_at": LONG_AGO, "sha256": "0" * 64})


def row(found: dict[str, Any], host: str = "a", address: str = GPU) -> dict[str, Any]:
    (one,) = [one for one in found["devices"] if (one["host"], one["address"]) == (host, address)]
    return dict(one)


# --- verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (device(), "protected"),
        (device(mode="ppcie"), "protected"),
        (device(mode="off"), "unprotected"),
        (device(mode="devtools"), "unprotected"),
        (device(mode="unsupported"), "unprotected"),
        (device(mode="invalid"), "unprotected"),
        (device(pending_mode="off"), "pending"),
        (device(settings_unproven=True), "pending"),
        (device(problem={"cause": "The knobs cannot be read.", "remedy": "Reset it."}, pending_mode=None), "unknown"),
        (device(mode=None, problem={"cause": "It is gone.", "remedy": "Rescan."}), "unknown"),
        (device(mode="perfect"), "unknown"),
        (held(), "unknown"),
    ],
)
def test_only_what_was_read_back_and_stays_is_protected(one: dict[str, Any], verdict: str) -> None:
    found = row(made({"a": reading(one)}))
    assert found["verdict"] == verdict
    assert bool(found["why"]) == (verdict in ("pending", "unknown"))
    assert found["read_at"] == (LATELY if found["mode"] else "")


@given(
    some.sampled_from(["on", "off", "ppcie", None, "strange"]),
    some.sampled_from(["on", "off", None]),
    some.booleans(),
    some.booleans(),
    some.sampled_from([{}, {"unreachable": True, "msg": "no route"}, {"failed": True, "msg": "no"}, {"skipped": True}]),
    some.sampled_from([None, "on"]),
)
def test_a_host_that_did_not_answer_is_never_protected(
    mode: Any, pending: Any, unproven: bool, problem: bool, broken: dict[str, Any], before: Any
) -> None:
    one = device(mode=mode, pending_mode=pending, settings_unproven=unproven)
    one["problem"] = {"cause": "Bad.", "remedy": "Mend it."} if problem else None
    known = {"host": "a", "address": GPU, "mode": before, "read_at": LONG_AGO, "kind": "gpu", "name": ""}
    previous = {"devices": [known] if before else [], "made_at": LONG_AGO}
    answer = broken or reading(one)
    found = made({"a": answer}, previous)
    protected = [each for each in found["devices"] if each["verdict"] == "protected"]
    is_sure = mode in ("on", "ppcie") and pending == mode and not unproven and not problem and not broken
    is_sure = is_sure or (mode in ("on", "ppcie") and pending is None and not unproven and not problem and not broken)
    assert bool(protected) == is_sure
    assert found["devices"], "whatever happens, the host is there"


def test_a_host_that_cannot_be_reached_is_a_row_and_its_devices_are_old() -> None:
    first = made({"a": reading(device()), "b": reading(device(mode="off"))})
    gone = {"unreachable": True, "msg": "ssh: no route to host"}
    found = made({"a": gone, "b": reading(device(mode="off")), "c": gone}, first)
    old = row(found)
    assert (old["verdict"], old["mode"], old["read_at"], old["read_by"]) == ("old", "on", LATELY, "previous report")
    assert "no route" in old["why"]
    assert row(found, "c", "")["verdict"] == "unknown"
    assert found["summary"]["protected"] == 0
    assert found["summary"]["hosts_not_reached"] == 2
    assert {one["host"]: one["reached"] for one in found["hosts"]} == {"a": False, "b": True, "c": False}


def test_a_held_device_shows_who_holds_it_and_what_was_read_before() -> None:
    trails = {"a": trail(change(GPU, "on", at=LONG_AGO))}
    found = row(made({"a": reading(held())}, trails=trails))
    assert (found["verdict"], found["mode"], found["read_at"]) == ("old", "on", LONG_AGO)
    assert found["read_by"] == "ansible, audit record 1"
    assert found["holders"] == ["qemu-system-x86 (4711, /dev/vfio/27)"]


def test_a_broken_trail_says_nothing_of_modes_or_of_who_asked() -> None:
    broken = trail(change(GPU, "on"), state="broken", findings=[{"what": "modified"}])
    found = made({"a": reading(held())}, trails={"a": broken})
    assert (row(found)["verdict"], row(found)["asked_by"]) == ("unknown", "")
    assert found["summary"]["trails_broken"] == 1
    assert "trail broken" in found["changes"][0]["source"]


def test_a_device_that_was_there_is_missed() -> None:
    first = made({"a": reading(device(), device("0000:3b:00.0"))})
    found = made({"a": reading(device())}, first)
    gone = row(found, address="0000:3b:00.0")
    assert gone["verdict"] == "unknown"
    assert "was not found now" in gone["why"]
    assert "Last known: on" in gone["why"]
    without_host = made({"b": reading(device())}, first)
    assert row(without_host)["verdict"] == "old"


# --- a cluster --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "verdict"),
    [
        (node("n", {GPU: published()}), "protected"),
        (node("n", {GPU: published(pending="off")}), "pending"),
        (node("n", {GPU: published("off")}), "unprotected"),
        (node("n", {GPU: published(problem="Broken.")}), "unknown"),
        (node("n", {GPU: published(None)}), "unknown"),
        (node("n", {GPU: published()}, published_at=LONG_AGO), "old"),
        (node("n", {GPU: published()}, published_at=""), "old"),
        (node("n", {GPU: published()}, published_at="2036-11-27T06:00:00Z"), "old"),
        (node("n", {GPU: published()}, ready=False), "old"),
        (node("n", {GPU: published()}, ready=None), "old"),
        (node("n", {GPU: published()}, changing="off"), "old"),
        (node("n", {GPU: published(boot="another")}), "old"),
    ],
)
def test_what_a_manager_published_counts_while_it_is_new_and_of_this_boot(one: dict[str, Any], verdict: str) -> None:
    found = row(made(nodes=(one,)), "n")
    assert found["verdict"] == verdict
    assert found["read_by"] == ("operand" if found["mode"] else "")


def test_what_somebody_else_wrote_into_the_annotation_is_no_reading() -> None:
    found = row(made(nodes=(node("n", {GPU: published()}, published_by="kubectl-annotate"),)), "n")
    assert (found["verdict"], found["mode"]) == ("unknown", None)
    assert "written by kubectl-annotate, not by the CC manager" in found["why"]


def test_hosts_and_nodes_are_joined_by_provider_id_or_by_name() -> None:
    one = "nvidia-bmm://org/tenant/site/1a0b3fc4-26d1-4c34-9e8f-1b2f3c4d5e6f"
    short = "nico://1A0B3FC4-26d1-4c34-9e8f-1b2f3c4d5e6f"
    nodes = (node("worker-1", {GPU: published()}, provider_id=short), node("b"), node("c", provider_id="other://1"))
    hosts = {"a": reading(device()), "b": reading(device()), "c": reading(device())}
    found = made(hosts, nodes=nodes, provider_ids={"a": one, "c": "other://2"})
    joined = {each["host"]: (each["node"], each["sources"]) for each in found["hosts"]}
    assert joined == {
        "a": ("worker-1", ["inventory", "cluster"]),
        "b": ("b", ["inventory", "cluster"]),
        "c": ("", ["inventory"]),
        "c (node)": ("c", ["cluster"]),
    }
    assert row(found)["asked_by"] == "kubectl-label"


def test_a_cluster_that_says_something_else_than_the_device_is_told() -> None:
    found = made({"a": reading(device(mode="off"))}, nodes=(node("a", {GPU: published("on")}),))
    assert row(found)["verdict"] == "unprotected"
    assert "The cluster says on" in row(found)["why"]


def test_facts_of_a_node_from_the_api() -> None:
    def fields(manager: str, section: str, key: str, at: str) -> dict[str, Any]:
        return {"manager": manager, "time": at, "fieldsV1": {"f:metadata": {section: {"f:" + key: {}}}}}

    api = {
        "metadata": {
            "name": "n",
            "labels": {"nvidia.com/cc.mode": "on", "nvidia.com/cc.mode.state": "on"},
            "annotations": {"nvidia.com/cc.mode.devices": '{"0000:17:00.0": {"mode": "on"}}'},
            "managedFields": [
                fields("alice", "f:labels", "nvidia.com/cc.mode", LONG_AGO),
                fields("kubectl-label", "f:labels", "nvidia.com/cc.mode", LATELY),
                fields("k8s-cc-manager", "f:annotations", "nvidia.com/cc.mode.devices", NOW),
                {"manager": "odd", "fieldsV1": None},
            ],
        },
        "spec": {"providerID": "x://1"},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"bootID": "b"}},
    }
    assert cluster.concerns(api)
    assert not cluster.concerns({"metadata": {"name": "n", "labels": {"zone": "1"}}})
    found = cluster.node_facts(api)
    assert found["asked"] == [{"key": "nvidia.com/cc.mode", "by": "kubectl-label", "at": LATELY}]
    assert (found["published_by"], found["published_at"]) == ("k8s-cc-manager", NOW)
    assert (found["ready"], found["boot"], found["provider_id"]) == (True, "b", "x://1")
    assert found["devices"] == {GPU: {"mode": "on"}}
    odd = cluster.node_facts({"metadata": {"name": "n", "annotations": {"nvidia.com/cc.mode.devices": "[1]"}}})
    assert (odd["devices"], odd["ready"]) == ({}, None)


def test_a_cluster_that_did_not_answer_is_said() -> None:
    found = report.build(
        report.Sources(["a"], {"a": reading(device())}, cluster="c", cluster_problem="Forbidden."), NOW, "t", 86400
    )
    assert found["sources"]["cluster_problem"] == "Forbidden."


# --- hosts, drift, changes --------------------------------------------------------------------------------------------


def test_what_a_host_lacks_comes_with_the_remedy() -> None:
    found = made(
        {"a": reading(device()), "b": reading(device())}, readiness={"a": readiness("iommu"), "b": readiness()}
    )
    lacks = {one["host"]: (one["ready"], [each["remedy"] for each in one["lacks"]]) for one in found["hosts"]}
    assert lacks == {"a": (False, ["Mend iommu."]), "b": (True, [])}
    unknown = made({"a": reading(device())}, readiness={"a": {"failed": True, "msg": "No Python."}})["hosts"][0]
    assert (unknown["ready"], unknown["readiness_problem"]) == (None, "No Python.")


def test_drift_names_what_differs_and_who_asked() -> None:
    first = made({"a": reading(device(), device("0000:3b:00.0")), "b": reading(device())})
    trails = {"a": trail(change(GPU, "off", by="mallory"))}
    second = made(
        {"a": reading(device(mode="off"), device("0000:3b:00.0", driver="nvidia")), "c": reading(device())},
        first,
        trails=trails,
    )
    found = {(one["host"], one["address"], one["what"]): (one["before"], one["now"]) for one in second["drift"]}
    assert found == {
        ("a", GPU, "mode"): ("on", "off"),
        ("a", GPU, "verdict"): ("protected", "unprotected"),
        ("a", "0000:3b:00.0", "driver"): ("vfio-pci", "nvidia"),
        ("b", GPU, "verdict"): ("protected", "old"),
        ("c", GPU, "device"): ("not there", "on"),
    }
    assert {one["asked_by"] for one in second["drift"] if one["address"] == GPU and one["host"] == "a"} == {"mallory"}
    assert made({"a": reading(device())}, made({"a": reading(device())}))["drift"] == []


def test_a_mode_that_is_not_known_now_has_not_changed() -> None:
    first = made({"a": reading(device())})
    second = made({"a": reading(device(mode=None, problem={"cause": "Bad.", "remedy": "x"}))}, first)
    assert [(one["what"], one["now"]) for one in second["drift"]] == [("verdict", "old")]


def test_a_guest_that_comes_or_goes_is_no_drift() -> None:
    free, used = made({"a": reading(device())}), made({"a": reading(held())}, made({"a": reading(device())}))
    assert row(used)["verdict"] == "old"
    assert used["drift"] == []
    assert made({"a": reading(device())}, used)["drift"] == []
    assert [one["what"] for one in made({"a": reading(device(mode="off"))}, used)["drift"]] == ["mode", "verdict"]
    assert made({"a": reading(device())}, free)["drift"] == []


def test_changes_come_from_records_managed_fields_and_events() -> None:
    event = {"time": NOW, "type": "Normal", "reason": "CCModeSet", "message": "In mode on.", "count": 2, "by": "x"}
    found = made({"a": reading(device())}, nodes=(node("a", events=[event]),), trails={"a": trail(change(GPU, "on"))})
    assert [(one["source"], one["by"]) for one in found["changes"]] == [
        ("Event", "x"),
        ("audit record 1 (ansible)", "alice"),
        ("managed fields", "kubectl-label"),
    ]
    assert found["changes"][0]["text"] == "In mode on. (2 times)"
    assert found["changes"][1]["text"] == f"{GPU}: off to on"


def test_anchors_are_kept_of_trails_that_are_whole() -> None:
    first = made({"a": reading(device())}, trails={"a": trail(change(GPU, "on"))})
    assert first["anchors"] == {"a": {"ansible": f"1 {'a' * 64}"}}
    gone = made({"a": {"unreachable": True, "msg": ""}}, first)
    assert gone["anchors"] == first["anchors"]
    broken = made({"a": reading(device())}, first, trails={"a": trail(state="broken", anchor=f"9 {'b' * 64}")})
    assert broken["anchors"] == first["anchors"]


def test_a_folder_of_records_that_cannot_be_read_is_said() -> None:
    found = made({"a": reading(device())}, trails={"a": {"failed": True, "msg": "Permission denied."}})
    assert [(one["state"], one["notes"]) for one in found["trails"]] == [("unknown", ["Permission denied."])]
