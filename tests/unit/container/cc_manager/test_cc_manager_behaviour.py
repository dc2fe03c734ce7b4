# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the CC manager does beside the contract: requests for single devices, users of GPUs, drift, degraded rights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from cc_manager.messages import NodeSeen, PodsSeen, StopAsked
from cc_manager.node import Node
from cc_manager.reconcile import NOTICED_S
from fake_api.store import Refusal
from simulation import (
    COMPONENTS,
    DEVICES,
    GPUS,
    NODE,
    PAUSED,
    READY,
    SimDevice,
    Site,
)

Make = Callable[..., Site]
RUNNING = dict.fromkeys(COMPONENTS, "true")
PREFIX = "nvidia.com/gpu.deploy."
PODS = "/api/v1/namespaces/tenant/pods"


def gpu_pod(one: Site, name: str = "vm-1", **metadata: object) -> None:
    """A pod of a tenant that holds a GPU."""
    spec = {"nodeName": NODE, "initContainers": [{"resources": {"requests": {"nvidia.com/pgpu": "1"}}}]}
    about = {"name": name, "namespace": "tenant", **metadata}
    one.store.create(PODS, {"metadata": about, "spec": spec, "status": {"phase": "Running"}})


# --- a change ---------------------------------------------------------------------------------------------------------


def test_the_run_starts_while_pods_are_going(site: Make) -> None:
    """Eviction 1.0 s and the run's 1.5 s go side by side; then 2.2 s for staging, reset and boot."""
    one = site(grace_s=1.0)
    one.run(3)
    assert one.request("on") <= 1.5 + 2.2 + 0.2


def test_a_change_is_few_requests(site: Make) -> None:
    one = site()
    one.run(3)
    before = len(one.store.requests)
    one.request("on")
    one.run(1)
    made = [(request.verb, request.path.rpartition("/")[2]) for request in one.store.requests[before:]]
    assert made == [
        ("list", "pods"),  # who uses GPUs
        ("list", "pods"),  # the components'
        ("patch", NODE),  # marked and journalled
        ("patch", NODE),  # paused
        ("get", NODE),  # and once more, before the gate
        ("list", "pods"),
        ("patch", NODE),  # restored
        ("patch", NODE),  # told
        ("create", "events"),
    ]


def test_who_offers_gpus_has_time_to_take_notice_before_the_last_look_at_their_users(site: Make) -> None:
    """A retry has its plan before the node is marked, and here there is nothing to pause."""
    one = site("--cc-manager-busy", "wait", labels={})
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.run(30)
    asked = len(one.store.requests)
    one.devices.every[GPUS[0]].held_by = ""
    one.until(lambda: one.marked_at is not None, 30)
    marked_at = one.marked_at
    assert marked_at is not None
    seen = len(one.store.requests)
    one.run(NOTICED_S - 0.1)
    assert [request.verb for request in one.store.requests[seen:]] == []
    assert not any(run.is_writing for run in one.runs)
    one.until(lambda: one.state == "on", 10)
    verbs = [request.verb for request in one.store.requests[asked:]]
    assert verbs.index("patch") < verbs.index("get")  # marked, and then looked at once more


