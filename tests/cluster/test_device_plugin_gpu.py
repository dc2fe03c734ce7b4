# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin's source of GPUs with a real kubelet: whole, in shares, sick and healed; restarts and updates.

The driver is a library without a GPU, tests/fake_nvml, in a folder of its own.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml.driver import Driver, build, uuid

from tests.cluster.kube.api import Object
from tests.cluster.kube.bed import FIGURES, is_running
from tests.cluster.kube.cluster import Cluster
from tests.cluster.kube.plugin import (
    PODS,
    Plugin,
    consumer,
    healthy_ids,
    until_allocatable,
    until_healthy,
)

NAME, GPU = "gpus", "nvidia.com/gpu"
REPLICAS = 4
STATE = "/run/device-plugin-gpu"
# An uncorrectable error, and one that a program caused.
SERIOUS, HARMLESS = 79, 31
KUBELET_RESTARTS = 3


@pytest.fixture(scope="module")
def driver(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Of two GPUs."""
    library = build(tmp_path_factory.mktemp("nvml"))
    made = Driver(cluster.folder / "driver", cluster.folder / "driver/sys", library)
    yield made
    made.close()


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, plugin_archive: Path, driver: Driver, tmp_path_factory: Any) -> Iterator[Plugin]:
    """The plugin with whole GPUs."""
    cluster.load(plugin_archive)
    cluster.set_labels({"nvidia.com/gpu.present": "true"})
    values = {"source": "gpu", "gpuRuntimeClassName": "", "gpuConfig": config(cluster)}
    made = Plugin(cluster, NAME, tmp_path_factory.mktemp("plugin"), values)
    made.install()
    yield made
    made.uninstall()
    cluster.set_labels({"nvidia.com/gpu.present": None})


def config(cluster: Cluster, **more: Any) -> Object:
    """The configuration file."""
    return {"version": "v1", "flags": {"nvidiaDriverRoot": str(cluster.folder / "driver")}, **more}


@pytest.fixture
def shares(cluster: Cluster, plugin: Plugin) -> list[str]:
    """GPUs in shares; their ids, all healthy."""
    every = {"timeSlicing": {"resources": [{"name": GPU, "replicas": REPLICAS}]}}
    # An annotation makes a new pod: the kubelet brings a changed ConfigMap into the old one within a minute or two.
    plugin.install(gpuConfig=config(cluster, sharing=every), podAnnotations={"example.org/config": "shares"})
    expected = sorted(f"{uuid(gpu)}::{number}" for gpu in (0, 1) for number in range(REPLICAS))
    until_healthy(cluster, GPU, lambda found: found == expected, 10)
    return expected


@pytest.fixture
def pod(cluster: Cluster, plugin: Plugin) -> Iterator[Object]:
    """One that has a GPU or a share of one; at the end it is the same still, and never restarted."""
    cluster.apply(consumer("user", GPU))
    running = cluster.api.until(f"{PODS}?fieldSelector=metadata.name=user", is_running, 60)
    yield running
    now = cluster.api.get(f"{PODS}/user")
    assert now["metadata"]["uid"] == running["metadata"]["uid"]
    assert is_running(now)
    assert now["status"]["containerStatuses"][0]["restartCount"] == 0
    cluster.kubectl("delete", "pod", "user", "--now")


def test_whole_gpus(cluster: Cluster, plugin: Plugin, pod: Object) -> None:
    assert healthy_ids(cluster, GPU) == [uuid(0), uuid(1)]
    until_allocatable(cluster, GPU, 2)
    visible = cluster.kubectl("exec", "-n", "default", "user", "--", "/bin/sh", "-c", "echo $NVIDIA_VISIBLE_DEVICES")
    assert visible.strip() in (uuid(0), uuid(1))


def test_an_xid_takes_all_shares_of_its_gpu_until_the_verdict_is_cleared(
    cluster: Cluster, plugin: Plugin, shares: list[str], driver: Driver, pod: Object
) -> None:
    left = [one for one in shares if one.startswith(uuid(0))]
    driver.xid(uuid(1), HARMLESS)
    driver.xid(uuid(1), SERIOUS)
    took_s = until_healthy(cluster, GPU, lambda found: found == left, 1.0)
    FIGURES.append(
        f"device plugin: {took_s:.2f} s from an XID until the kubelet had its {REPLICAS} shares as unhealthy"
    )
    until_allocatable(cluster, GPU, REPLICAS)
    assert cluster.node()["status"]["capacity"][GPU] == str(2 * REPLICAS)
    plugin.kill()
    until_healthy(cluster, GPU, lambda found: found == left, 5.0)
    restart_kubelet(cluster)
    until_healthy(cluster, GPU, lambda found: found == left, 30.0)
    assert healthy_ids(cluster, GPU) == left  # nobody called the sick one healthy meanwhile
    cluster.space.run("rm", f"{STATE}/{uuid(1)}.json")
    took_s = until_healthy(cluster, GPU, lambda found: found == shares, 1.0)
    FIGURES.append(f"device plugin: {took_s:.2f} s from the removal of the verdict until the kubelet had them again")
    until_allocatable(cluster, GPU, 2 * REPLICAS)


def test_kubelets_that_are_killed(cluster: Cluster, plugin: Plugin, shares: list[str], pod: Object) -> None:
    took = []
    for _time in range(KUBELET_RESTARTS):
        restart_kubelet(cluster)
        took.append(until_healthy(cluster, GPU, lambda found: found == shares, 10.0))
    FIGURES.append(f"device plugin: {max(took):.2f} s at most from a killed kubelet's answer until it had all shares")
    until_allocatable(cluster, GPU, 2 * REPLICAS)


def restart_kubelet(cluster: Cluster) -> None:
    """kill -9, and another; waits until it answers who has what."""
    cluster.processes["kubelet"].stop(signal.SIGKILL)
    Path(cluster.settings.path("kubelet/pod-resources/kubelet.sock")).unlink(missing_ok=True)
    cluster.launch("kubelet", cluster.settings.kubelet())
    deadline = time.monotonic() + 60
    while True:
        try:
            healthy_ids(cluster, GPU)
        except (OSError, TimeoutError):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # its socket comes when it does
        else:
            return


def test_an_update_with_a_surge(cluster: Cluster, plugin: Plugin, shares: list[str], pod: Object) -> None:
    """Two plugins at once, then the end of the older one's stream, by which the kubelet loses the newer one's."""
    with Watching(cluster, shares) as watching:
        for number in range(3):
            plugin.install(podAnnotations={"example.org/update": str(number)})
            plugin.until_alone()
        time.sleep(1.0)  # what its end did is seen by now
    FIGURES.append(
        f"device plugin: {watching.longest_s:.2f} s without all shares at most, in three updates with a surge"
    )
    assert watching.looks > 20
    assert watching.longest_s < 2.0
    assert healthy_ids(cluster, GPU) == shares


class Watching:
    """Asks the kubelet again and again; the longest time during which it did not have all of these ids."""

    def __init__(self, cluster: Cluster, expected: list[str]) -> None:
        self._cluster = cluster
        self._expected = expected
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.longest_s = 0.0
        self.looks = 0

    def __enter__(self) -> Watching:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        good = time.monotonic()
        while not self._over.wait(0.02):
            found = healthy_ids(self._cluster, GPU)
            self.looks += 1
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - good) if found != self._expected else self.longest_s
            good = now if found == self._expected else good
