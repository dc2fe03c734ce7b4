# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Bad weather: runs that end without an answer, refusals, others who undo what is written, clusters that go back."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cc_manager.metrics import CCManagerMetrics
from fake_api.daemon_sets import NODES, PREFIX
from fake_api.store import Refusal, Request
from simulation import (
    CHANGING,
    COMPONENTS,
    CORDONED,
    DEVICES,
    GPUS,
    JOURNAL,
    MODE,
    NODE,
    PAUSED,
    READY,
    RETRIED,
    RETRY,
    STATE,
    SimDevice,
    Site,
)

Make = Callable[..., Site]
RUNNING = dict.fromkeys(COMPONENTS, "true")
PODS = "/api/v1/namespaces/tenant/pods"
VFIO = PREFIX + "vfio-manager"


def gpu_pod(one: Site, name: str = "vm-1", **metadata: object) -> None:
    """A pod of a tenant that holds a GPU."""
    spec = {"nodeName": NODE, "containers": [{"resources": {"limits": {"nvidia.com/pgpu": "1"}}}]}
    about = {"name": name, "namespace": "tenant", **metadata}
    one.store.create(PODS, {"metadata": about, "spec": spec, "status": {"phase": "Running"}})


def opened(one: Site, mode: str = "on") -> None:
    """A change whose run has been let through its gate and writes."""
    one.label(mode=mode)
    one.until(lambda: bool(one.runs[-1].job.is_change and one.runs[-1].wrote))


def told(one: Site) -> set[str | None]:
    return {entry["mode"] for entry in json.loads(one.annotations.get(DEVICES, "{}")).values()}


def shown(one: Site) -> set[str]:
    """The modes that the metric has."""
    (family,) = (one for one in one.metrics.registry.collect() if one.name == "cc_manager_device_mode")
    return {sample.labels["mode"] for sample in family.samples if sample.value == 1}


# --- what was read before a change is not known after it began --------------------------------------------------------


def test_no_mode_of_a_device_is_told_while_it_is_changed(site: Make) -> None:
    one = site()
    one.run(3)
    opened(one)
    assert told(one) == {None}
    assert (one.state, one.labels[READY]) == ("", "")
    one.until(lambda: one.state == "on")
    assert told(one) == {"on"}


@pytest.mark.parametrize(
    "answer",
    [
        lambda entries: [],
        lambda entries: "garbage",
        lambda entries: [{"address": GPUS[0]}, 7, None],
        lambda entries: entries[:1],
        lambda entries: [{**entry, "mode_after": None} for entry in entries],
        lambda entries: [{**entry, "mode_after": "banana"} for entry in entries],
    ],
)
def test_an_answer_that_lacks_a_device_makes_its_mode_unknown_until_it_is_read(site: Make, answer: Any) -> None:
    one = site()
    one.run(3)
    opened(one)
    one.runs[-1].answers = answer
    one.devices.fail["read"] = "RunInProgress"
    one.until(lambda: one.state == "failed")
    assert one.labels[READY] == ""
    assert None in told(one)
    assert "unknown" in shown(one)
    assert not one.readiness.there
    assert GPUS[1] in one.reason
    one.devices.fail.clear()
    one.until(lambda: one.state == "on", 120)


def test_a_device_that_a_guest_takes_after_a_change_was_cut_off_has_no_known_mode(site: Make) -> None:
    """A run that hangs after its reset, or that was killed: the mode from before is not the mode."""
    one = site()
    one.run(3)
    opened(one)
    one.runs[-1].dead = True
    for device in one.devices.every.values():
        device.mode = device.staged = "on"
        device.held_by = "process 4711 (qemu)"
    one.until(lambda: one.state == "failed", 600)
    one.run(400)
    assert one.state == "failed"
    assert told(one) == {None}
    assert one.components() == RUNNING


