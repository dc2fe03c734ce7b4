# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin by its chart, and what the kubelet has of it at this moment."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpclib.client import Channel, UnaryUnaryMethod

from tools.cache import ROOT

from .api import ApiError, Object
from .cluster import Cluster
from .settings import BUSYBOX
from .workloads import WAIT

sys.path.insert(0, str(ROOT / "container"))
from device_plugin.api import podresources_pb2

CHART = ROOT / "container/charts/device-plugin"
IMAGE = "localhost/device-plugin:dev"
PODS = "/api/v1/namespaces/default/pods"


def _allocatable_message() -> Any:
    """The kubelet's AllocatableResourcesResponse, of which the device plugin itself asks nothing."""
    file = descriptor_pb2.FileDescriptorProto(name="tests/allocatable.proto", package="v1.tests", syntax="proto3")
    file.dependency.append(podresources_pb2.DESCRIPTOR.name)
    field = file.message_type.add(name="AllocatableResourcesResponse").field.add(name="devices", number=1)
    field.type, field.label, field.type_name = field.TYPE_MESSAGE, field.LABEL_REPEATED, ".v1.ContainerDevices"
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("v1.tests.AllocatableResourcesResponse"))


_ALLOCATABLE = _allocatable_message()


class Plugin:
    """A release of the chart in a namespace of its name. ``folder``: for its values."""

    def __init__(self, cluster: Cluster, name: str, folder: Path, values: Object) -> None:
        self.cluster = cluster
        self.name = name
        self._file = folder / f"{name}.yaml"
        self._values = {"kubeletRoot": cluster.settings.path("kubelet"), "namespace": {"create": True}, **values}

    def install(self, **values: Any) -> None:
        """Install or upgrade, and wait until the new pod is ready. The values hold for the installations to come."""
        self._values = {**self._values, **values}
        self._file.write_text(yaml.safe_dump(self._values))
        options = ("--create-namespace", "--take-ownership", "--wait", "--timeout", "90s")
        where = ("--namespace", self.name, "--values", str(self._file))
        self.cluster.helm("upgrade", "--install", self.name, str(CHART), *where, *options)

    def uninstall(self) -> None:
        """And wait until its pods have ended."""
        self.cluster.helm("uninstall", self.name, "--namespace", self.name, "--wait", "--timeout", "60s")
        self.cluster.kubectl("delete", "pod", "-n", self.name, "--all", "--timeout=60s")

    def pod(self) -> Object:
        """The only one that is not on its way out."""
        (found,) = [one for one in self.cluster.pods(self.name) if not one["metadata"].get("deletionTimestamp")]
        return found

    def until_alone(self, within_s: float = 60.0) -> None:
        """Wait until an older pod has ended. Raises ApiError."""
        deadline = time.monotonic() + within_s
        while len(found := self.cluster.pods(self.name)) > 1:
            if time.monotonic() > deadline:
                raise ApiError(f"{self.name}: still {len(found)} pods")
            time.sleep(0.1)  # its end may be before a watch begins

    def kill(self) -> None:
        """kill -9 of its process; waits until another one is ready."""
        pod = self.pod()
        before = pod["status"]["containerStatuses"][0]["restartCount"]
        self.cluster.kill_container(pod)
        path = f"/api/v1/namespaces/{self.name}/pods?fieldSelector=metadata.name={pod['metadata']['name']}"
        self.cluster.api.until(path, lambda one: _ready_after(one, before), 60)

    def log(self) -> str:
        """Of its pod."""
        return self.cluster.kubectl("logs", "-n", self.name, self.pod()["metadata"]["name"], check=False)


def _ready_after(pod: Object, restarts: int) -> bool:
    (status,) = pod["status"]["containerStatuses"]
    return bool(status["ready"]) and int(status["restartCount"]) > restarts


def consumer(name: str, resource: str, command: list[str] | None = None, **security: Any) -> Object:
    """A pod that asks for one."""
    container = {
        "name": "main",
        "image": BUSYBOX,
        "imagePullPolicy": "Never",
        "command": command or WAIT,
        "resources": {"limits": {resource: "1"}},
        "securityContext": security,
    }
    spec = {"terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


# --- what the kubelet has ---------------------------------------------------------------------------------------------


def healthy_ids(cluster: Cluster, resource: str) -> list[str]:
    """Of a resource, as the kubelet says on its own socket; its reports to the API server come each ten seconds."""
    return asyncio.run(_healthy_ids(cluster.settings.path("kubelet/pod-resources/kubelet.sock"), resource))


async def _healthy_ids(path: str, resource: str) -> list[str]:
    channel = Channel(path=path)
    name = "/v1.PodResourcesLister/GetAllocatableResources"
    request = podresources_pb2.ListPodResourcesRequest()  # as empty as the one that is meant
    try:
        async with asyncio.timeout(5):
            found = await UnaryUnaryMethod(channel, name, type(request), _ALLOCATABLE)(request)
    finally:
        channel.close()
    return sorted(one for some in found.devices if some.resource_name == resource for one in some.device_ids)


def until_healthy(cluster: Cluster, resource: str, good: Callable[[list[str]], bool], within_s: float) -> float:
    """Wait until the kubelet has what is meant; seconds. Raises ApiError."""
    began = time.monotonic()
    while True:
        found = healthy_ids(cluster, resource)
        taken = time.monotonic() - began
        if good(found):
            return taken
        if taken > within_s:
            raise ApiError(f"{resource}: after {within_s:g} s the kubelet has {found}")
        time.sleep(0.02)  # it tells nobody


def until_allocatable(cluster: Cluster, resource: str, count: int, within_s: float = 15.0) -> None:
    """Wait until the node has so many, which the kubelet tells with its next report."""
    cluster.until_node(lambda node: node["status"]["allocatable"].get(resource) == str(count), within_s)
