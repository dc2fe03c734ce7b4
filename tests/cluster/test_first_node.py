# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The first node of a cluster has no network of pods, and waits for the cloud controller manager: the chart brings it.

Everything is what it is in use, but for the bare-metal manager, which is the emulator, on the node itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bmm_emulator.shapes import made_id

from tests.cluster.conftest import check
from tests.cluster.kube.api import Object
from tests.cluster.kube.bed import FIGURES, is_running
from tests.cluster.kube.cluster import Cluster, is_ready, running
from tests.cluster.kube.settings import BUSYBOX, NODE
from tests.cluster.kube.space import ADDRESS
from tools import image
from tools.cache import ROOT

CHART = ROOT / "container/charts/cloud-controller"
IMAGE = "localhost/cloud-controller:dev"
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
ORG, API_PORT = "acme", 8090
SITE, TENANT = made_id("site", "sjc4"), made_id("tenant", ORG)
INSTANCE = "00000000-0000-4000-8000-00000000000c"
DATA = {
    "sites": [{"name": "sjc4", "location": {"city": "San Jose", "state": "CA", "country": "USA"}}],
    "instances": [{"name": NODE, "id": INSTANCE, "type": "gpu.8xh100", "addresses": [ADDRESS]}],
}
CLOUD_CONFIG = {
    "endpoint": f"http://127.0.0.1:{API_PORT}",
    "orgName": ORG,
    "token": "emulated",
    "siteId": SITE,
    "tenantId": TENANT,
}
PODS = "/api/v1/namespaces/kube-system/pods?labelSelector=app.kubernetes.io%2Fname%3Dcloud-controller"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of a node that waits, with the image of this working tree."""
    check()
    folder = tmp_path_factory.mktemp("first-node")
    archive = folder / "cloud-controller.tar"
    image.build(IMAGE, archive, image=image.CLOUD_CONTROLLER)
    data = folder / "fleet.yml"
    data.write_text(yaml.safe_dump(DATA))
    provider_id = f"nvidia-bmm://{ORG}/{TENANT}/{SITE}/{INSTANCE}"
    with running(keep=ROOT / "tests/output/cluster-first-node", provider_id=provider_id) as made:
        made.space.launch(
            "bmm",
            *("env", f"PYTHONPATH={ROOT / 'tests'}", sys.executable, "-m", "bmm_emulator", str(data)),
            *("--listen", f"127.0.0.1:{API_PORT}"),
        )
        made.load(archive)
        # As kubeadm does; a kubelet may not give itself this label.
        made.set_labels({"node-role.kubernetes.io/control-plane": ""})
        yield made


def keys(node: Object) -> set[str]:
    """Of its taints."""
    return {one["key"] for one in node["spec"].get("taints", [])}


def test_the_chart_brings_up_the_first_node(first: Cluster, tmp_path: Path) -> None:
    before = first.node()
    assert UNINITIALIZED in keys(before)
    assert not is_ready(before)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "nvidia-bmm-cloud-config"}}
    first.kubectl(
        "apply", "-n", "kube-system", "-f", "-",
        input=yaml.safe_dump({**secret, "stringData": {"cloud-config": yaml.safe_dump(CLOUD_CONFIG)}}),
    )  # fmt: skip
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"apiServer": {"host": ADDRESS}}))
    began = time.monotonic()
    first.helm(
        *("install", "cloud-controller", str(CHART), "--namespace", "kube-system", "--values", str(values)),
        *("--wait", "--timeout", "60s"),
    )
    node = first.until_node(lambda one: UNINITIALIZED not in keys(one), 60)
    FIGURES.append(f"first node: initialised {time.monotonic() - began:.1f} s after helm install began")
    assert not is_ready(node), "there is no network of pods yet"
    labels = node["metadata"]["labels"]
    assert labels["topology.kubernetes.io/zone"] == "sjc4"
    assert labels["topology.kubernetes.io/region"] == "usa-ca"
    assert labels["node.kubernetes.io/instance-type"] == "gpu.8xh100"
    assert {"type": "InternalIP", "address": ADDRESS} in node["status"]["addresses"]


def test_with_a_network_it_takes_pods(first: Cluster) -> None:
    """Once somebody brings one; until then only what needs none runs."""
    first.settings.write_network()
    first.until_node(is_ready, 60)
    first.until_node(lambda one: "node.kubernetes.io/not-ready" not in keys(one), 60)
    # A toleration as for any control plane of one node.
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "any"},
        "spec": {"containers": [{"name": "wait", "image": BUSYBOX, "imagePullPolicy": "Never"}]},
    }
    first.api.until("/api/v1/namespaces/default/serviceaccounts", lambda one: True, 30)
    first.apply({**pod, "metadata": {"name": "any", "namespace": "default"}})
    first.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dany", is_running, 60)


def test_the_pod_is_well(first: Cluster) -> None:
    """Ready, never restarted, and small."""
    pod = first.api.until(PODS, is_running, 60)
    (state,) = pod["status"]["containerStatuses"]
    assert (state["ready"], state["restartCount"]) == (True, 0)
    status = Path(f"/proc/{first.container_pid(pod)}/status").read_text()
    (resident,) = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS:")]
    FIGURES.append(f"cloud controller manager in its pod: {resident:.0f} MiB resident, one node")
    assert resident < 45
    assert "Node node0 is initialised" in first.kubectl("logs", "-n", "kube-system", pod["metadata"]["name"])
