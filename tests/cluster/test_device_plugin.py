# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin with a real kubelet: allocations, restarts, an update with a surge, a device that goes.

The device is a node of this machine's null device in a folder of the cluster's own /dev/net; the name that the kernel
has for its number is the test's.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube.api import ApiError, Object
from tests.cluster.kube.bed import FIGURES, is_running
from tests.cluster.kube.cluster import NODE_PATH, Cluster
from tests.cluster.kube.programs import EVERY
from tests.cluster.kube.settings import BUSYBOX
from tools.cache import ROOT

CHART = ROOT / "container/charts/device-plugin"
NAME = "device-plugin"
RESOURCE = "tdx.intel.com/tdx-guest"
LABEL = "intel.feature.node.kubernetes.io/tdx-guest"
DEVICE = "/dev/net/tdx_guest"
SYS = "/run/tee-sys"
SLOTS = 4
PODS = f"/api/v1/namespaces/{NAME}/pods"
# The kubelet tells the API server of devices with its next report of the node.
BEAT_S = 10.0


@pytest.fixture(scope="module")
def guest(cluster: Cluster, plugin_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The node as a TDX guest with the plugin installed."""
    folder = tmp_path_factory.mktemp("plugin")
    cluster.load(plugin_archive)
    cluster.space.run("mount", "-t", "tmpfs", "tmpfs", "/dev/net")
    cluster.space.run("mkdir", "-p", f"{SYS}/dev/char/1:3")
    cluster.space.run("sh", "-c", f"echo DEVNAME=tdx_guest > {SYS}/dev/char/1:3/uevent")
    add_device(cluster)
    cluster.set_labels({LABEL: "enabled"})
    install(cluster, folder)
    yield cluster
    cluster.helm("uninstall", NAME, "--namespace", NAME, "--wait", "--timeout", "60s")
    # Helm waits for the DaemonSet to go; its pods end after that. This waits for them, and is content with none.
    cluster.kubectl("delete", "pod", "-n", NAME, "--all", "--timeout=60s")
    left = cluster.space.run("sh", "-c", "ls /var/lib/kubelet/device-plugins")
    cluster.set_labels({LABEL: None})
    cluster.space.run("umount", "/dev/net")
    assert "cdp-" not in left


def values_for(cluster: Cluster, **values: Any) -> Object:
    """Values of the chart."""
    return {
        "config": {"resources": [{"device": "tdx-guest", "name": RESOURCE, "paths": [DEVICE], "slots": SLOTS}]},
        "kubeletRoot": cluster.settings.path("kubelet"),
        "namespace": {"create": True},
        "extraEnv": {"DEVICE_PLUGIN_SYS": "/tee-sys"},
        "extraVolumes": [{"name": "tee-sys", "hostPath": {"path": SYS}}],
        "extraVolumeMounts": [{"name": "tee-sys", "mountPath": "/tee-sys", "readOnly": True}],
        **values,
    }


def install(cluster: Cluster, folder: Path, **values: Any) -> None:
    """Install or upgrade, and wait until the new pod is ready."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values_for(cluster, **values)))
    options = ("--create-namespace", "--take-ownership", "--wait", "--timeout", "60s")
    cluster.helm("upgrade", "--install", NAME, str(CHART), "--namespace", NAME, "--values", str(file), *options)


def add_device(cluster: Cluster) -> None:
    """It comes."""
    cluster.space.run("mknod", "-m", "0600", DEVICE, "c", "1", "3")


def allocatable(cluster: Cluster, count: int, within_s: float = BEAT_S + 5) -> float:
    """Wait until the node has so many; seconds."""
    began = time.monotonic()
    cluster.until_node(lambda node: node["status"]["allocatable"].get(RESOURCE) == str(count), within_s)
    return time.monotonic() - began


def consumer(name: str) -> Object:
    """A pod that asks for one."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "main",
                    "image": BUSYBOX,
                    "imagePullPolicy": "Never",
                    "command": ["/bin/sleep", "1000000"],
                    "resources": {"limits": {RESOURCE: "1"}},
                }
            ],
        },
    }


@pytest.fixture
def pod(guest: Cluster) -> Iterator[Object]:
    """One that runs, with the device; at the end it is the same still, and never restarted."""
    allocatable(guest, SLOTS)
    guest.apply(consumer("user"))
    path = "/api/v1/namespaces/default/pods?fieldSelector=metadata.name=user"
    running = guest.api.until(path, is_running, 60)
    yield running
    now = guest.api.get("/api/v1/namespaces/default/pods/user")
    assert now["metadata"]["uid"] == running["metadata"]["uid"]
    assert now["status"]["containerStatuses"][0]["restartCount"] == 0
    guest.kubectl("delete", "pod", "user", "--now")


def in_pod(cluster: Cluster, *command: str) -> str:
    """Run a command in the user's pod."""
    return cluster.kubectl("exec", "-n", "default", "user", "--", *command)


def plugin_pod(cluster: Cluster) -> Object:
    """The plugin's only pod."""
    (found,) = [one for one in cluster.pods(NAME) if not one["metadata"].get("deletionTimestamp")]
    return found


def test_a_pod_gets_the_device_and_the_folder(guest: Cluster, pod: Object) -> None:
    listed = in_pod(guest, "/bin/ls", "-l", DEVICE)
    assert listed.startswith("crw")
    assert "1,   3" in listed
    in_pod(guest, "/bin/sh", "-c", f"echo x > {DEVICE}")
    assert in_pod(guest, "/bin/stat", "-c", "%a %u", "/run/ccnp/uds").split() == ["755", "0"]
    metrics = guest.api.get(f"{PODS}/{plugin_pod(guest)['metadata']['name']}:2112/proxy/metrics")
    assert f'device_plugin_allocated_devices{{resource="{RESOURCE}"}} 1.0' in metrics
    assert f'device_plugin_healthy_devices{{resource="{RESOURCE}"}} {SLOTS}.0' in metrics
    peak = guest.memory_peak_bytes(plugin_pod(guest))
    FIGURES.append(f"device plugin's pod: memory peak {peak / 2**20:.0f} MiB, page cache included")


def test_a_device_that_goes_and_comes_back(guest: Cluster, pod: Object) -> None:
    guest.space.run("rm", DEVICE)
    allocatable(guest, 0)
    add_device(guest)
    allocatable(guest, SLOTS)


def test_a_kubelet_that_is_killed_again_and_again(guest: Cluster, pod: Object) -> None:
    before = registrations(guest)
    for _time in range(5):
        guest.processes["kubelet"].stop(signal.SIGKILL)
        guest.launch("kubelet", guest.settings.kubelet())
        deadline = time.monotonic() + 30
        while registrations(guest) == before:
            assert time.monotonic() < deadline
            time.sleep(0.1)  # the plugin tells nobody else
        before = registrations(guest)
    assert allocatable(guest, SLOTS) < BEAT_S + 5


def registrations(cluster: Cluster) -> int:
    """How often the kubelet had the plugin, from the plugin's log."""
    name = plugin_pod(cluster)["metadata"]["name"]
    return cluster.kubectl("logs", "-n", NAME, name, check=False).count("registered with the kubelet")


def test_an_update_with_a_surge(guest: Cluster, pod: Object, tmp_path: Path) -> None:
    old = plugin_pod(guest)["metadata"]["name"]
    for number in range(2):
        install(guest, tmp_path, podAnnotations={"example.org/number": str(number)})
        allocatable(guest, SLOTS)
    new = plugin_pod(guest)["metadata"]["name"]
    assert new != old
    time.sleep(BEAT_S + 2)  # what the end of the old one did would be seen by now
    assert guest.api.get(NODE_PATH)["status"]["allocatable"][RESOURCE] == str(SLOTS)


def test_the_role_upgrades_it_once(guest: Cluster, tmp_path: Path) -> None:
    """Check mode installs nothing; a second run changes nothing."""
    link = tmp_path / "ansible_collections/confidential/gpu"
    link.parent.mkdir(parents=True)
    link.symlink_to(ROOT)
    variables = {
        "ansible_python_interpreter": sys.executable,
        "device_plugin_helm": str(EVERY["helm"].path()),
        "device_plugin_kubeconfig": guest.settings.path("admin.kubeconfig"),
        "device_plugin_values": values_for(guest, podLabels={"by": "role"}),
        "device_plugin_take_ownership": True,
    }
    roles = [{"role": "confidential.gpu.device_plugin"}]
    file = tmp_path / "play.yml"
    file.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "roles": roles, "vars": variables}]))

    def run(*options: str) -> str:
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = [f"PATH={os.environ['PATH']}", f"ANSIBLE_COLLECTIONS_PATH={tmp_path}", f"ANSIBLE_HOME={tmp_path}"]
        command = ["env", *settings, program, "-i", "localhost,", "-c", "local", *options, str(file)]
        return guest.space.run(*command, timeout_s=180)

    before = plugin_pod(guest)["metadata"]["name"]
    assert "changed=1" in run("--check")
    assert plugin_pod(guest)["metadata"]["name"] == before
    assert "changed=1" in run()
    assert plugin_pod(guest)["metadata"]["labels"]["by"] == "role"
    assert "changed=0" in run()