@pytest.mark.parametrize("lie", [False, True])
def test_after_a_restart_in_the_middle_of_a_change_nothing_is_taken_over(site: Make, lie: bool) -> None:
    one = site()
    one.run(3)
    before = one.annotations[DEVICES]
    opened(one)
    one.kill()
    for device in one.devices.every.values():
        device.mode = device.staged = "on"
        device.held_by = "process 4711 (qemu)"
    if lie:  # of somebody who puts things back
        metadata = {"labels": {STATE: "off", READY: "false"}, "annotations": {DEVICES: before}}
        one.store.patch(NODES, NODE, {"metadata": metadata})
        one.violations.clear()
    one.begin()
    one.run(0.1)
    assert (one.state, one.labels[READY]) == ("", "")
    assert told(one) == {None}
    one.run(400)
    assert (one.state, one.labels[READY]) == ("failed", "")
    assert told(one) == {None}


def test_labels_that_nobody_of_this_boot_has_read_are_taken_back_first(site: Make) -> None:
    one = site(labels={STATE: "on", READY: "true"})
    one.violations.clear()  # it was a lie before
    one.run(0.1)
    assert (one.state, one.labels[READY]) == ("", "")


def test_modes_from_before_a_boot_are_in_no_annotation(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.kill()
    one.boot = "second"
    one.begin()
    one.run(0.1)
    assert told(one) <= {None}


def test_a_mode_for_all_is_none_without_a_device_that_left_the_bus(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    lost = one.devices.every.pop(GPUS[1])
    one.until(lambda: one.state == "failed", 310)
    assert one.labels[READY] == ""
    changes = sum(run.job.is_change for run in one.runs)
    one.label(mode="ppcie")
    one.run(30)
    assert one.state == "failed"
    assert GPUS[1] in one.reason
    assert sum(run.job.is_change for run in one.runs) == changes
    one.kill()
    one.begin()  # and the next process knows it too
    one.run(5)
    assert one.state == "failed"
    assert GPUS[1] in one.reason
    one.annotate(wanted=json.dumps({GPUS[1]: "none"}))  # as the reason says
    one.until(lambda: one.state == "ppcie")
    assert GPUS[1] in one.reason
    one.annotate(wanted=None)
    one.devices.every[GPUS[1]] = lost
    one.until(lambda: one.reason == "" and one.state == "ppcie", 700)
    assert lost.mode == "ppcie"


# --- who uses the devices, when that is not known ---------------------------------------------------------------------


def test_a_device_whose_use_is_unknown_is_not_read_and_refused(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.devices.every[GPUS[0]].use_unknown = "Whether 0000:17:00.0 is used cannot be seen."
    one.until(lambda: one.state == "failed", 310)
    assert "cannot be seen" in one.reason
    assert None in told(one)
    one.label(mode="off")
    one.run(60)
    assert one.components() == RUNNING
    assert one.devices.modes() == ["on", "on"]
    assert not any(PAUSED in str(request.body) for request in one.asked("patch")[-3:])
    one.devices.every[GPUS[0]].use_unknown = ""
    one.until(lambda: one.state == "off", 310)


@pytest.mark.parametrize("status", [401, 403, 500])
def test_a_right_that_goes_right_before_the_gate_keeps_it_closed(site: Make, status: int) -> None:
    one = site(grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())

    def before(request: Request) -> None:
        if request.verb == "list" and (status != 403 or "namespaces" in request.path):
            raise Refusal(status, "no")
        if request.verb == "list":
            raise Refusal(403, "no")

    one.store.before = before
    one.run(60)
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.allow()
    one.until(lambda: one.state == "on", 700)
    one.run(1)
    assert one.components() == RUNNING


def test_a_pod_that_no_watch_has_told_of_yet_keeps_the_gate_closed(site: Make) -> None:
    one = site(grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    for watch in one.watches:
        watch.deaf = True
    gpu_pod(one)
    for name in list(one.component_pods()):
        one.store.delete("/api/v1/namespaces/gpu-operator/pods", name)
    assert one.controller is not None
    for everywhere, watch in ((True, one.watches[-2]), (False, one.watches[-1])):
        one.tell_pods(watch, everywhere, ())
    one.until(lambda: one.state == "failed")
    assert "tenant/vm-1" in one.reason
    assert [device.resets for device in one.devices.every.values()] == [0, 0]


def test_a_request_that_no_watch_has_told_of_yet_is_seen_before_the_gate(site: Make) -> None:
    one = site(grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.deaf = True
    one.label(mode="off")
    one.run(60)
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.deaf = False
    one.until(lambda: one.state == "off")


# --- drain ------------------------------------------------------------------------------------------------------------


def is_cordoned(one: Site) -> bool:
    return bool((one.store.get(NODES, NODE).get("spec") or {}).get("unschedulable"))


DRAIN = ("--cc-manager-busy", "drain", "--cc-manager-busy-timeout", "60")


def test_a_drained_node_is_cordoned_and_uncordoned(site: Make) -> None:
    one = site(*DRAIN)
    one.run(3)
    gpu_pod(one)
    one.label(mode="on")
    one.until(lambda: bool(one.asked("create", "/eviction")))
    assert is_cordoned(one)
    one.until(lambda: one.state == "on")
    assert not is_cordoned(one)
    assert CORDONED not in one.annotations


def test_a_pod_that_only_may_have_gpus_is_not_evicted(site: Make) -> None:
    """A ResourceClaim may be of another driver: then its pod would die for nothing."""
    one = site(*DRAIN)
    one.run(3)
    gpu_pod(one)
    spec = {"nodeName": NODE, "containers": [{}], "resourceClaims": [{"name": "some", "resourceClaimName": "some"}]}
    about = {"name": "claims", "namespace": "tenant"}
    one.store.create(PODS, {"metadata": about, "spec": spec, "status": {"phase": "Running"}})
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "tenant/claims may have GPUs" in one.reason
    assert one.asked("create", "/eviction") == []
    assert not is_cordoned(one)


def test_a_node_that_somebody_else_cordoned_stays_cordoned(site: Make) -> None:
    one = site(*DRAIN)
    one.run(3)
    one.store.patch(NODES, NODE, {"spec": {"unschedulable": True}})
    gpu_pod(one)
    one.request("on")
    assert is_cordoned(one)
    assert not any("spec" in request.body for request in one.asked("patch"))


def test_a_kill_during_a_drain_leaves_nothing_cordoned(site: Make) -> None:
    whole = site(*DRAIN)
    cuts = drained(whole, None)
    for number in range(1, cuts + 1):
        one = site(*DRAIN)
        drained(one, number)
        assert one.state == "on"
        assert not is_cordoned(one), one.cut_points[number - 1]
        assert CORDONED not in one.annotations


def drained(one: Site, cut_at: int | None) -> int:
    one.run(3)
    gpu_pod(one)
    one.cut_points.clear()
    one.cut_at = cut_at
    one.label(mode="on")
    one.run(60)
    return len(one.cut_points)


def test_replacements_are_not_evicted_for_ever(site: Make) -> None:
    """Of a controller whose pods tolerate a cordoned node."""
    one = site(*DRAIN, "--cc-manager-retry-limit", "3")
    one.run(3)
    gpu_pod(one)
    count = iter(range(2, 1000))

    def replace(change: Any) -> None:
        if change.collection == PODS and change.kind == "DELETED":
            one.time.later(0.1, lambda: gpu_pod(one, f"vm-{next(count)}"))

    one.store.listeners.append(replace)
    one.label(mode="on")
    one.run(3600)
    assert len(one.asked("create", "/eviction")) == 3
    assert "Given up" in one.reason
    assert "tenant/vm-4" in one.reason
    assert not is_cordoned(one)
    assert one.components() == RUNNING


def test_pods_of_daemon_sets_are_not_evicted(site: Make) -> None:
    one = site(*DRAIN)
    one.run(3)
    gpu_pod(one, "dcgm-1", ownerReferences=[{"kind": "DaemonSet", "name": "dcgm"}])
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "tenant/dcgm-1 belong" in one.reason
    assert one.asked("create", "/eviction") == []


# --- components come back whatever else is refused --------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_refused_status_keeps_no_component_paused(site: Make, status: int) -> None:
    one = site(grace_s=3)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())

    def refuse(request: Request) -> None:
        about = (request.body or {}).get("metadata", {}) if request.verb == "patch" else {}
        if "annotations" in about or STATE in about.get("labels", {}):
            raise Refusal(status, "a policy of this cluster")

    one.store.before = refuse
    one.run(20)
    assert one.components() == RUNNING
    before = len(one.store.requests)
    one.run(3600)
    assert len(one.store.requests) - before < 100
    one.allow()
    one.until(lambda: one.state == "on", 310)
    assert CHANGING not in one.annotations


def test_annotations_that_are_refused_keep_no_label_back(site: Make) -> None:
    one = site()
    one.run(3)
    opened(one)

    def refuse(request: Request) -> None:
        if request.verb == "patch" and "annotations" in request.body["metadata"]:
            raise Refusal(422, "annotations are too long")

    one.store.before = refuse
    one.until(lambda: one.state == "on", 30)
    assert one.labels[READY] == "true"


def test_one_component_that_may_not_be_put_back_keeps_no_other(site: Make) -> None:
    one = site(grace_s=3)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())

    def refuse(request: Request) -> None:
        if request.verb == "patch" and VFIO in request.body["metadata"].get("labels", {}):
            raise Refusal(403, "vfio-manager is not yours")

    one.store.before = refuse
    one.until(lambda: one.state == "on", 30)
    assert one.components() == {**RUNNING, "vfio-manager": PAUSED}
    assert "Components stay paused" in one.reason
    one.allow()
    one.until(lambda: one.components() == RUNNING and one.reason == "", 310)


@pytest.mark.parametrize(
    ("value", "original"),
    [
        ("mine_" + PAUSED, "mine"),
        (PAUSED, "true"),
        (f"{PAUSED}.v2", "true"),
        (f"by-2.0-{PAUSED}", "true"),
        (f"true_{PAUSED}_{PAUSED}", "true"),
        (f"{PAUSED}_{PAUSED}", "true"),
    ],
)
def test_what_other_managers_left_paused_is_put_back(site: Make, value: str, original: str) -> None:
    one = site(labels={VFIO: value})
    one.run(3)
    assert one.components() == {"vfio-manager": original}
    one.store.patch(NODES, NODE, {"metadata": {"labels": {VFIO: value}}})
    one.request("on")
    one.run(1)
    assert one.components() == {"vfio-manager": original}


# --- fights -----------------------------------------------------------------------------------------------------------


def undo(one: Site, key: str, value: str, when: Callable[[str | None], bool]) -> None:
    """Another controller, which puts a label back as soon as it sees it."""

    def seen(change: Any) -> None:
        if change.collection == NODES and when(change.found["metadata"].get("labels", {}).get(key)):
            one.time.later(0.01, lambda: one.store.patch(NODES, NODE, {"metadata": {"labels": {key: value}}}))

    one.store.listeners.append(seen)


def test_a_component_that_somebody_puts_back_ends_the_change(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "2")
    one.run(3)
    undo(one, VFIO, "true", lambda value: value == PAUSED)
    one.label(mode="on")
    before = len(one.store.requests)
    one.until(lambda: one.state == "failed", 120)
    assert f"keeps changing {VFIO}" in one.reason
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.until(lambda: "Given up" in one.reason, 300)
    one.run(3600)
    assert len(one.store.requests) - before < 150
    assert one.components() == RUNNING
    assert (one.metrics.registry.get_sample_value("cc_manager_fights_total", {"key": VFIO}) or 0) >= 1


def test_a_state_that_somebody_puts_back_is_told_again_with_pauses(site: Make) -> None:
    one = site()
    one.run(3)
    undo(one, STATE, "Ready", lambda value: value != "Ready")
    before = len(one.store.requests)
    one.store.patch(NODES, NODE, {"metadata": {"labels": {STATE: "Ready"}}})
    one.run(3600)
    assert len(one.store.requests) - before < 80
    assert f"keeps changing {STATE}" in one.reason
    assert one.metrics.registry.get_sample_value("cc_manager_fights_total", {"key": STATE}) == 1
    one.store.listeners.pop()
    one.until(lambda: one.state == "off", 310)
    one.until(lambda: one.reason == "", 1000)


def test_a_webhook_that_strips_a_key_makes_no_loop(site: Make) -> None:
    one = site()
    strip(one, READY)
    one.run(3600)
    assert len(one.asked("patch")) < 30
    assert one.state == "off"
    assert READY in one.reason


def strip(one: Site, key: str) -> None:
    store, patch = one.store, one.store.patch

    def stripped(collection: str, name: str, body: Any) -> Any:
        body = copy.deepcopy(body)
        for kind in ("labels", "annotations"):
            body.get("metadata", {}).get(kind, {}).pop(key, None)
        return patch(collection, name, body)

    store.patch = stripped  # type: ignore[method-assign, assignment]


def test_a_mark_that_a_webhook_strips_ends_the_change(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "2")
    one.run(3)
    strip(one, CHANGING)
    one.label(mode="on")
    one.until(lambda: "Given up" in one.reason, 600)
    assert CHANGING in one.reason
    assert one.components() == RUNNING
    assert [device.resets for device in one.devices.every.values()] == [0, 0]


@pytest.mark.parametrize("key", [CHANGING, JOURNAL])
def test_a_quarrel_that_is_over_is_none_any_more(site: Make, key: str) -> None:
    """By itself with a later attempt, and at once when the user asks for one, as the reason says."""
    one = site()
    one.run(3)
    patch = one.store.patch
    strip(one, key)
    one.label(mode="on")
    one.until(lambda: "keeps changing" in one.reason, 600)
    assert one.reason.count("keeps changing") == 1
    one.run(20)
    assert f"keeps changing {key}." in one.reason, "no key that nobody else has changed"
    one.store.patch = patch  # type: ignore[method-assign]
    one.annotate(retry="1")
    one.until(lambda: one.state == "on", 30)


def test_a_quarrel_that_ends_unseen(site: Make) -> None:
    one = site()
    one.run(3)
    patch = one.store.patch
    strip(one, JOURNAL)
    one.label(mode="on")
    one.until(lambda: "keeps changing" in one.reason, 600)
    one.store.patch = patch  # type: ignore[method-assign]
    one.until(lambda: one.state == "on", 600)


def test_a_retry_delay_of_zero_is_no_loop(site: Make) -> None:
    one = site("--cc-manager-retry-delay", "0")
    one.run(3)
    one.devices.fail["plan"] = "RunInProgress"
    one.label(mode="on")
    one.run(600)
    assert sum(run.job.is_change for run in one.runs) < 15


def test_a_success_that_does_not_last_is_repaired_later_and_later_and_ends(site: Make) -> None:
    arguments = (
        "--cc-manager-drift-repair",
        "true",
        "--cc-manager-drift-interval",
        "1",
        "--cc-manager-retry-limit",
        "4",
    )
    one = site(*arguments)
    one.run(3)
    one.request("on")

    def spoil() -> None:
        one.devices.every[GPUS[0]].mode = one.devices.every[GPUS[0]].staged = "off"
        one.time.later(0.5, spoil)

    spoil()
    one.run(3000)
    one.violations.clear()  # that the mode is told until it is read again cannot be otherwise
    assert sum(run.job.is_change for run in one.runs) <= 8
    assert "Given up" in one.reason


def test_the_clock_of_an_eviction_does_not_start_anew(site: Make) -> None:
    one = site("--cc-manager-eviction-timeout", "30", "--cc-manager-retry-limit", "1")
    one.daemon_sets.stuck.add("vfio-manager")
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    began = one.time.now()

    def unpause() -> None:
        if one.components()["sandbox-validator"] == PAUSED:
            one.component("sandbox-validator", "true")
        one.time.later(8.0, unpause)

    unpause()
    one.until(lambda: one.state == "failed", 200)
    assert one.time.now() - began < 32


def test_the_clock_of_an_eviction_runs_though_all_was_paused_before(site: Make) -> None:
    one = site("--cc-manager-eviction-timeout", "30", labels=dict.fromkeys(map(PREFIX.__add__, COMPONENTS), "true"))
    one.daemon_sets.stuck.add("vfio-manager")
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.kill()
    one.begin()
    one.until(lambda: "nvidia-vfio-manager" in one.reason, 50)
    assert one.components() == RUNNING


# --- clusters that go back --------------------------------------------------------------------------------------------


def test_a_cluster_that_was_put_back_to_an_older_state_is_believed(site: Make) -> None:
    one = site()
    one.run(3)
    saved = copy.deepcopy(one.store.objects[(NODES, NODE)])
    one.request("on")
    one.run(1)
    one.store.objects[(NODES, NODE)] = saved  # the request is gone with it, and what was told
    one.store.version = int(saved["metadata"]["resourceVersion"])
    one.violations.clear()
    one.tell_fresh()
    one.run(1)
    assert one.state == "on"
    one.label(mode="devtools")
    one.until(lambda: one.state == "devtools")


# --- what is told -----------------------------------------------------------------------------------------------------


def test_what_is_told_of_a_failure_that_repeats_does_not_change(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "1000")
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.run(310)  # the next reading finds it used, too
    assert one.state == "failed"
    before = len(one.asked("patch")), len(one.events()), one.reason
    one.run(3600)
    assert (len(one.asked("patch")), len(one.events()), one.reason) == before


@pytest.mark.parametrize("room", [300_000, 2_000, 10])
def test_a_reason_is_cut_to_what_the_api_takes(site: Make, room: int) -> None:
    one = site()
    one.store.patch(NODES, NODE, {"metadata": {"annotations": {"other": "x" * max(0, (256 << 10) - 20 - room)}}})
    one.store.before = lambda request: too_long(one, request)
    one.devices.fail["read"] = "ü" * 100_000
    one.run(30)
    assert one.state == "failed"
    assert len(one.reason.encode()) <= 4096
    if room >= 2_000:
        assert one.reason.endswith("...")


def too_long(one: Site, request: Request) -> None:
    if request.verb == "patch":
        whole = {**one.annotations, **request.body["metadata"].get("annotations", {})}
        if sum(len(key.encode()) + len(value.encode()) for key, value in whole.items() if value) > 256 << 10:
            raise Refusal(422, "annotations: Too long: may not be more than 262144 bytes")


# --- the remedies that are told ---------------------------------------------------------------------------------------


def follow(one: Site) -> None:
    """Do what the reason says."""
    assert "kubectl annotate node node-1 --overwrite nvidia.com/cc.mode.retry=" in one.reason
    one.annotate(retry=f"at {one.time.now()}")


def test_the_remedy_for_a_change_that_was_given_up(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "2")
    one.run(3)
    one.devices.fail["stage"] = "RpcFailed"
    one.label(mode="on")
    one.until(lambda: "Given up" in one.reason, 200)
    value = one.metrics.registry.get_sample_value
    assert value("cc_manager_gave_up") == 1
    changes = sum(run.job.is_change for run in one.runs)
    follow(one)
    one.until(lambda: sum(run.job.is_change for run in one.runs) == changes + 1, 2)
    one.run(60)
    assert sum(run.job.is_change for run in one.runs) == changes + 2  # with attempts of its own
    one.devices.fail.clear()
    follow(one)
    one.until(lambda: one.state == "on", 10)
    one.run(1)
    assert value("cc_manager_gave_up") == 0
    assert one.reason == ""


def test_the_remedy_for_devices_that_left_their_mode(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.devices.put("off")
    one.until(lambda: "left the mode on" in one.reason, 310)
    one.violations.clear()
    follow(one)
    one.until(lambda: one.state == "on", 10)
    assert one.devices.modes() == ["on", "on"]


def test_asking_again_reads_again_at_once(site: Make) -> None:
    one = site("--cc-manager-drift-interval", "0")
    one.devices.fail["read"] = "ToolMissing"
    one.run(3)
    assert one.state == "failed"
    one.devices.fail.clear()
    one.annotate(retry="now")
    one.until(lambda: one.state == "off", 2)
    one.devices.every[GPUS[0]].broken = "it has fallen off the bus."
    one.annotate(retry="and now")
    one.until(lambda: one.state == "failed", 2)


def test_a_reading_from_before_a_retry_is_no_answer_to_it(site: Make) -> None:
    one = site("--cc-manager-drift-interval", "0")
    one.run(3)
    assert RETRIED not in one.annotations
    one.annotate(retry="first")
    one.run(0.1)  # it is read, which takes a second
    assert one.state == "off"
    assert RETRIED not in one.annotations
    one.annotate(retry="second")
    one.until(lambda: one.annotations.get(RETRIED) == "first", 2)
    one.until(lambda: one.annotations.get(RETRIED) == "second", 2)
    one.devices.fail["read"] = "ToolMissing"
    one.annotate(retry="third")
    one.run(30)
    assert one.annotations[RETRIED] == "second"  # nothing was read
    one.devices.fail.clear()
    one.annotate(retry="fourth")
    one.until(lambda: one.annotations.get(RETRIED) == "fourth", 2)
    assert one.violations == []


def test_a_change_answers_a_retry_without_another_write(site: Make) -> None:
    one = site()
    one.run(3)
    patch = {"metadata": {"labels": {MODE: "on"}, "annotations": {RETRY: "wave 1"}}}
    one.store.patch(NODES, NODE, patch)
    one.until(lambda: one.state == "on", 60)
    assert one.annotations[RETRIED] == "wave 1"
    runs = len(one.runs)
    one.run(30)
    assert len(one.runs) == runs


def test_a_change_that_fails_is_read_again_before_it_answers_a_retry(site: Make) -> None:
    one = site()
    one.run(3)
    one.devices.fail["stage"] = "RpcFailed"
    one.store.patch(NODES, NODE, {"metadata": {"labels": {MODE: "on"}, "annotations": {RETRY: "wave 1"}}})
    one.until(lambda: one.state == "failed" and one.annotations.get(RETRIED) == "wave 1", 60)


def test_a_retry_of_any_length_is_carried_out(site: Make) -> None:
    one = site("--cc-manager-drift-interval", "0")
    one.run(3)
    runs = len(one.runs)
    one.annotate(retry="x" * 257)
    one.run(5)
    assert len(one.runs) == runs + 1
    assert RETRIED not in one.annotations


# --- time-outs --------------------------------------------------------------------------------------------------------


def test_a_firmware_that_may_boot_for_long_is_not_called_hung(site: Make) -> None:
    one = site("--cc-manager-boot-timeout", "300", "--cc-manager-eviction-timeout", "10")
    one.run(3)
    one.boot_s = 299.0
    one.label(mode="on")
    assert one.until(lambda: one.state in ("on", "failed"), 400) > 299
    assert one.state == "on"


def test_a_run_that_hangs_is_ended_though_the_node_is_gone(site: Make) -> None:
    one = site()
    one.run(3)
    opened(one)
    run = one.runs[-1]
    run.dead = True
    one.deaf = True
    one.tell_gone()
    one.until(lambda: run.closed, 600)
    one.deaf = False
    one.tell_fresh()
    one.until(lambda: one.state == "on", 120)
    assert one.components() == RUNNING


def test_a_run_that_was_ended_is_waited_for_before_components_come_back(site: Make) -> None:
    one = site()
    one.run(3)
    opened(one)
    run = one.runs[-1]
    run.dead = run.stuck = True
    one.until(lambda: run.closed, 600)
    one.run(10)
    assert set(one.components().values()) == {PAUSED}
    one.until(lambda: one.components() == RUNNING, 10)


def test_the_readiness_file_goes_with_the_stop_and_never_comes_after_it(site: Make) -> None:
    one = site()
    one.run(3)
    assert one.readiness.there
    one.stop()
    one.run(1)
    assert not one.readiness.there
    other = site()
    other.run(3)
    opened(other)
    other.stop()
    other.until(lambda: other.controller is not None and other.controller.stopped, 25)
    assert other.state == "on"
    assert not other.readiness.there


# --- hosts as they are ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["00000000:3B:00.0", "3b:00.0", "0000:3B:00.0", "0:3b:00.0", " 0000:3b:00.0"])
def test_addresses_as_people_have_them(site: Make, text: str) -> None:
    one = site()
    one.run(3)
    one.annotate(wanted=json.dumps({text: "on"}))
    one.until(lambda: one.devices.modes() == ["off", "on"])


def test_addresses_behind_a_volume_management_device(site: Make) -> None:
    one = site()
    one.devices.every["10000:01:00.0"] = SimDevice("10000:01:00.0")
    one.run(3)
    one.annotate(wanted=json.dumps({"00010000:01:00.0": "on"}))
    one.until(lambda: one.devices.modes() == ["off", "off", "on"])


def test_a_host_with_an_older_gpu_gets_ready_by_requests_for_the_others(site: Make) -> None:
    one = site()
    one.devices.every[GPUS[0]].supported = ()
    one.run(3)
    one.annotate(wanted=json.dumps({GPUS[1]: "on"}))
    one.until(lambda: one.state == "on")
    assert one.labels[READY] == "true"
    assert f"not that of {GPUS[0]} (unsupported)" in one.reason
    one.run(1)
    assert one.readiness.there


def test_a_gpu_that_the_host_uses_does_not_count_when_nobody_asks_about_it(site: Make) -> None:
    one = site()
    one.devices.every[GPUS[0]].held_by = "driver nvidia"
    one.run(3)
    assert one.state == "failed"
    one.annotate(wanted=json.dumps({GPUS[1]: "on"}))
    one.until(lambda: one.state == "on")
    assert f"{GPUS[0]} (not known)" in one.reason


def test_a_device_can_be_left_out_of_a_mode_for_all(site: Make) -> None:
    one = site("-m", "on")
    one.devices.every[GPUS[0]].supported = ()
    one.until(lambda: one.state == "failed")
    one.annotate(wanted=json.dumps({GPUS[0]: "none"}))
    one.until(lambda: one.state == "on")
    assert one.labels[READY] == "true"
    assert GPUS[0] in one.reason


# --- from the first second --------------------------------------------------------------------------------------------


def test_what_is_measured_is_there_from_the_first_second(site: Make) -> None:
    one = site()
    value = one.metrics.registry.get_sample_value
    assert value("cc_manager_state", {"state": "unknown"}) == 1
    assert value("cc_manager_state", {"state": "on"}) == 0
    assert value("cc_manager_wanted", {"mode": "none"}) == 1
    assert (value("process_start_time_seconds") or 0) > 0


def test_a_version_that_is_not_found_is_unknown(tmp_path: Path) -> None:
    value = CCManagerMetrics(str(tmp_path)).registry.get_sample_value
    assert value("cc_manager_build_info", {"version": "unknown"}) == 1


def test_the_version_is_that_of_the_collection(tmp_path: Path) -> None:
    folder = tmp_path / "ansible_collections" / "confidential" / "gpu"
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).resolve().parents[4] / "galaxy.yml", folder)
    found = CCManagerMetrics(f"/nowhere:{tmp_path}")
    (family,) = (one for one in found.registry.collect() if one.name == "cc_manager_build")
    assert family.samples[0].labels["version"].count(".") == 2


# --- what is not known of the host ------------------------------------------------------------------------------------


def test_a_request_that_cannot_be_carried_out_reads_the_devices_no_more_often(site: Make) -> None:
    one = site("-m", "on", labels={"nvidia.com/cc.mode": "bogus"})
    one.devices.host = "unknown"
    one.run(290)
    assert len(one.runs) == 1


def test_a_replacement_that_comes_while_others_still_go_is_not_evicted(site: Make) -> None:
    one = site(*DRAIN, "--cc-manager-retry-limit", "1")
    one.run(3)
    gpu_pod(one)
    one.label(mode="on")
    one.until(lambda: bool(one.asked("create", "/eviction")))
    gpu_pod(one, "vm-2")
    one.until(lambda: one.state == "failed")
    assert "tenant/vm-2 came while this node was being drained" in one.reason
    assert len(one.asked("create", "/eviction")) == 1


def test_a_right_to_see_pods_that_goes_is_no_absence_of_pods(site: Make) -> None:
    """The next attempt, which had it not from the start, asks the devices instead."""
    one = site(grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.deny("list", "/api/v1/pods")
    one.until(lambda: one.state == "failed")
    assert "were seen, and cannot be seen any more" in one.reason
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.until(lambda: one.state == "on", 60)
