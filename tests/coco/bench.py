# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A cluster for confidential containers: images under a mirror's names, a kubelet that restarts, and playbooks."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.cluster.kube.cluster import Cluster
from tests.cluster.kube.programs import EVERY
from tests.cluster.kube.settings import BUSYBOX, NODE
from tools.cache import ROOT

from .actors import Actors

CHARTS = Path(__file__).resolve().parent / "charts"
MIRROR = "localhost/mirror"
SAMPLE = f"{MIRROR}/cuda-sample:1"
# Every image of the stub charts, below the mirror; all are the same program.
IMAGES = (
    "nfd/node-feature-discovery:v0.19.0",
    "nvidia/gpu-operator:v26.3.0",
    "kata-containers/kata-deploy:4.1.0",
    "kata-containers/kata-deploy:4.1.1",
    "kata-containers/kubectl:1.36",
    "cuda-sample:1",
)
# It ends the kubelet and starts it again, as systemctl restart does; what it says goes on in the same log.
RESTART = """#!/bin/sh
for pid in $(pidof kubelet); do kill "$pid" && while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done; done
setsid {command} >> {log} 2>&1 < /dev/null &
"""


# What a run of the suite tells at its end.
FIGURES: list[str] = []


class Played(NamedTuple):
    """What a playbook said, its status, how many tasks changed something, and the seconds it took."""

    text: str
    status: int
    changed: int
    seconds: float


class Bench:
    """The cluster with what the playbooks need."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.report = folder / "report.json"
        self.kubelet_file = Path(cluster.settings.path("kubelet.json"))
        self._restart = folder / "restart-kubelet"
        self.actors: Actors
        # The chart of Kata that was there before an upgrade.
        self.older = ""
        self.charts = {
            "nfd": str(CHARTS / "node-feature-discovery"),
            "gpu_operator": str(CHARTS / "gpu-operator"),
            "kata": str(CHARTS / "kata-deploy"),
        }

    def prepare(self) -> None:
        """Tag the images, and write what restarts the kubelet."""
        for image in IMAGES:
            self.tag(BUSYBOX, image)
        command = " ".join([str(EVERY["kubelet"].path()), *self.cluster.settings.kubelet()])
        self._restart.write_text(RESTART.format(command=command, log=self.folder / "kubelet.log"))
        self._restart.chmod(0o755)

    def tag(self, image: str, name: str) -> None:
        """Give an image of the node a name below the mirror."""
        self.cluster.ctr("images", "tag", "--force", image, f"{MIRROR}/{name}")

    def variables(self, **more: Any) -> dict[str, Any]:
        """What the playbooks are told on this cluster, whose machine is far from the documented one."""
        charts = {key: {"chart": path, "version": "", "repository": ""} for key, path in self.charts.items()}
        return {
            "confidential_containers_hosts": "gpu_nodes",
            "confidential_containers_become": False,
            "confidential_containers_charts": charts,
            "confidential_containers_registry": MIRROR,
            "confidential_containers_kubectl_tag": "1.36",
            "confidential_containers_minimum": {"kubernetes": "1.32", "kata": "3.29.0"},
            "confidential_containers_kata_values": {
                "shims": {
                    f"qemu-nvidia-gpu-{kind}": {"runtimeClass": {"overhead": {"memory": "64Mi", "cpu": "10m"}}}
                    for kind in ("snp", "tdx")
                }
            },
            "confidential_containers_expect": {"sample_memory": "32Mi", "gpus": 2},
            "confidential_containers_timeout": 60,
            "confidential_containers_mode_timeout": 20,
            "confidential_containers_helm": str(EVERY["helm"].path()),
            "confidential_containers_kubectl": str(EVERY["kubectl"].path()),
            "confidential_containers_kubeconfig": self.cluster.settings.path("admin.kubeconfig"),
            "confidential_containers_check_image": SAMPLE,
            "confidential_containers_check_command": ["/bin/sh", "-c", "echo Test PASSED"],
            "confidential_containers_check_sample_timeout": 30,
            "confidential_containers_check_file": str(self.report),
            "confidential_containers_containerd_settings": str(self.folder / "containerd.toml"),
            "kubelet_confidential_file": str(self.kubelet_file),
            "kubelet_confidential_restart": [str(self._restart)],
            "kubelet_confidential_timeout": 40,
            **more,
        }

    def play(
        self, playbook: str, *options: str, hosts: Sequence[str] = (NODE,), nodes: Mapping[str, str] = {}, **more: Any
    ) -> Played:
        """Run a playbook of the collection inside, against this node. ``nodes``: names of hosts that are not theirs."""
        inventory = self.folder / "inventory.yml"
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        known = {
            host: {**local, **({"confidential_containers_node": nodes[host]} if host in nodes else {})}
            for host in hosts
        }
        inventory.write_text(json.dumps({"gpu_nodes": {"hosts": known}}))
        extra = self.folder / "variables.json"
        extra.write_text(json.dumps(self.variables(**more)))
        settings = {
            "PATH": os.environ["PATH"],
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "HOME": str(self.folder),
        }
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        command = ["env", *(f"{key}={value}" for key, value in settings.items()), program, "-i", str(inventory)]
        command += ["-e", f"@{extra}", *options, f"confidential.gpu.{playbook}"]
        began = time.monotonic()
        text = self.cluster.space.run(
            "sh", "-c", 'status=0; "$@" 2>&1 || status=$?; echo "status $status"', "sh", *command, timeout_s=300
        )
        status = int(text.rpartition("status ")[2])
        changed = sum(int(count) for count in re.findall(r"changed=(\d+)", text))
        return Played(text, status, changed, time.monotonic() - began)

    def restart_kubelet(self) -> None:
        """As the role does."""
        self.cluster.space.run(str(self._restart))

    def interrupt(self, release: str, namespace: str) -> None:
        """Leave a release as a Helm that was killed in an upgrade an hour ago does."""
        secrets = f"/api/v1/namespaces/{namespace}/secrets"
        found = self.cluster.api.get(f"{secrets}?labelSelector=owner%3Dhelm%2Cname%3D{release}")["items"]
        newest = max(found, key=lambda one: int(one["metadata"]["labels"]["version"]))
        content = json.loads(gzip.decompress(base64.b64decode(base64.b64decode(newest["data"]["release"]))))
        content["version"] += 1
        content["info"].update(status="pending-upgrade", last_deployed="2026-01-01T00:00:00Z")
        data = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(content).encode()))).decode()
        labels = {**newest["metadata"]["labels"], "version": str(content["version"]), "status": "pending-upgrade"}
        name = f"sh.helm.release.v1.{release}.v{content['version']}"
        metadata = {"name": name, "namespace": namespace, "labels": labels}
        made = {"apiVersion": "v1", "kind": "Secret", "type": newest["type"], "metadata": metadata}
        self.cluster.api.request("POST", secrets, {**made, "data": {"release": data}})

    def rows(self, node: str = NODE) -> dict[str, str]:
        """State by step of a node in the last report."""
        return {step: row["state"] for step, row in self.told(node).items()}

    def told(self, node: str = NODE) -> dict[str, dict[str, str]]:
        """The row of each step of a node in the last report."""
        return {row["step"]: row for row in json.loads(self.report.read_text())["rows"] if row["node"] == node}
