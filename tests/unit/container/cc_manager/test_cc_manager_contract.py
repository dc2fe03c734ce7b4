# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The 22 points of the contract: what NVIDIA's k8s-cc-manager gets wrong, and what this one does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from simulation import (
    CHANGING,
    COMPONENTS,
    DEVICES,
    GPUS,
    JOURNAL,
    MODE,
    NODE,
    PAUSED,
    READY,
    STATE,
    Site,
)

Make = Callable[..., Site]
RUNNING = dict.fromkeys(COMPONENTS, "true")


def test_01_pods_are_found_by_their_owner(site: Make) -> None:
    """vfio-manager's pod carries no label app: it is waited for all the same, however long it takes."""
    one = site(grace_s=7)
    one.run(3)
    assert one.request("on") >= 7 + 2.1
    assert one.devices.modes() == ["on", "on"]


def test_02_every_component_is_paused(site: Make) -> None:
    names = ("vfio-manager", "vgpu-manager", "vgpu-device-manager", "sandbox-validator", "sandbox-device-plugin")
    labels = {"nvidia.com/gpu.deploy." + name: "true" for name in (*names, "kata-sandbox-device-plugin")}
    one = site(labels=labels)
    one.run(3)
    one.label(mode="on")
    one.run(0.2)
    assert set(one.components().values()) == {PAUSED}
    one.until(lambda: one.state == "on")
    assert set(one.components().values()) == {"true"}


def test_03_pods_that_cannot_be_seen_fail_the_change(site: Make) -> None:
    one = site()
    one.run(3)
    one.deny("list", "/namespaces/gpu-operator/pods")
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "pods cannot be seen" in one.reason
    assert one.devices.modes() == ["off", "off"]
    assert one.components() == RUNNING
    assert not any(PAUSED in str(request.body) for request in one.asked("patch"))


def test_04_an_eviction_that_takes_too_long_is_no_success(site: Make) -> None:
    one = site("--cc-manager-eviction-timeout", "30")
    one.run(3)
    one.daemon_sets.stuck.add("vfio-manager")
    one.label(mode="on")
    took = one.until(lambda: one.state == "failed", 100)
    assert took >= 30
    assert "nvidia-vfio-manager" in one.reason
    assert one.components() == RUNNING
    assert one.devices.modes() == ["off", "off"]
    assert one.labels[READY] == ""


def test_05_ppcie_to_off_is_done(site: Make) -> None:
    one = site()
    one.devices.put("ppcie")
    one.label(mode="ppcie")
    one.run(3)
    assert one.state == "ppcie"
    one.request("off")
    assert one.devices.modes() == ["off", "off"]


def test_06_the_readiness_file_means_verified(site: Make) -> None:
    one = site()
    assert not one.readiness.there  # a stale one is gone before anything else
    one.run(3)
    assert one.readiness.there
    one.devices.fail["boot"] = "BootFailed"
    one.label(mode="on")
    one.run(1)
    assert not one.readiness.there
    one.until(lambda: one.state == "failed")
    assert not one.readiness.there
    one.devices.fail.clear()
    one.until(lambda: one.state == "on")
    one.run(1)
    assert one.readiness.there


def test_07_a_kill_leaves_nothing_paused(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: set(one.components().values()) == {PAUSED})
    assert json.loads(one.annotations[JOURNAL]) == {f"nvidia.com/gpu.deploy.{name}": "true" for name in COMPONENTS}
    one.kill()
    one.run(60)
    assert set(one.components().values()) == {PAUSED}
    one.begin()
    one.until(lambda: one.state == "on")
    assert one.components() == RUNNING
    assert JOURNAL not in one.annotations


def test_07_what_was_paused_without_a_journal_is_restored(site: Make) -> None:
    """As NVIDIA's k8s-cc-manager leaves it when it is killed."""
    one = site(
        labels={"nvidia.com/gpu.deploy.vfio-manager": PAUSED, "nvidia.com/gpu.deploy.sandbox-validator": "false"}
    )
    one.run(3)
    assert one.components() == {"vfio-manager": "true", "sandbox-validator": "false"}