def test_at_rest_nothing_is_asked(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(10)
    before = len(one.store.requests)
    one.run(3600)
    assert one.store.requests[before:] == []


def test_components_that_the_user_keeps_away_stay_away(site: Make) -> None:
    prefix = "nvidia.com/gpu.deploy."
    one = site(
        labels={prefix + "vfio-manager": "true", prefix + "sandbox-validator": "false", prefix + "vgpu-manager": ""}
    )
    one.run(3)
    one.request("on")
    assert one.components() == {"vfio-manager": "true", "sandbox-validator": "false", "vgpu-manager": ""}


@pytest.mark.parametrize("value", ["mine", "paused-for-driver-upgrade", "True"])
def test_a_component_that_somebody_else_keeps_away_is_his(site: Make, value: str) -> None:
    """The DaemonSets select "true". Another program that pauses would not know its own value again in ours."""
    one = site(labels={"nvidia.com/gpu.deploy.vfio-manager": value})
    one.run(3)
    one.request("on")
    assert one.components() == {"vfio-manager": value}
    assert not any(PAUSED in str(request.body) for request in one.asked("patch"))


def test_a_component_that_somebody_else_lets_run_again_is_paused(site: Make) -> None:
    one = site(labels={"nvidia.com/gpu.deploy.vfio-manager": "mine", PREFIX + "sandbox-validator": "true"}, grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.component("vfio-manager", "true")
    one.run(0.5)
    assert set(one.components().values()) == {PAUSED}
    one.until(lambda: one.state == "on")
    assert set(one.components().values()) == {"true"}


def test_what_the_user_unpauses_is_paused_again_and_what_he_keeps_away_stays_away(site: Make) -> None:
    one = site(grace_s=10)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.component("vfio-manager", "true")
    one.component("kata-sandbox-device-plugin", "mine")
    one.component("sandbox-validator", None)
    one.run(0.5)
    assert one.components() == {"vfio-manager": PAUSED, "kata-sandbox-device-plugin": "mine"}
    one.until(lambda: one.state == "on")
    assert one.components() == {"vfio-manager": "true", "kata-sandbox-device-plugin": "mine"}


def test_components_in_another_namespace_are_waited_for_where_they_can_be_seen(site: Make) -> None:
    one = site(grace_s=6)
    one.settings = replace(one.settings, operator_namespace="elsewhere")
    one.kill()
    one.begin()
    one.watched_namespace = "elsewhere"
    one.run(3)
    assert one.request("on") >= 6


def test_without_eviction_no_component_is_touched(site: Make) -> None:
    one = site("--evict-operator-components", "false")
    one.run(3)
    one.request("on")
    assert not any(PAUSED in str(request.body) for request in one.asked("patch"))
    assert one.asked("list", "/namespaces/") == []


def test_a_state_that_somebody_overwrites_is_told_again(site: Make) -> None:
    one = site()
    one.run(3)
    one.store.patch("/api/v1/nodes", NODE, {"metadata": {"labels": {"nvidia.com/cc.mode.state": "ppcie"}}})
    one.violations.clear()
    one.run(1)
    assert one.state == "off"


def test_a_run_that_hangs_is_ended(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: bool(one.runs[-1].job.is_change and one.runs[-1].open_asked))
    one.runs[-1].dead = True
    one.until(lambda: one.state == "failed", 1000)
    assert "hung" in one.reason
    one.until(lambda: one.state == "on", 100)
    assert one.components() == RUNNING


def test_a_reading_that_hangs_is_ended(site: Make) -> None:
    one = site()
    one.run(0.1)
    one.runs[-1].dead = True
    one.until(lambda: one.state == "failed", 300)
    one.until(lambda: one.state == "off", 60)


# --- requests for single devices --------------------------------------------------------------------------------------


def test_requests_for_single_devices(site: Make) -> None:
    one = site()
    one.run(3)
    one.annotate(wanted=json.dumps({"3B:00.0": "devtools"}))
    one.label(mode="on")
    one.until(lambda: one.state == "mixed")
    assert one.devices.modes() == ["on", "devtools"]
    assert one.labels[READY] == ""
    assert {key: entry["mode"] for key, entry in json.loads(one.annotations[DEVICES]).items()} == {
        GPUS[0]: "on",
        GPUS[1]: "devtools",
    }
    one.annotate(wanted=None)
    one.until(lambda: one.state == "on")


def test_a_single_request_alone_leaves_the_others(site: Make) -> None:
    one = site()
    one.run(3)
    one.annotate(wanted=json.dumps({GPUS[1]: "on"}))
    one.until(lambda: one.state == "mixed")
    assert one.devices.modes() == ["off", "on"]
    assert dict(one.runs[-1].job.modes or {}) == {GPUS[1]: "on"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a mapping"),
        ('{"gpu0": "on"}', "not a PCI address"),
        ('{"17:00.0": "fast"}', "'fast', which is not a mode"),
        ('{"17:00.0": true}', "'True', which is not a mode"),
        ('{"17:00.0": "on", "0000:17:00.0": "on"}', "twice"),
        ('{"99:00.0": "on"}', "names 0000:99:00.0, where there is no NVIDIA GPU"),
    ],
)
def test_single_requests_that_cannot_be_meant(site: Make, text: str, words: str) -> None:
    one = site()
    one.run(3)
    one.annotate(wanted=text)
    one.until(lambda: one.state == "failed")
    assert words in one.reason
    assert not any(run.job.is_change for run in one.runs)


def test_switches_follow_into_ppcie_and_are_off_beside_cc(site: Make) -> None:
    one = site()
    one.devices.every["0000:07:00.0"] = SimDevice("0000:07:00.0", kind="nvswitch", supported=("off", "ppcie"))
    one.run(3)
    one.request("ppcie")
    assert one.devices.every["0000:07:00.0"].mode == "ppcie"
    one.request("on")
    assert one.devices.every["0000:07:00.0"].mode == "off"


def test_a_switch_left_behind_is_no_ppcie(site: Make) -> None:
    one = site()
    one.devices.put("ppcie")
    one.devices.every["0000:07:00.0"] = SimDevice("0000:07:00.0", kind="nvswitch", supported=("off", "ppcie"))
    one.run(3)
    assert (one.state, one.labels[READY]) == ("mixed", "")


def test_a_node_whose_gpus_know_no_cc_is_off(site: Make) -> None:
    one = site()
    for device in one.devices.every.values():
        device.supported = ()
    one.label(mode="off")
    one.run(3)
    assert (one.state, one.labels[READY], one.reason) == ("off", "false", "")
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "supports no mode" in one.reason


def test_switches_alone_are_a_failure(site: Make) -> None:
    one = site()
    one.devices.every = {"0000:07:00.0": SimDevice("0000:07:00.0", kind="nvswitch", supported=("off", "ppcie"))}
    one.run(3)
    assert one.state == "failed"


def test_an_invalid_mode_is_told_and_repaired_by_any_request(site: Make) -> None:
    one = site()
    one.devices.every[GPUS[0]].mode = "invalid"
    one.run(3)
    assert one.state == "failed"
    assert "invalid mode" in one.reason
    one.request("off")


# --- who uses the GPUs ------------------------------------------------------------------------------------------------


def test_busy_wait_lets_the_user_end(site: Make) -> None:
    one = site("--cc-manager-busy", "wait", "--cc-manager-busy-timeout", "100")
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.run(30)
    assert one.components() == RUNNING  # nothing is paused while it waits
    assert "Waiting" in one.reason
    one.devices.every[GPUS[0]].held_by = ""
    one.until(lambda: one.state == "on", 10)


def test_busy_wait_ends(site: Make) -> None:
    one = site("--cc-manager-busy", "wait", "--cc-manager-busy-timeout", "20")
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.run(300)
    assert one.devices.modes() == ["off", "off"]
    assert (one.metrics.registry.get_sample_value("cc_manager_failures_total", {"kind": "DeviceBusy"}) or 0) > 2
    assert len(one.events()) == 2  # the first state, and this


def test_busy_wait_for_pods(site: Make) -> None:
    one = site("--cc-manager-busy", "wait", "--cc-manager-busy-timeout", "100")
    one.run(3)
    gpu_pod(one)
    one.label(mode="on")
    one.run(30)
    assert one.components() == RUNNING
    one.store.delete(PODS, "vm-1")
    one.until(lambda: one.state == "on", 10)


def test_busy_wait_for_pods_ends(site: Make) -> None:
    one = site("--cc-manager-busy", "wait", "--cc-manager-busy-timeout", "20")
    one.run(3)
    gpu_pod(one)
    one.label(mode="on")
    one.until(lambda: one.state == "failed", 60)
    assert "after 20 s by tenant/vm-1" in one.reason


def test_busy_drain_evicts_pods_with_gpus_and_only_them(site: Make) -> None:
    one = site("--cc-manager-busy", "drain")
    one.run(3)
    gpu_pod(one)
    one.store.create(PODS, {"metadata": {"name": "web", "namespace": "tenant"}, "spec": {"nodeName": NODE}})
    one.request("on")
    assert [request.path for request in one.asked("create", "/eviction")] == [f"{PODS}/vm-1/eviction"]


def test_busy_drain_asks_again_when_a_budget_refuses(site: Make) -> None:
    one = site("--cc-manager-busy", "drain")
    one.run(3)
    gpu_pod(one)
    one.deny("create", "/eviction", 429)
    one.label(mode="on")
    one.run(12)
    assert len(one.asked("create", "/eviction")) == 3
    one.allow()
    one.until(lambda: one.state == "on", 20)


def test_busy_drain_without_the_right_fails(site: Make) -> None:
    one = site("--cc-manager-busy", "drain", "--cc-manager-busy-timeout", "20")
    one.run(3)
    gpu_pod(one)
    one.deny("create", "/eviction")
    one.label(mode="on")
    one.until(lambda: one.state == "failed", 60)
    assert one.devices.modes() == ["off", "off"]


def test_components_pods_with_gpus_are_no_users(site: Make) -> None:
    one = site()
    gpu_pod(one, "plugin", ownerReferences=[{"kind": "DaemonSet", "name": "nvidia-sandbox-validator"}])
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.store.delete(PODS, "plugin")
    one.until(lambda: one.state == "on")


def test_pods_that_ask_for_no_gpu_in_numbers_are_no_users(site: Make) -> None:
    one = site()
    one.run(3)
    spec = {"nodeName": NODE, "containers": [{"resources": {"limits": {"nvidia.com/gpu": "0", "cpu": 1}}}]}
    one.store.create(PODS, {"metadata": {"name": "web", "namespace": "tenant"}, "spec": spec})
    one.request("on", 10)


def test_ended_pods_are_no_users(site: Make) -> None:
    one = site()
    gpu_pod(one)
    one.store.patch(PODS, "vm-1", {"status": {"phase": "Succeeded"}})
    one.run(3)
    one.request("on")


def test_devices_that_components_use_are_waited_for(site: Make) -> None:
    """vgpu-manager keeps NVIDIA's driver in use until its pod is gone: the first plan finds them busy."""
    one = site(grace_s=5)
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "driver nvidia"

    def freed(change: object) -> None:
        if not one.component_pods():
            one.devices.every[GPUS[0]].held_by = ""

    one.store.listeners.append(freed)
    one.request("on")
    assert sum(run.job.is_change for run in one.runs) == 2


def test_a_change_that_was_refused_is_made_when_the_user_ends_hours_later(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "3")
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.run(4 * 3600)
    assert one.state == "failed"
    one.devices.every[GPUS[0]].held_by = ""
    one.until(lambda: one.state == "on", 310)


# --- drift ------------------------------------------------------------------------------------------------------------


def test_a_device_that_vanishes_is_told_until_it_is_back(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    lost = one.devices.every.pop(GPUS[1])
    one.until(lambda: GPUS[1] in one.reason, 310)
    assert (one.state, one.labels[READY]) == ("failed", "")
    assert json.loads(one.annotations[DEVICES])[GPUS[1]] == {"boot": "first", "gone": True, "mode": None}
    assert not one.readiness.there
    assert one.metrics.registry.get_sample_value("cc_manager_drift_total") == 1
    assert one.events()[-1]["reason"] == "CCModeFailed"
    one.run(1000)
    assert GPUS[1] in one.reason
    one.devices.every[GPUS[1]] = lost
    one.until(lambda: one.reason == "", 310)
    assert one.metrics.registry.get_sample_value("cc_manager_drift_total") == 1


def test_drift_is_told_and_not_repaired(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(10)
    one.devices.every[GPUS[0]].mode = one.devices.every[GPUS[0]].staged = "off"
    one.until(lambda: one.state == "mixed", 310)
    one.violations.clear()  # until it is read again, the node cannot know
    assert "left the mode on" in one.reason
    assert one.labels[READY] == ""
    one.run(1000)
    assert one.devices.modes() == ["off", "on"]
    assert one.metrics.registry.get_sample_value("cc_manager_drift_total") == 1
    assert one.events()[-1]["reason"] == "CCModeDiffers"


def test_drift_from_a_mode_that_was_there_at_the_start_is_not_repaired(site: Make) -> None:
    one = site()
    one.devices.put("on")
    one.label(mode="on")
    one.run(3)
    one.devices.put("off")
    one.until(lambda: one.state == "off", 310)
    one.violations.clear()
    one.run(1000)
    assert one.devices.modes() == ["off", "off"]
    assert "left the mode on" in one.reason


def test_a_request_that_comes_back_after_another_failed_is_carried_out(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(1)
    one.devices.fail["boot"] = "BootFailed"
    one.label(mode="devtools")
    one.until(lambda: one.state == "failed")
    one.devices.fail.clear()
    one.request("on")
    assert one.devices.modes() == ["on", "on"]


def test_drift_is_repaired_when_asked(site: Make) -> None:
    one = site("--cc-manager-drift-repair", "true")
    one.run(3)
    one.request("on")
    one.run(10)
    one.devices.put("off")
    one.until(lambda: one.devices.modes() == ["on", "on"], 310)
    one.violations.clear()
    one.run(5)
    assert (one.state, one.reason) == ("on", "")


def test_a_request_goes_before_a_reading_that_is_due(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    assert one.controller is not None
    one.controller.seen = replace(one.controller.seen, reading_due_at=one.time.now())
    one.controller.handle(NodeSeen(Node.of(one.store.get("/api/v1/nodes", NODE))))
    one.run(0.05)
    assert one.runs[-1].job.is_change
    one.until(lambda: one.state == "on", 5)


def test_no_reading_when_none_is_wanted(site: Make) -> None:
    one = site("--cc-manager-drift-interval", "0")
    one.run(3)
    one.run(4000)
    assert len(one.runs) == 1


def test_a_reading_that_fails_later_leaves_what_is_known(site: Make) -> None:
    one = site()
    one.run(3)
    one.devices.fail["read"] = "RunInProgress"
    one.run(1000)
    assert one.state == "off"


# --- rights and the API -----------------------------------------------------------------------------------------------


def test_without_the_right_to_events_all_else_works(site: Make) -> None:
    one = site()
    one.deny("create", "/events")
    one.run(3)
    one.request("on")
    one.request("off")
    assert len(one.asked("create", "/events")) == 1
    assert one.metrics.registry.get_sample_value("cc_manager_events_lost_total") == 1


def test_a_right_to_events_that_is_given_later_is_noticed(site: Make) -> None:
    one = site()
    one.deny("create", "/events", 401)
    one.run(3)
    one.allow()
    one.run(601)
    one.request("on")
    assert [event["reason"] for event in one.events()[1:]] == ["CCModeSet"]


def test_without_the_right_to_pods_elsewhere_all_else_works(site: Make, caplog: pytest.LogCaptureFixture) -> None:
    one = site()
    one.deny("list", "/api/v1/pods")
    one.run(3)
    for mode in ("on", "ppcie", "off"):
        one.request(mode)
    assert caplog.text.count("Pods of other namespaces cannot be seen") == 1


def test_the_server_says_when_to_come_again(site: Make) -> None:
    one = site()
    one.run(3)
    one.deny("patch", "/nodes/", 429, retry_after_s=20)
    one.label(mode="on")
    one.run(19)
    assert len(one.asked("patch")) == 2  # the first state, and one that was refused


def test_pods_that_a_watch_saw_before_it_was_ended_count_no_more(site: Make) -> None:
    one = site(grace_s=5)
    one.run(3)
    one.request("on")
    told = PodsSeen(one.watches[-1], False)
    one.label(mode="off")
    one.until(lambda: one.watches[-1] is not told.watch and PAUSED in one.components().values())
    one.inbox.insert(0, told)
    one.run(0.02)
    assert one.controller is not None
    assert one.controller.seen.pods is not None
    assert one.controller.seen.pods.pods != ()
    one.until(lambda: one.state == "off")


def test_without_the_right_to_patch_nothing_is_changed(site: Make) -> None:
    one = site()
    one.run(3)
    one.deny("patch", "/nodes/")
    one.label(mode="on")
    one.run(60)
    assert one.devices.modes() == ["off", "off"]
    one.allow()
    one.until(lambda: one.state == "on", 100)  # a refused mark is an attempt that failed


@pytest.mark.parametrize("at_s", [0.0, 0.02, 0.5, 2.0, 3.0])
def test_an_api_that_goes_away_during_a_change(site: Make, at_s: float) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.run(at_s)
    for verb in ("get", "list", "patch", "create"):
        one.deny(verb, "/", 503)
    one.store.before = broken
    one.run(40)
    one.allow()
    one.until(lambda: one.state == "on", 60)
    one.run(1)
    assert one.components() == RUNNING


def broken(request: object) -> None:
    raise Refusal(503, "the server is not there")


def test_stopping_without_an_api_leaves_the_rest_to_the_next_start(site: Make) -> None:
    one = site(grace_s=10)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.store.before = broken
    one.stop()
    took = one.until(lambda: one.controller is not None and one.controller.stopped, 30)
    assert 20 <= took < 26
    one.allow()
    one.begin()
    one.until(lambda: one.state == "on")
    assert one.components() == RUNNING


def test_an_api_that_always_finds_conflicts_is_asked_with_pauses(site: Make) -> None:
    one = site()
    one.run(3)
    one.deny("patch", "/nodes/", 409)
    one.label(mode="on")
    before = len(one.store.requests)
    one.run(60)
    assert len(one.store.requests) - before < 60
    one.allow()
    one.until(lambda: one.state == "on", 60)


def test_a_run_that_cannot_be_started_is_tried_again(site: Make) -> None:
    one = site()
    one.run(3)
    start = one.start

    def full(job: object) -> object:
        raise OSError(28, "No space left on device")

    one.start = full  # type: ignore[method-assign,assignment]
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "No space left" in one.reason
    one.start = start  # type: ignore[method-assign]
    one.until(lambda: one.state == "on", 30)


def test_a_stop_at_rest_is_at_once(site: Make) -> None:
    one = site()
    one.run(3)
    one.stop()
    assert one.until(lambda: one.controller is not None and one.controller.stopped) <= 0.1
    assert one.state == "off"


def test_a_stop_counts_from_the_signal_also_when_it_is_heard_late(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.deny("patch", "/nodes/", 500)
    one.put(StopAsked(one.time.now() - 10))
    one.run(15)
    assert one.controller is not None
    assert one.controller.stopped
    one.allow()


def test_a_stop_during_a_reading_is_quick(site: Make) -> None:
    one = site()
    one.run(0.2)
    one.stop()
    assert one.until(lambda: one.controller is not None and one.controller.stopped, 25) <= 1


def test_a_stop_that_comes_when_a_boot_hangs_leaves_in_time(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: bool(one.runs[-1].job.is_change and one.runs[-1].open_asked))
    one.runs[-1].dead = True
    one.stop()
    took = one.until(lambda: one.controller is not None and one.controller.stopped, 30)
    assert took < 25
    assert one.components() == RUNNING
    assert one.state == "failed"
    assert "stopped during a change" in one.reason


def test_a_node_that_is_gone_is_waited_for(site: Make) -> None:
    one = site()
    one.put(NodeSeen(None))
    one.run(10)
    assert one.state == "off" or one.state is None
    one.label(mode="on")
    one.until(lambda: one.state == "on")


def test_phases_and_modes_are_measured(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(1)
    value = one.metrics.registry.get_sample_value
    assert value("cc_manager_changes_total", {"result": "done"}) == 1
    assert value("cc_manager_state", {"state": "on"}) == 1
    assert value("cc_manager_wanted", {"mode": "on"}) == 1
    assert value("cc_manager_device_mode", {"device": GPUS[0], "mode": "on"}) == 1
    for phase in ("evict", "run", "stage", "reset", "boot", "verify", "restore"):
        assert (value("cc_manager_phase_seconds_count", {"phase": phase}) or 0) >= 1
