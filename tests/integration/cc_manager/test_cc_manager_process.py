# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Label to verified mode, the whole way; kills, stops, holders."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest
from fake_api import faults
from fake_api.daemon_sets import NODES

from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

PAUSED = "paused-for-cc-mode-change"
JOURNAL, DEVICES = "nvidia.com/cc.mode.journal", "nvidia.com/cc.mode.devices"


def test_a_node_follows_its_label(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.until(one.ready.exists)
    for mode, switches in (("on", "off"), ("ppcie", "ppcie"), ("off", "off")):
        one.request(mode)
        one.until(lambda mode=mode: one.state == mode)
        assert one.modes() == {mode, switches}
        assert one.components() == {"true"}
        assert JOURNAL not in one.annotations
    one.request("bogus")
    one.until(lambda: one.state == "failed")
    assert "not a mode" in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.end(signal.SIGTERM) == 0


def test_a_pod_that_is_killed_is_followed_by_one_that_finishes(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.request("on")
    one.until(lambda: one.components() == {PAUSED})
    one.end(signal.SIGKILL)
    assert one.components() == {PAUSED}
    one.start()
    one.until(lambda: one.state == "on")
    assert one.components() == {"true"}
    assert one.modes() == {"on", "off"}


def test_a_pod_that_is_stopped_during_a_reset_finishes_first(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.request("on")
    one.until(lambda: any(state["counters"]["resets"] for state in one.emulator.control.state().values()))
    assert one.end(signal.SIGTERM) == 0
    assert one.state == "on"
    assert one.components() == {"true"}


def test_a_device_that_somebody_uses_is_not_touched(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    (held, *_others) = VfioUserBus(str(one.emulator.sockets)).find()
    held.open()
    one.request("on")
    one.until(lambda: one.state == "failed")
    assert held.address in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.components() == {"true"}
    assert one.modes() == {"off"}
    held.close()
    one.until(lambda: one.state == "on")


def test_of_two_cc_managers_on_a_node_one_waits_for_the_end_of_the_other(installation: Any) -> None:
    """A node that was cut off, or a pod deleted by force: the old one still works when the new one starts."""
    one = installation
    at_restore: list[set[str]] = []

    def restored(change: Any) -> None:
        if change.collection == NODES:
            if seen[-1] == {PAUSED} and one.components() == {"true"}:
                at_restore.append(one.modes())
            seen.append(one.components())

    seen: list[set[str | None]] = [{"true"}]
    first = one.start()
    one.until(lambda: one.state == "off")
    second = one.start()
    one.until(lambda: "waiting for its end" in one.said(second))
    one.store.listeners.append(restored)
    one.request("on")
    one.until(lambda: one.state == "on")
    assert at_restore == [{"on", "off"}]  # the GPUs' and the switches', and not before
    assert "waiting for its end" in one.said(second).splitlines()[-1]
    one.kill(first)
    one.request("off")
    one.until(lambda: one.state == "off")
    assert one.components() == {"true"}


# --- devices that fail ------------------------------------------------------------------------------------------------


def test_one_gpu_that_does_not_boot_makes_the_node_failed_and_is_named(installation: Any) -> None:
    one = installation
    one.start(CC_MANAGER_BOOT_TIMEOUT="1", CC_MANAGER_RETRY_LIMIT="2")
    one.until(lambda: one.state == "off")
    gpu = one.gpus()[0]
    one.emulator.control.fault(device=gpu, event="boot", action="no_boot")
    one.request("on")
    one.until(lambda: one.state == "failed")
    assert one.labels["nvidia.com/cc.ready.state"] == ""
    assert gpu in one.annotations["nvidia.com/cc.mode.reason"]
    told = {address: entry["mode"] for address, entry in json.loads(one.annotations[DEVICES]).items()}
    assert told.pop(gpu) is None
    assert all(one.modes_by_address()[address] == mode for address, mode in told.items())
    assert one.components() == {"true"}
    assert not one.ready.exists()
    one.until(lambda: "Given up" in one.annotations["nvidia.com/cc.mode.reason"])
    one.emulator.control.clear_faults()
    one.emulator.control.repair(gpu)
    one.request("off")
    one.until(lambda: one.state == "off")
    one.request("on")
    one.until(lambda: one.state == "on")


def test_a_gpu_that_falls_off_the_bus_is_told_also_by_the_next_pod(installation: Any) -> None:
    one = installation
    one.start(CC_MANAGER_DRIFT_INTERVAL="1")
    one.until(lambda: one.state == "off")
    one.until(one.ready.exists)
    gpu = one.gpus()[0]
    one.emulator.control.fault(device=gpu, event="connect", action="fall_off")
    one.until(lambda: one.state == "failed")
    assert gpu in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.labels["nvidia.com/cc.ready.state"] == ""
    one.until(lambda: not one.ready.exists())
    one.end(signal.SIGKILL)
    one.store.patch(NODES, one.name, {"metadata": {"labels": {"nvidia.com/cc.mode.state": "off"}}})  # somebody's lie
    one.start(CC_MANAGER_DRIFT_INTERVAL="1")
    one.until(lambda: one.state == "failed")
    one.emulator.control.clear_faults()
    one.emulator.control.repair(gpu)
    one.until(lambda: one.state == "off")
    assert "nvidia.com/cc.mode.reason" not in one.annotations


def test_modes_that_somebody_else_changes_are_told(installation: Any) -> None:
    one = installation
    one.start(CC_MANAGER_DRIFT_INTERVAL="1")
    one.request("on")
    one.until(lambda: one.state == "on")
    gpu = one.gpus()[0]
    one.emulator.control.set(gpu, mode="off")
    one.until(lambda: one.state == "mixed")
    assert "left the mode on" in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.labels["nvidia.com/cc.ready.state"] == ""


# --- stops ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["starting", "reading", "evicting"])
def test_a_stop_in_each_phase_leaves_nothing_paused_and_tells_no_lie(installation: Any, phase: str) -> None:
    one = installation
    one.start()
    if phase == "reading":
        one.until(lambda: one.store.requests)
    if phase == "evicting":
        one.daemon_sets.stuck.add("vfio-manager")
        one.until(lambda: one.state == "off")
        one.request("on")
        one.until(lambda: one.components() == {PAUSED})
    began = time.monotonic()
    status = one.end(signal.SIGTERM)
    assert time.monotonic() - began < 25
    assert status == 0 or phase == "starting"
    assert one.components() == {"true"}
    assert one.modes() == {"off"}
    assert one.state == ("failed" if phase == "evicting" else None)
    assert not {JOURNAL, "nvidia.com/cc.mode.changing"} & one.annotations.keys()


def test_a_stop_is_heard_while_an_answer_of_the_api_is_waited_for(installation: Any) -> None:
    one = installation
    one.start()
    one.until(one.ready.exists)
    one.store.faults.send(faults.HANG, "patch", times=1)
    requests = len(one.store.requests)
    one.request("bogus")
    one.until(lambda: any(request.verb == "patch" for request in one.store.requests[requests:]))
    one.ready.touch()
    began = time.monotonic()
    assert one.end(signal.SIGTERM) == 0
    assert time.monotonic() - began < 8  # a request may take ten seconds
    assert not one.ready.exists()


def test_a_cc_manager_whose_playbook_cannot_run_says_so(installation: Any) -> None:
    one = installation
    one.start(ANSIBLE_COLLECTIONS_PATH=str(one.folder / "nowhere"))
    one.until(lambda: one.state == "failed")
    assert "The playbook gave no answer" in one.annotations["nvidia.com/cc.mode.reason"]
    assert "cc_mode_info" in one.annotations["nvidia.com/cc.mode.reason"]
    assert not list(one.folder.glob("cc-manager-run-*"))
