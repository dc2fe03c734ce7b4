# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What each program asks of the API holds with the oldest and the newest release that is supported."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bmm_emulator.launch import launch as bare_metal
from emulator.launch import launch as devices
from fake_kubelet.node import Node, run
from fake_nvml.driver import Driver, build

from tests.cloud.programs import UNINITIALIZED, grant, kubelet_node, start_ours, taints
from tests.cloud.server import Server, until
from tests.skew.objects import NAMESPACE, installed, known, rendered, token
from tools.cache import ROOT

CHARTS: dict[str, tuple[str, ...]] = {
    "cc-manager": ("namespace.create=true", "settings.busy=drain", "dashboard.enabled=true"),
    "device-plugin": ("source=gpu", "namespace.create=true", "gpuRuntimeClassName="),
    "cloud-controller": (),
}
GPU = "nvidia.com/gpu"
SHARED = {"version": "v1", "sharing": {"timeSlicing": {"resources": [{"name": GPU, "replicas": 4}]}}}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path has at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="skew") as made:
        yield Path(made)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_api_server_takes_each_object_of_the_chart(server: Server, folder: Path, chart: str) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    installed(server, [namespace])
    objects = rendered(folder, chart, *CHARTS[chart])
    found = list(known(server, objects))
    assert {one["kind"] for _path, one in found} >= {"ServiceAccount", "ClusterRole"}
    for path, one in found:
        if one["kind"] != "Namespace":
            server.request("POST", f"{path}?dryRun=All&fieldValidation=Strict", one)


def test_the_cc_manager_follows_the_label(server: Server, folder: Path) -> None:
    name = "cc-manager-node"
    server.register(kubelet_node(name, taints=[], labels={"nvidia.com/cc.mode": "on"}))
    objects = rendered(folder, "cc-manager", *CHARTS["cc-manager"])
    installed(server, objects)
    with devices("h100-pcie", boot_s=0.1, flr_s=0.01, rpc_s=0.0002) as emulator:
        server.tokens["cc-manager"] = token(server, objects, name)
        child = server.run(
            "cc-manager",
            sys.executable,
            "-m",
            "cc_manager",
            environment={
                **os.environ,
                "PYTHONPATH": str(ROOT / "container"),
                "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
                "NODE_NAME": name,
                "KUBECONFIG": str(server.kubeconfig("cc-manager")),
                "OPERATOR_NAMESPACE": NAMESPACE,
                "CC_READINESS_FILE": str(folder / "ready"),
                "CC_MANAGER_BUS": f"vfio-user:{emulator.sockets}",
                "CC_MANAGER_METRICS_PORT": "0",
            },
        )
        try:
            until(lambda: state(server, name) == "on", 60, "the label was not followed")
            assert {one["mode"] for one in emulator.control.state().values()} == {"on"}
            # The devices leave their mode when the label says so, while the watch goes on.
            server.patch(name, {"metadata": {"labels": {"nvidia.com/cc.mode": "off"}}})
            until(lambda: state(server, name) == "off", 60, child.words())
            assert [one for one in server.events() if one["involvedObject"]["name"] == name]
        finally:
            assert child.end(signal.SIGTERM) == 0, child.words()


def state(server: Server, name: str) -> str | None:
    """The mode that the CC manager has published."""
    found: str | None = server.nodes()[name]["metadata"]["labels"].get("nvidia.com/cc.mode.state")
    return found


def test_the_device_plugin_follows_its_node(server: Server, folder: Path) -> None:
    name = "plugin-node"
    server.register(kubelet_node(name, taints=[]))
    objects = rendered(folder, "device-plugin", *CHARTS["device-plugin"])
    installed(server, objects)
    server.tokens["plugin"] = token(server, objects, name)
    run(withheld_and_given(server, folder, name))


async def withheld_and_given(server: Server, folder: Path, name: str) -> None:
    """The mark of a change takes every share away, and its end gives them back."""
    node = Node(folder)
    (folder / "library").mkdir()
    driver = Driver(node.root, node.sys, build(folder / "library"), 2)
    node.configure(SHARED)
    await node.kubelet.start()
    environment = {
        **node.environment(),
        "DEVICE_PLUGIN_SOURCE": "gpu",
        "DEVICE_PLUGIN_KUBECONFIG": str(server.kubeconfig("plugin")),
        "DEVICE_PLUGIN_NODE": name,
    }
    child = server.run("plugin", sys.executable, "-m", "device_plugin", environment=environment)
    try:
        await node.allocatable(8, GPU, 20)
        for mark, count in ((json.dumps({"desired": "on"}), 0), (None, 8)):
            change: Any = {"metadata": {"annotations": {"nvidia.com/cc.mode.changing": mark}}}
            await asyncio.to_thread(server.patch, name, change)
            await node.allocatable(count, GPU, 20)
    except TimeoutError:
        raise AssertionError(child.words()) from None
    finally:
        ended = await asyncio.to_thread(child.end, signal.SIGTERM)
        await node.kubelet.kill()
        driver.close()
    assert ended == 0, child.words()


def test_the_cloud_controller_initialises_nodes(server: Server, folder: Path) -> None:
    data = {"instances": [{"name": "gpu-{n}", "count": 3, "type": "gpu.8xh100", "addresses": ["10.0.0.0/24"]}]}
    grant(server, folder)
    with bare_metal(data) as emulator:
        names = [f"gpu-{number}" for number in range(3)]
        for name in names:
            server.register(kubelet_node(name))
        child = start_ours(server, emulator)
        try:
            until(lambda: not any(UNINITIALIZED in taints(server.nodes()[name]) for name in names), 30, child.words())
            assert all(server.nodes()[name]["spec"]["providerID"].startswith("nvidia-bmm://") for name in names)
        finally:
            assert child.end(signal.SIGTERM) == 0, child.words()
