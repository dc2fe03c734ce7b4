# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""One node with emulated GPUs, the GPU Operator's components and the manager: what a test starts from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tools.cache import ROOT

from . import workloads
from .api import ApiError, Object
from .cluster import NODE_PATH, Cluster
from .settings import NODE
from .workloads import DEPLOY, MANAGER, NAMESPACE, Manifest

sys.path.insert(0, str(ROOT / "gpu-admin-tools"))
from emulator.launch import Emulator, launch

# As the pods see it, and as this process does.
SOCKETS = "/run/nvidia/gpus"
BUS = f"vfio-user:{SOCKETS}"
PREFIX = "nvidia.com/"
MODE, STATE, READY = (f"{PREFIX}{name}" for name in ("cc.mode", "cc.mode.state", "cc.ready.state"))
JOURNAL, CHANGING, REASON, DEVICES = (
    f"{PREFIX}cc.mode.{name}" for name in ("journal", "changing", "reason", "devices")
)
PAUSED = "paused-for-cc-mode-change"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
QUICK = {"boot_s": 0.3, "flr_s": 0.05}
# What a run of the suite tells at its end.
FIGURES: list[str] = []


class Bed:
    """The node, from ``start`` to ``end``."""

    def __init__(self, cluster: Cluster, node: str | Mapping[str, Any] = "hgx-h100", **timing: float) -> None:
        self.cluster = cluster
        self.run_nvidia = cluster.folder / "nvidia"
        self.journal = cluster.folder / "emulator.jsonl"
        self._node = node
        self._timing: dict[str, Any] = dict(timing or QUICK)
        self._state = cluster.folder / "emulator-state.json"
        self._stack = contextlib.ExitStack()
        self._components: Sequence[Manifest] = ()
        self.desired_at = 0.0
        self.emulator: Emulator

    def power_on(self) -> None:
        """The devices, with the knobs that they had."""
        self.journal.unlink(missing_ok=True)
        self._stack = contextlib.ExitStack()
        place = self.run_nvidia / "gpus"
        self.emulator = self._stack.enter_context(
            launch(self._node, sockets=place, state=self._state, log=self.journal, **self._timing)
        )

    def power_off(self) -> None:
        """The devices; and what the node keeps in memory only."""
        self._stack.close()
        for path in self.run_nvidia.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def start(self, components: Sequence[Manifest] = workloads.KATA, **environment: str) -> None:
        """Devices, components and the manager as the GPU Operator deploys it; waits until its pod runs."""
        self.start_node(components)
        self.cluster.apply(*workloads.manager({"CC_MANAGER_BUS": BUS, **environment}))
        self.wait_for_manager()

    def start_node(self, components: Sequence[Manifest] = workloads.KATA) -> None:
        """Devices and components without a manager."""
        self._state.unlink(missing_ok=True)
        self.power_on()
        self._components = components
        self.cluster.apply(*components)
        labels = {workloads.deploy_label(one): "true" for one in components}
        self.cluster.set_labels({**labels, f"{DEPLOY}cc-manager": "true", f"{PREFIX}cc.capable": "true"})

    def end(self) -> None:
        """Nothing of it is left."""
        gone = [f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{MANAGER}"]
        gone += [
            f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{one['metadata']['name']}" for one in self._components
        ]
        for path in gone:
            self.cluster.api.delete(path)
        for pod in self.cluster.pods(NAMESPACE):
            name = pod["metadata"]["name"]
            self.cluster.api.delete(f"{PODS}/{name}?gracePeriodSeconds=0")
        self.wait_for_no_pods()
        found = self.cluster.node()["metadata"]
        empty = {
            kind: dict.fromkeys([key for key in found[kind] if key.startswith(PREFIX)])
            for kind in ("labels", "annotations")
        }
        self.cluster.api.patch(NODE_PATH, {"metadata": empty})
        self.power_off()

    # --- what a user does ---------------------------------------------------------------------------------------------

    def want(self, mode: str | None) -> float:
        """Set the label; the moment (monotonic seconds) at which the API server had it."""
        self.cluster.set_labels({MODE: mode})
        self.desired_at = time.monotonic()
        return self.desired_at

    def change(self, mode: str, state: str | None = None, timeout_s: float = 60) -> float:
        """Ask for a mode and wait for the state label; the seconds that it took."""
        began = self.want(mode)
        self.until(lambda node: is_settled(node, state or mode), timeout_s)
        return time.monotonic() - began

    def until(self, good: Callable[[Object], bool], timeout_s: float = 60) -> Object:
        """The node once it is as it should be; the manager's words come with the error."""
        try:
            return self.cluster.until_node(good, timeout_s)
        except ApiError as error:
            raise ApiError(f"{error}\n--- the manager says:\n{self.manager_words()}") from error

    # --- what is there ------------------------------------------------------------------------------------------------

    def manager(self) -> Object:
        """The manager's pod that is not about to go. Raises ApiError."""
        pods = [
            pod
            for pod in self.cluster.pods(NAMESPACE, f"name={MANAGER}")
            if not pod["metadata"].get("deletionTimestamp")
        ]
        if not pods:
            raise ApiError("there is no manager")
        return pods[0]

    def wait_for_manager(self, timeout_s: float = 60) -> Object:
        """The manager's pod, running."""
        return self.cluster.api.until(f"{PODS}?labelSelector=name={MANAGER}", is_running, timeout_s)

    def manager_words(self, previous: bool = False) -> str:
        """What it logged."""
        try:
            name = self.manager()["metadata"]["name"]
            return self.cluster.kubectl(
                "logs", "-n", NAMESPACE, name, f"--previous={str(previous).lower()}", check=False
            )[-6000:]
        except ApiError as error:
            return str(error)

    def metric(self, name: str) -> float:
        """The largest value of a metric of the manager, whatever its labels; 0 if it is not there."""
        pod = self.manager()["metadata"]["name"]
        text = self.cluster.api.get(f"{PODS}/{pod}:9403/proxy/metrics")
        found = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, flags=re.MULTILINE)
        return max(map(float, found), default=0.0)

    def kill(self, pid: int) -> None:
        """kill -9 of a container's first process, and so of all that it started."""
        os.kill(pid, signal.SIGKILL)

    def wait_until(self, good: Callable[[], bool], timeout_s: float = 60) -> None:
        """Until something holds that no watch tells of."""
        deadline = time.monotonic() + timeout_s
        while not good():
            if time.monotonic() > deadline:
                raise ApiError(f"not seen in {timeout_s:.0f} s; the manager says:\n{self.manager_words()}")
            time.sleep(0.01)

    def seconds_since_request(self) -> float:
        """Since the label was last set."""
        return time.monotonic() - self.desired_at

    def labels(self) -> dict[str, str]:
        """The node's labels below nvidia.com/."""
        found = self.cluster.node()["metadata"]["labels"]
        return {key: value for key, value in found.items() if key.startswith(PREFIX)}

    def modes(self) -> set[str]:
        """The modes that the devices have, as the emulator knows them, whatever anybody says."""
        return {device["mode"] for device in self._gpus()}

    def _gpus(self) -> list[dict[str, Any]]:
        """NVSwitches know no CC modes."""
        return [one for one in self.emulator.control.state().values() if not one["model"].startswith("nvswitch")]

    def component_pods(self) -> dict[str, Object]:
        """The components' pods by DaemonSet, those that are about to go included."""
        names = {one["metadata"]["name"] for one in self._components}
        pods = self.cluster.pods(NAMESPACE)
        return {owner(pod): pod for pod in pods if owner(pod) in names}

    def wait_for_components(self, timeout_s: float = 60) -> dict[str, str]:
        """Until every component's pod runs; their uids by DaemonSet."""
        for one in self._components:
            (label,) = one["spec"]["selector"]["matchLabels"].items()
            self.cluster.api.until(f"{PODS}?labelSelector={'%3D'.join(label)}", is_running, timeout_s)
        return {name: pod["metadata"]["uid"] for name, pod in self.component_pods().items()}

    def wait_for_no_pods(self) -> None:
        """Until the namespace is empty."""
        self.wait_until(lambda: not self.cluster.pods(NAMESPACE))

    def device_events(self, op: str) -> list[dict[str, Any]]:
        """What the emulator logged of one kind, with its moment (monotonic seconds)."""
        self.emulator.control.state()  # what is in the log's buffer is written
        lines = self.journal.read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["op"] == op]

    def resets(self) -> int:
        """How many resets the devices have seen."""
        return sum(device["counters"]["resets"] for device in self.emulator.control.state().values())


def owner(pod: Object) -> str:
    """The name of the DaemonSet that a pod belongs to."""
    owners = pod["metadata"].get("ownerReferences", [])
    return next((one["name"] for one in owners if one["kind"] == "DaemonSet"), "")


def is_running(pod: Object) -> bool:
    """Whether all containers of a pod run."""
    if pod.get("deleted") or pod["metadata"].get("deletionTimestamp"):
        return False
    states = pod.get("status", {}).get("containerStatuses", [])
    return bool(states) and all("running" in state["state"] for state in states)


def annotations_of(node: Object) -> dict[str, str]:
    """A node's annotations."""
    found: dict[str, str] = node["metadata"].get("annotations", {})
    return found


def is_settled(node: Object, state: str) -> bool:
    """Whether a node says that it is in a state, and that nothing is being changed."""
    return node["metadata"]["labels"].get(STATE) == state and CHANGING not in annotations_of(node)


@contextlib.contextmanager
def bed(cluster: Cluster, node: str | Mapping[str, Any] = "hgx-h100", **timing: float) -> Iterator[Bed]:
    """A bed that is taken away at the end."""
    made = Bed(cluster, node, **timing)
    try:
        yield made
    finally:
        made.end()


__all__ = ["NODE", "Bed", "bed"]
