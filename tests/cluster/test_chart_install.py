# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Standing alone: the chart beside the GPU Operator's components, and the role that installs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.cluster.kube import workloads
from tests.cluster.kube.api import ApiError, Object
from tests.cluster.kube.bed import FIGURES, REASON, STATE, Bed, annotations_of, is_running, is_settled
from tests.cluster.kube.programs import EVERY
from tests.cluster.kube.release import NOWHERE, RELEASE, VALUES, WAIT, install, pod_of, uninstall
from tests.cluster.kube.settings import NODE
from tools.cache import ROOT

ENFORCE = "pod-security.kubernetes.io/enforce"


@pytest.fixture
def installed(node: Bed, tmp_path: Path) -> Iterator[Bed]:
    """The chart beside the GPU Operator's components."""
    node.start_node()
    install(node.cluster, tmp_path, VALUES)
    yield node
    uninstall(node.cluster)


def test_install_change_uninstall(installed: Bed) -> None:
    installed.wait_for_components()
    for mode in ("on", "ppcie", "off"):
        installed.change(mode)
        assert installed.modes() == {mode}
        installed.wait_for_components()
    pod = pod_of(installed.cluster)
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    peak = installed.cluster.memory_peak_bytes(pod)
    FIGURES.append(f"memory peak of the chart's pod after 3 changes: {peak / 2**20:.0f} MiB")


def test_the_reason_is_told_everywhere(installed: Bed) -> None:
    installed.change("bogus", "failed")
    cluster = installed.cluster
    reason = annotations_of(cluster.node())[REASON]
    assert "bogus" in reason
    event = cluster.api.until("/api/v1/namespaces/default/events", lambda one: "bogus" in one.get("message", ""), 10)
    assert event["type"] == "Warning"
    assert "bogus" in cluster.kubectl("describe", "node", NODE)
    name = pod_of(cluster)["metadata"]["name"]
    assert "bogus" in cluster.kubectl("logs", "-n", RELEASE, name)
    text = cluster.api.get(f"/api/v1/namespaces/{RELEASE}/pods/{name}:9403/proxy/metrics")
    assert 'cc_manager_state{state="failed"} 1.0' in text


def test_a_virtual_machine_keeps_its_gpu(installed: Bed) -> None:
    """Refused while a pod holds a GPU, done when it is gone; never a reset meanwhile."""
    installed.change("off")
    cluster = installed.cluster
    cluster.kubectl(
        "patch", "node", NODE, "--subresource=status", "-p", '{"status":{"capacity":{"nvidia.com/pgpu":"8"}}}'
    )
    cluster.apply(workloads.virtual_machine("vm"))
    cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dvm", is_running, 60)
    try:
        resets = installed.resets()
        installed.change("on", "failed")
        assert "default/vm" in annotations_of(cluster.node())[REASON]
        assert installed.resets() == resets
        assert installed.modes() == {"off"}
    finally:
        cluster.kubectl("delete", "pod", "vm", "--now")
    installed.until(lambda found: is_settled(found, "on"))
    assert installed.modes() == {"on"}


def test_draining(installed: Bed, tmp_path: Path) -> None:
    install(installed.cluster, tmp_path, {**VALUES, "settings": {**VALUES["settings"], "busy": "drain"}})
    cluster = installed.cluster
    cluster.kubectl(
        "patch", "node", NODE, "--subresource=status", "-p", '{"status":{"capacity":{"nvidia.com/pgpu":"8"}}}'
    )
    cluster.apply(workloads.virtual_machine("vm"))
    cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dvm", is_running, 60)
    installed.change("on")
    assert cluster.kubectl("get", "pod", "vm", "--ignore-not-found") == ""


def says(words: str, event: Object) -> bool:
    """Whether an Event has these words."""
    return words in event.get("message", "")


def test_pod_security(small: Bed, tmp_path: Path) -> None:
    """A namespace that enforces any level but privileged has no pods, and says why; the right label brings them."""
    small.start_node()
    cluster, name = small.cluster, "guarded"
    events = f"/api/v1/namespaces/{name}/events"
    label = ("label", "namespace", name, "--overwrite")
    cluster.apply(workloads.namespace(name))
    cluster.kubectl(*label, f"{ENFORCE}=restricted")
    try:
        install(cluster, tmp_path, VALUES, name, ())
        for level in ("restricted", "baseline"):
            cluster.kubectl(*label, f"{ENFORCE}={level}")
            words = f'violates PodSecurity "{level}:latest"'
            refused = cluster.api.until(events, partial(says, words), 60)
            assert refused["involvedObject"]["kind"] == "DaemonSet"
            assert "hostPath" in refused["message"]
        assert not cluster.pods(name)
        cluster.kubectl(*label, f"{ENFORCE}=privileged")
        cluster.api.until(f"/api/v1/namespaces/{name}/pods", is_running, 60)
    finally:
        uninstall(cluster, name)
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_the_chart_labels_its_namespace(small: Bed, tmp_path: Path) -> None:
    """Helm made it, before the chart's own is applied; it stays, because the release was kept in it."""
    cluster, name = small.cluster, "labelled"
    values = {**NOWHERE, "namespace": {"create": True}}
    try:
        install(cluster, tmp_path, values, name, ("--create-namespace", "--take-ownership", *WAIT))
        install(cluster, tmp_path, values, name, WAIT)
        uninstall(cluster, name)
        found = cluster.api.get(f"/api/v1/namespaces/{name}")
        assert found["metadata"]["labels"][ENFORCE] == "privileged"
        assert found["status"]["phase"] == "Active"
    finally:
        uninstall(cluster, name)
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_the_role_installs_it(small: Bed, tmp_path: Path) -> None:
    """Twice: the second run changes nothing. Check mode installs nothing."""
    small.start_node()
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "roles": [{"role": "confidential.gpu.cc_manager"}],
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "cc_manager_helm": str(EVERY["helm"].path()),
                "cc_manager_kubectl": str(EVERY["kubectl"].path()),
                "cc_manager_kubeconfig": small.cluster.settings.path("admin.kubeconfig"),
                "cc_manager_values": {**VALUES, "namespace": {"create": True}},
                "cc_manager_take_ownership": True,
            },
        }
    ]
    file = tmp_path / "play.yml"
    file.write_text(yaml.safe_dump(play))

    def run(*options: str) -> str:
        variables = {"ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"), "ANSIBLE_HOME": str(tmp_path)}
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        settings = [f"{key}={value}" for key, value in variables.items()]
        command = [
            "env",
            f"PATH={os.environ['PATH']}",
            *settings,
            program,
            "-i",
            "localhost,",
            "-c",
            "local",
            *options,
            str(file),
        ]
        return small.cluster.space.run(*command, timeout_s=180)

    try:
        assert "changed=1" in run("--check")
        with pytest.raises(ApiError):
            small.cluster.api.get(f"/apis/apps/v1/namespaces/{RELEASE}/daemonsets/{RELEASE}")
        assert "changed=1" in run()
        small.until(lambda found: found["metadata"]["labels"].get(STATE) == "off")
        assert "changed=0" in run()
    finally:
        uninstall(small.cluster)