def test_08_patches_hold_only_what_changes_and_survive_conflicts(site: Make) -> None:
    one = site()
    one.run(3)
    races = iter(range(3))

    def somebody_else(request: Any) -> None:
        if request.verb == "patch" and "resourceVersion" in str(request.body) and next(races, None) is not None:
            one.store.patch("/api/v1/nodes", NODE, {"metadata": {"labels": {"other": str(one.store.version)}}})

    one.store.before = somebody_else
    one.request("on")
    one.run(1)
    assert one.components() == RUNNING
    assert one.labels["other"]
    for request in one.asked("patch"):
        assert set(request.body) == {"metadata"}
        assert set(request.body["metadata"]) <= {"labels", "annotations", "resourceVersion"}
        assert not {"other", MODE} & set(request.body["metadata"].get("labels", {}))


def test_09_a_device_in_use_is_never_reset(site: Make) -> None:
    one = site()
    one.run(3)
    one.devices.every[GPUS[0]].held_by = "process 4711 (qemu)"
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "4711" in one.reason
    one.run(100)  # and no retry pauses anything while it is held
    assert one.components() == RUNNING
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.devices.every[GPUS[0]].held_by = ""
    one.until(lambda: one.state == "on", 400)


def test_09_pods_with_gpus_keep_a_change_from_beginning(site: Make) -> None:
    one = site()
    one.run(3)
    gpu_pod(one, "vm-1")
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert "tenant/vm-1" in one.reason
    assert not any(PAUSED in str(request.body) for request in one.asked("patch"))
    assert one.devices.modes() == ["off", "off"]


def test_09_a_pod_with_gpus_that_comes_before_the_gate_opens_calls_the_change_off(site: Make) -> None:
    one = site(grace_s=5)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    gpu_pod(one, "vm-1")
    one.until(lambda: one.state == "failed")
    assert "tenant/vm-1" in one.reason
    assert PAUSED not in one.components().values()
    one.run(20)
    assert [device.resets for device in one.devices.every.values()] == [0, 0]
    one.store.delete("/api/v1/namespaces/tenant/pods", "vm-1")
    one.until(lambda: one.state == "on", 400)


def test_09_a_restart_changes_no_mode_that_nobody_asked_for(site: Make) -> None:
    one = site()
    one.devices.put("on")  # set out of band
    one.run(3)
    assert (one.state, one.labels[READY]) == ("on", "true")
    one.kill()
    one.begin()
    one.run(600)
    assert one.devices.modes() == ["on", "on"]
    assert not any(run.job.is_change for run in one.runs)


