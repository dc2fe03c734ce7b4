# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Devices in containers by the Container Device Interface: a cluster with containerd 2 and runc from their Go modules.

What the device plugin writes is read by containerd, and what nvidia-ctk writes by the device plugin and containerd. The
device is one that any user can open who is let, and that no container has by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml.driver import DRIVER, Driver, build, uuid

from tests.cluster.kube.api import Object
from tests.cluster.kube.cluster import Cluster
from tests.cluster.kube.plugin import PODS, Plugin, consumer, until_healthy
from tests.cluster.kube.programs import EVERY

TDX, GPU = "tdx.intel.com/tdx-guest", "nvidia.com/gpu"
TDX_LABEL = "intel.feature.node.kubernetes.io/tdx-guest"
SLOTS = 3
FOLDER = "/dev/net"  # of the host: the cluster has another one in its place
DEVICE = f"{FOLDER}/tdx_guest"
SYS = "/run/tee-sys"
# Names of /proc/misc: devices that need no capability, and that runc gives to no container unasked.
OPENABLE = ("fuse", "userfaultfd", "autofs")
# Nothing is left of root: who has a device now has it because it was given.
NOBODYS: dict[str, Any] = {
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture(scope="module")
def cluster(containerd_2: Cluster) -> Cluster:
    """Here it is the one with containerd 2."""
    version = containerd_2.node()["status"]["nodeInfo"]["containerRuntimeVersion"]
    assert version.startswith(("containerd://2.", "containerd://v2."))
    return containerd_2


@pytest.fixture(scope="module")
def number() -> tuple[str, str]:
    """Major and minor number of the device that stands for all others."""
    rows = [line.split() for line in Path("/proc/misc").read_text().splitlines()]
    minors = {name: minor for minor, name in rows}
    name = next(name for name in OPENABLE if name in minors)
    return "10", minors[name]


@pytest.fixture(scope="module")
def guest(cluster: Cluster, number: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """The node as a TDX guest whose device is root's with mode 0600, and the plugin with CDI on it."""
    about = f"{SYS}/dev/char/{':'.join(number)}"
    cluster.space.run("mount", "-t", "tmpfs", "tmpfs", FOLDER)
    cluster.space.run("mknod", "-m", "0600", DEVICE, "c", *number)
    cluster.space.run("sh", "-c", f"mkdir -p {about}; echo DEVNAME=tdx_guest > {about}/uevent")
    cluster.set_labels({TDX_LABEL: "enabled"})
    values = {
        "config": config(cdi=True),
        "extraEnv": {"DEVICE_PLUGIN_SYS": "/tee-sys"},
        "extraVolumes": [{"name": "tee-sys", "hostPath": {"path": SYS}}],
        "extraVolumeMounts": [{"name": "tee-sys", "mountPath": "/tee-sys", "readOnly": True}],
    }
    made = Plugin(cluster, "guest", tmp_path_factory.mktemp("guest"), values)
    made.install()
    yield made
    made.uninstall()
    cluster.set_labels({TDX_LABEL: None})
    cluster.space.run("umount", FOLDER)


def config(cdi: bool) -> Object:
    """The configuration file."""
    resources = [{"device": "tdx-guest", "name": TDX, "paths": [DEVICE], "slots": SLOTS}]
    return {"resources": resources, "cdi": {"enabled": cdi}}


def told(cluster: Cluster, name: str, resource: str, script: str, **security: Any) -> str:
    """What a pod with one of the resource says, which runs this script and ends."""
    cluster.apply(consumer(name, resource, ["/bin/sh", "-c", script], **security))
    path = f"{PODS}?fieldSelector=metadata.name={name}"
    ended = cluster.api.until(path, lambda one: one["status"].get("phase") in ("Succeeded", "Failed"), 60)
    assert ended["status"]["phase"] == "Succeeded", ended["status"]
    said = cluster.kubectl("logs", "-n", "default", name)
    cluster.kubectl("delete", "pod", name, "--now")
    return said


def opening(path: str) -> str:
    """A script: who the process is, what it sees there, and whether it can open it for reading and writing."""
    look = f"id -u; grep -E 'Cap(Eff|Bnd)' /proc/self/status; stat -c '%u:%g %a %t:%T' {path}"
    return f"{look}; if (: <> {path}) 2> /dev/null; then echo opened; else (: <> {path}) 2>&1; echo refused; fi; true"


def as_hex(number: tuple[str, str]) -> str:
    """As stat writes it."""
    return ":".join(f"{int(one):x}" for one in number)


def test_a_pod_that_is_nobody_opens_the_device(cluster: Cluster, guest: Plugin, number: tuple[str, str]) -> None:
    until_healthy(cluster, TDX, lambda found: len(found) == SLOTS, 10)
    said = told(cluster, "nobody", TDX, opening(DEVICE), **NOBODYS)
    assert said.split()[0] == "1000"
    assert [line.split()[1] for line in said.splitlines() if line.startswith("Cap")] == ["0" * 16] * 2
    assert f"1000:1000 600 {as_hex(number)}" in said
    assert said.endswith("opened\n")


def test_without_cdi_it_finds_the_device_and_cannot_open_it(
    cluster: Cluster, guest: Plugin, number: tuple[str, str]
) -> None:
    script = opening(DEVICE)
    guest.install(config=config(cdi=False), podAnnotations={"example.org/cdi": "off"})
    guest.until_alone()
    said = told(cluster, "nobody", TDX, script, **NOBODYS)
    assert f"0:0 600 {as_hex(number)}" in said
    assert "Permission denied" in said
    assert said.endswith("refused\n")
    assert told(cluster, "root", TDX, script).endswith("opened\n")
    guest.install(config=config(cdi=True), podAnnotations={"example.org/cdi": "on"})
    guest.until_alone()


def test_a_container_without_the_device_cannot_open_one_of_its_number(
    cluster: Cluster, guest: Plugin, number: tuple[str, str]
) -> None:
    """What the others prove is that it was given, not that everybody may."""
    script = f"mknod /tmp/it c {' '.join(number)}; (: <> /tmp/it) 2>&1; true"
    pod = consumer("without", TDX, ["/bin/sh", "-c", f"mkdir -p /tmp; {script}"])
    pod["spec"]["containers"][0]["resources"] = {}
    cluster.apply(pod)
    path = f"{PODS}?fieldSelector=metadata.name=without"
    cluster.api.until(path, lambda one: one["status"].get("phase") in ("Succeeded", "Failed"), 60)
    said = cluster.kubectl("logs", "-n", "default", "without")
    cluster.kubectl("delete", "pod", "without", "--now")
    assert "Operation not permitted" in said


def test_a_specification_that_somebody_removed_is_there_again_for_the_next_pod(cluster: Cluster, guest: Plugin) -> None:
    cluster.space.run("sh", "-c", "rm /var/run/cdi/*tdx*")
    assert told(cluster, "mended", TDX, opening(DEVICE), **NOBODYS).endswith("opened\n")


@pytest.fixture(scope="module")
def driver(
    cluster: Cluster, number: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Driver, Path]]:
    """NVIDIA's driver with two GPUs in a root of its own, and where that is; nvidia-ctk has described it."""
    root = cluster.folder / "driver"
    made = Driver(root, root / "sys", build(tmp_path_factory.mktemp("nvml")))
    made.add_files(number)
    yield made, root
    made.close()


def describe(cluster: Cluster, root: Path) -> None:
    """nvidia-ctk writes the specification, as on a host."""
    cluster.space.run("mkdir", "-p", "/run/cdi")
    options = [f"--driver-root={root}", f"--dev-root={root}", "--device-name-strategy=uuid"]
    # The hooks are programs that the host would have: they make links beside libraries, of which there are none here.
    options += ["--device-name-strategy=index", "--disable-hook=all", "--output=/run/cdi/nvidia.yaml"]
    cluster.space.run(str(EVERY["nvidia-ctk"].path()), "--quiet", "cdi", "generate", *options)


@pytest.fixture(scope="module")
def gpus(cluster: Cluster, driver: tuple[Driver, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plugin]:
    """The plugin with GPUs, which names them to the container runtime."""
    had_folder = Path("/etc/cdi").exists()
    cluster.set_labels({"nvidia.com/gpu.present": "true"})
    flags = {"nvidiaDriverRoot": str(driver[1]), "plugin": {"deviceListStrategy": "cdi-cri"}}
    every = {"timeSlicing": {"resources": [{"name": GPU, "replicas": 2}]}}
    values = {
        "source": "gpu",
        "gpuRuntimeClassName": "",
        "gpuConfig": {"version": "v1", "flags": flags, "sharing": every},
    }
    made = Plugin(cluster, "gpus", tmp_path_factory.mktemp("gpus"), values)
    describe(cluster, driver[1])
    made.install()
    yield made
    made.uninstall()
    cluster.set_labels({"nvidia.com/gpu.present": None})
    if not had_folder:  # the chart mounts it, and so the kubelet made it, on the machine itself
        cluster.space.run("rmdir", "/etc/cdi")


def test_a_gpu_by_the_specification_of_nvidia_ctk(
    cluster: Cluster, gpus: Plugin, driver: tuple[Driver, Path], number: tuple[str, str]
) -> None:
    """Names, nodes of devices, libraries and variables come from the file; the container's user owns the nodes."""
    until_healthy(cluster, GPU, lambda found: len(found) == 4, 10)
    cluster.apply(consumer("other", GPU, **NOBODYS))
    script = "ls /dev | grep nvidia; echo $NVIDIA_VISIBLE_DEVICES; ls /usr/lib64; node=$(ls /dev/nvidia[0-9]); "
    said = told(cluster, "gpu", GPU, script + opening("$node"), **NOBODYS)
    assert f"libcuda.so.{DRIVER}" in said
    assert "nvidiactl" in said
    assert "void" in said  # NVIDIA's runtime, if there were one, is to give nothing
    assert said.count("nvidia0") + said.count("nvidia1") == 1
    assert as_hex(number) in said
    assert said.endswith("opened\n")
    cluster.kubectl("delete", "pod", "other", "--now")


def test_a_gpu_without_a_name_in_the_specification_is_unhealthy(
    cluster: Cluster, gpus: Plugin, driver: tuple[Driver, Path]
) -> None:
    """No pod is sent where its container would not start."""
    one = [f"{uuid(0)}::{number}" for number in (0, 1)]
    cluster.space.run("sed", "-i", f"s/{uuid(1)}/GPU-else/", "/run/cdi/nvidia.yaml")
    until_healthy(cluster, GPU, lambda found: found == one, 5)
    describe(cluster, driver[1])
    until_healthy(cluster, GPU, lambda found: len(found) == 4, 5)