SHARED = "nvidia.com/gpu.shared"
SHARES = {
    "source": "gpu",
    "fullnameOverride": "shares",
    "gpuNodeLabels": ["example.org/no-node-has-it"],
    "gpuConfig": {
        "version": "v1",
        "sharing": {
            "timeSlicing": {
                "renameByDefault": True,
                "failRequestsGreaterThanOne": True,
                "resources": [{"name": "nvidia.com/gpu", "replicas": 4}],
            }
        },
    },
}


def asking(limits: Mapping[str, str] = {}, init: Object | None = None) -> Object:
    """A pod whose container, or init container, has these limits."""
    pod = consumer("sharer")
    (main,) = pod["spec"]["containers"]
    main["resources"] = {"limits": dict(limits)}
    if init is not None:
        pod["spec"]["initContainers"] = [{**main, "name": "first", "resources": {"limits": init}}]
        main["resources"] = {}
    return pod


def refusal(cluster: Cluster, pod: Object) -> str:
    """What the API server says against a pod, which it does not keep; empty: it takes it."""
    try:
        cluster.api.request("POST", "/api/v1/namespaces/default/pods?dryRun=All", pod)
    except ApiError as error:
        return str(error)
    return ""


def test_more_than_one_share_is_refused_by_the_api_server(cluster: Cluster, tmp_path: Path) -> None:
    """And so a ReplicaSet makes no pod, instead of one after the other that fails on its node."""
    file = tmp_path / "shares.yaml"
    file.write_text(yaml.safe_dump(SHARES))
    options = ("--namespace", "shares", "--create-namespace", "--values", str(file))
    cluster.helm("upgrade", "--install", "shares", str(CHART), *options)
    try:
        greedy = asking({SHARED: "2"})
        deadline = time.monotonic() + 30
        while not refusal(cluster, greedy):
            assert time.monotonic() < deadline
            time.sleep(0.1)  # nobody tells when a policy is in force
        said = refusal(cluster, greedy)
        assert f"container main asks for more than one share of a GPU ({SHARED})" in said
        assert "Ask for 1, or for whole GPUs" in said
        assert ": 422: " in said
        assert "container first asks" in refusal(cluster, asking(init={SHARED: "3"}))
        for taken in (asking({SHARED: "1"}), asking({"cpu": "2"}), asking({"nvidia.com/gpu": "2"}), asking()):
            assert refusal(cluster, taken) == ""
        labels = {"app": "greedy"}
        template = {"metadata": {"labels": labels}, "spec": greedy["spec"]}
        cluster.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": {"name": "greedy", "namespace": "default"},
                "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
            }
        )
        events = "/api/v1/namespaces/default/events?fieldSelector=involvedObject.name=greedy,reason=FailedCreate"
        event = cluster.api.until(events, lambda one: True, 30)
        assert "more than one share" in event["message"]
        assert cluster.pods("default", "app=greedy") == []
    finally:
        cluster.kubectl("delete", "replicaset", "greedy", "--ignore-not-found", check=False)
        cluster.helm("uninstall", "shares", "--namespace", "shares")