def test_09_a_restart_beside_running_guests_keeps_what_is_told(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(1)
    for device in one.devices.every.values():
        device.held_by = "process 4711 (qemu)"
    one.kill()
    one.begin()
    one.run(400)
    assert (one.state, one.labels[READY], one.reason) == ("on", "true", "")
    assert [device.resets for device in one.devices.every.values()] == [1, 1]


def test_09_after_a_boot_of_the_host_what_was_told_before_is_taken_back_first(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.kill()
    one.boot = "second"
    one.begin()
    one.run(0.1)
    assert (one.state, one.labels[READY]) == ("", "")
    one.devices.fail["read"] = "RunInProgress"
    one.until(lambda: one.state == "failed")
    before = len(one.asked("patch"))
    one.run(8)
    assert len(one.asked("patch")) == before
    one.devices.fail.clear()
    one.until(lambda: one.state == "on")
    one.kill()
    one.begin()
    one.run(0.1)
    assert one.state == "on"  # read in this boot


def test_09_after_a_boot_of_the_host_nothing_is_taken_over(site: Make) -> None:
    """A guest that was started first may have reset its GPU into another mode."""
    one = site()
    one.run(3)
    one.request("on")
    one.run(1)
    one.kill()
    for device in one.devices.every.values():
        device.held_by = "process 4711 (qemu)"
    one.boot = "second"
    one.begin()
    one.run(400)
    assert (one.state, one.labels[READY]) == ("failed", "")
    assert "process 4711 (qemu)" in one.reason
    assert [device.resets for device in one.devices.every.values()] == [1, 1]


def test_10_not_ready_before_anything_is_done(site: Make) -> None:
    one = site()
    one.run(3)
    one.request("on")
    one.run(1)
    assert one.labels[READY] == "true"
    before = len(one.store.requests)
    one.label(mode="off")
    one.until(lambda: one.state == "off")
    first = next(request for request in one.store.requests[before:] if request.verb == "patch")
    assert first.body["metadata"]["labels"][READY] == ""
    assert first.body["metadata"]["labels"][STATE] == ""
    assert first.body["metadata"]["annotations"][CHANGING] == "off"
    assert one.labels[READY] == "false"
    assert CHANGING not in one.annotations


def test_11_broken_and_unknown_devices_are_told(site: Make) -> None:
    one = site()
    one.devices.every[GPUS[1]].broken = "0000:3b:00.0: the device has fallen off the bus."
    one.run(3)
    assert (one.state, one.labels[READY]) == ("failed", "")
    assert "fallen off the bus" in one.reason
    one.label(mode="on")
    one.run(30)
    assert one.state == "failed"
    assert one.components() == RUNNING  # nothing was paused for a change that cannot be
    assert one.devices.modes() == ["off", "off"]
    assert json.loads(one.annotations[DEVICES])[GPUS[1]]["problem"]


def test_12_a_host_that_does_not_say_is_not_a_no(site: Make) -> None:
    one = site("--default-cc-mode", "on")
    one.devices.host = "unknown"
    one.devices.put("on")
    one.run(200)
    assert one.state == "on"
    assert "not known" in one.reason
    assert not any(run.job.is_change for run in one.runs)
    one.devices.put("off")
    one.devices.host = "yes"  # the module was loaded
    one.until(lambda: one.state == "on", 100)


@pytest.mark.parametrize("arguments", [["-m", "off"], []])
def test_12_a_host_that_does_not_say_is_not_asked_again_where_that_decides_nothing(
    site: Make, arguments: list[str]
) -> None:
    one = site(*arguments)
    one.devices.host = "unknown"
    one.run(290)
    assert len(one.runs) == 1


def test_12_a_label_that_goes_leaves_the_question_to_the_host(site: Make) -> None:
    one = site("-m", "on", labels={"nvidia.com/cc.mode": "off"})
    one.devices.host = "unknown"
    one.run(10)
    one.label(mode=None)
    one.run(10)
    one.devices.host = "yes"
    one.until(lambda: one.state == "on", 100)


def test_12_a_host_without_support_makes_the_default_off(site: Make) -> None:
    one = site("-m", "on")
    one.devices.host = "no"
    one.devices.put("on")
    one.until(lambda: one.state == "off")
    assert one.devices.modes() == ["off", "off"]


def test_14_a_failure_is_tried_again_and_giving_up_is_told(site: Make) -> None:
    one = site("--cc-manager-retry-limit", "3")
    one.run(3)
    one.devices.fail["stage"] = "RpcFailed"
    one.label(mode="on")
    one.until(lambda: "Given up" in one.reason, 200)
    changes = sum(run.job.is_change for run in one.runs)
    assert changes == 3
    one.run(1000)
    assert sum(run.job.is_change for run in one.runs) == 3
    assert one.components() == RUNNING
    one.devices.fail.clear()
    one.label(mode="off")
    one.until(lambda: one.state == "off")
    one.request("on")


def test_15_what_a_device_cannot_do_is_refused_and_life_goes_on(site: Make) -> None:
    one = site()
    one.devices.every[GPUS[1]].supported = ("off", "on", "devtools")
    one.run(3)
    one.label(mode="ppcie")
    one.until(lambda: one.state == "failed")
    assert "0000:3b:00.0 (H100-SXM) cannot do ppcie" in one.reason
    assert not any(run.job.is_change for run in one.runs)
    one.request("on")


def test_16_a_bogus_mode_touches_nothing(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="bogus")
    one.until(lambda: one.state == "failed")
    assert "'bogus', which is not a mode" in one.reason
    assert not any(PAUSED in str(request.body) for request in one.asked("patch"))
    assert not any(run.job.is_change for run in one.runs)
    assert {"type": "Warning", "reason": "CCModeFailed", "message": one.reason} in one.events()


def test_17_something_is_always_told(site: Make) -> None:
    one = site()
    one.devices.every.clear()
    one.run(3)
    assert one.state == "failed"
    assert "No NVIDIA GPU" in one.reason
    other = site()
    other.run(3)
    assert (other.state, other.labels[READY]) == ("off", "false")  # without any label
    third = site()
    third.devices.fail["read"] = "ToolMissing"
    third.run(3)
    assert third.state == "failed"
    assert "ToolMissing" in third.reason
    third.devices.fail.clear()
    third.until(lambda: third.state == "off", 400)


def test_18_what_a_failed_staging_leaves_is_the_modules_answer(site: Make) -> None:
    """The module rolls back; the node tells the modes that it read back then."""
    one = site()
    one.run(3)
    one.devices.fail["stage"] = "RpcFailed"
    one.label(mode="on")
    one.until(lambda: one.state == "failed")
    assert {entry["mode"] for entry in json.loads(one.annotations[DEVICES]).values()} == {"off"}
    assert one.components() == RUNNING


def test_19_one_run_changes_everything_at_once(site: Make) -> None:
    one = site()
    one.devices.put("ppcie")
    one.label(mode="ppcie")
    one.run(3)
    one.request("on")
    one.run(5)
    assert sum(run.job.is_change for run in one.runs) == 1
    assert [device.resets for device in one.devices.every.values()] == [1, 1]


def test_20_a_stop_before_the_gate_calls_the_change_off(site: Make) -> None:
    one = site(grace_s=20)
    one.run(3)
    one.label(mode="on")
    one.until(lambda: PAUSED in one.components().values())
    one.stop()
    one.until(lambda: one.controller is not None and one.controller.stopped, 25)
    assert one.components() == RUNNING
    assert one.devices.modes() == ["off", "off"]
    assert CHANGING not in one.annotations


def test_20_a_stop_after_the_gate_finishes_the_change(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: any(device.staged == "on" for device in one.devices.every.values()))
    one.stop()
    assert one.until(lambda: one.controller is not None and one.controller.stopped, 25) < 25
    assert one.components() == RUNNING
    assert one.devices.modes() == ["on", "on"]
    assert one.state == "on"


def test_21_only_the_newest_request_counts(site: Make) -> None:
    one = site()
    one.run(3)
    for mode in ("on", "devtools", "off", "ppcie", "devtools"):
        one.label(mode=mode)
        one.run(0.1)
    one.until(lambda: one.state == "devtools")
    assert one.devices.modes() == ["devtools", "devtools"]
    assert [device.resets for device in one.devices.every.values()] == [1, 1]
    assert one.components() == RUNNING


def test_21_a_request_that_comes_during_the_reset_is_next_without_a_restore_between(site: Make) -> None:
    one = site()
    one.run(3)
    one.label(mode="on")
    one.until(lambda: any(device.mode == "on" for device in one.devices.every.values()))
    before = len(one.store.requests)
    one.request("devtools")
    assert not any('"true"' in json.dumps(request.body) for request in one.store.requests[before:-3])
    assert one.components() == RUNNING


def test_22_a_change_reads_the_devices_once(site: Make) -> None:
    one = site()
    one.run(3)
    before = len(one.runs)
    one.request("on")
    one.run(10)
    assert len(one.runs) == before + 1


def gpu_pod(one: Site, name: str) -> None:
    """A pod of a tenant that holds a GPU."""
    one.store.create(
        "/api/v1/namespaces/tenant/pods",
        {
            "metadata": {"name": name, "namespace": "tenant"},
            "spec": {"nodeName": NODE, "containers": [{"resources": {"limits": {"nvidia.com/pgpu": "1"}}}]},
            "status": {"phase": "Running"},
        },
    )
