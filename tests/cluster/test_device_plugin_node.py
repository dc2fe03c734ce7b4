# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin's source of GPUs and its node, as a real API server has it: with the chart's rights, and no others.

The program is this machine's Python beside the cluster, with the token of a pod of the chart's service account.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.kube.account import Account, refused
from tests.cluster.kube.api import ApiError, Object
from tests.cluster.kube.audit import Audit
from tests.cluster.kube.cluster import NODE_PATH, Cluster
from tests.cluster.kube.release import NOWHERE, token_of
from tests.cluster.kube.settings import BUSYBOX, NODE
from tools.cache import ROOT

NAME = "gpu-plugin"
CHART = ROOT / "container/charts/device-plugin"
USER = f"system:serviceaccount:{NAME}:{NAME}"
LABEL, CHANGING = "nvidia.com/device-plugin.config", "nvidia.com/cc.mode.changing"
EVENTS = "/api/v1/namespaces/default/events"


@pytest.fixture(scope="module")
def token(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """As the kubelet gives it to the plugin's pod on the node; the chart is installed, and its pods are nowhere."""
    file = tmp_path_factory.mktemp("chart") / "values.yaml"
    file.write_text(yaml.safe_dump({"source": "gpu", "fullnameOverride": NAME, **NOWHERE}))
    where = ("--namespace", NAME, "--create-namespace", "--values", str(file))
    cluster.helm("upgrade", "--install", NAME, str(CHART), *where)
    container = {"name": "main", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["/bin/sleep", "1000000"]}
    spec = {"nodeName": NODE, "serviceAccountName": NAME, "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME, "namespace": NAME}, "spec": spec}
    cluster.apply(pod)
    try:
        yield token_of(cluster, cluster.api.get(f"/api/v1/namespaces/{NAME}/pods/{NAME}"), NAME, NAME)
    finally:
        cluster.kubectl("delete", "pod", "-n", NAME, NAME, "--timeout=60s")
        cluster.helm("uninstall", NAME, "--namespace", NAME)


def eventually(said: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for what a program says in its log."""
    deadline = time.monotonic() + within_s
    while not said():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def about(node: str, name: str) -> Object:
    """An Event about a node."""
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node},
        "reason": "Test",
        "type": "Normal",
    }


def test_the_plugin_hears_of_its_node_and_makes_events_about_it(cluster: Cluster, token: str, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    for name in ("default", "other"):
        (tmp_path / "configs" / name).write_text("version: v1\n")
    (tmp_path / "plugins").mkdir()
    options = {
        "source": "gpu",
        "node": NODE,
        "kubeconfig": cluster.settings.write_kubeconfig(NAME, token),
        "configs": str(tmp_path / "configs"),
        "folder": str(tmp_path / "plugins"),
        "pod-resources": str(tmp_path / "none.sock"),
        "host-root": str(tmp_path),
        "metrics-port": "0",
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    python = ["env", f"PYTHONPATH={ROOT / 'container'}", sys.executable, "-m", "device_plugin"]
    cluster.set_labels({LABEL: "none"})
    program = cluster.space.launch(NAME, *python, *arguments)
    try:
        event = cluster.api.until(f"{EVENTS}?fieldSelector=reason=DevicePluginConfigRefused", lambda _one: True, 30)
        assert (event["involvedObject"]["name"], event["type"]) == (NODE, "Warning")
        assert "no configuration 'none'" in event["message"]
        cluster.set_labels({LABEL: "other"})
        eventually(lambda: "other is what is offered" in program.words())
        began = time.monotonic()
        cluster.api.patch(NODE_PATH, {"metadata": {"annotations": {CHANGING: "off -> on"}}})
        eventually(lambda: "their mode is being changed" in program.words())
        assert time.monotonic() - began < 1.0  # the CC manager waits that long
        cluster.api.patch(NODE_PATH, {"metadata": {"annotations": {CHANGING: None}}})
        eventually(lambda: "Devices are given again" in program.words().rpartition("being changed")[2])
        assert "cannot be watched" not in program.words(30_000)
    finally:
        program.stop()
        cluster.set_labels({LABEL: None})
    asked = Audit(cluster).read(USER)
    assert set(asked) == {"get nodes", "watch nodes", "create events"}
    assert asked["watch nodes"] == asked["get nodes"] == 1


def test_the_token_is_good_for_nothing_else(cluster: Cluster, token: str) -> None:
    account = Account(cluster, token)
    assert account.api.get(NODE_PATH)["metadata"]["name"] == NODE
    for path in ("/api/v1/nodes", "/api/v1/pods", EVENTS, f"/api/v1/namespaces/{NAME}/secrets"):
        with pytest.raises(ApiError) as caught:
            account.api.get(path)
        assert caught.value.status == 403
    with pytest.raises(ApiError) as caught:
        account.patch({"metadata": {"labels": {LABEL: "mine"}}})
    assert caught.value.status == 403
    deadline = time.monotonic() + 20  # the API server compiles a new policy within seconds of being told
    while True:
        try:
            account.api.request("POST", f"{EVENTS}?dryRun=All", about("other", "test.other"))
        except ApiError:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with refused("makes Events about nothing else"):
        account.api.request("POST", EVENTS, about("other", "test.other"))
    account.api.request("POST", EVENTS, about(NODE, "test.own"))
