# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""status, wait, explain, retry; and where the API is."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from cc_bed import NODES, PODS, READY, Bed, cc_manager_pod, gpu_node, gpu_pod
from cc_manager.names import MODE_LABEL, RETRY_ANNOTATION
from cc_manager.pod import Pod
from fake_api.waiting import eventually
from kube.client import ApiError
from kubectl_cc import cli, explain
from kubectl_cc.node import Node, trimmer
from kubectl_cc.rules import Refused

HELD = '{"id": "r1", "mode": "on", "at": "", "stage": "hold", "cordoned": true}'
NOW = 1_800_000_000.0


@pytest.fixture
def two(some: Bed) -> Bed:
    some.add(gpu_node("gpu-0"), gpu_node("gpu-1", "on"))
    return some


def node(**change: Any) -> Node:
    """One that is in its mode, but for what is given."""
    made = gpu_node("gpu-0", "on")
    made["metadata"]["labels"] |= change.pop("labels", {})
    made["metadata"]["annotations"] |= change.pop("annotations", {})
    made["spec"] |= change.pop("spec", {})
    made["status"] |= change.pop("status", {})
    assert not change
    return Node.of(made)


# --- status -----------------------------------------------------------------------------------------------------------


def test_status_is_a_table(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    two.managers.deaf.add("gpu-0")
    two.patch("gpu-0", {MODE_LABEL: "on"})
    two.store.create(NODES, {"metadata": {"name": "no-gpu"}, "status": {"conditions": [READY]}})
    assert two.run("status") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["NODE", "DESIRED", "OBSERVED", "READY", "PENDING", "REASON", "SINCE"],
        ["gpu-0", "on", "off", "no", "to", "on", "-", "-"],
        ["gpu-1", "on", "on", "yes", "-", "-", "-"],
    ]


def test_status_as_json(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    two.managers.failing["gpu-0"] = "why\nin two lines"
    two.patch("gpu-0", {MODE_LABEL: "on"})
    eventually(lambda: two.node("gpu-0").has_failed)
    assert two.run("status", "gpu-0", "-o", "json") == 0
    (found,) = json.loads(capsys.readouterr().out)["nodes"]
    assert found == {
        "node": "gpu-0",
        "desired": "on",
        "observed": "failed",
        "ready": False,
        "pending": "another attempt",
        "reason": "why\nin two lines",
        "since": None,
    }
    two.run("status", "gpu-0")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_status_of_no_such_node(two: Bed) -> None:
    with pytest.raises(Refused, match=r"no node gpu-7"):
        two.run("status", "gpu-7")


def test_since_is_when_the_cc_manager_wrote(two: Bed) -> None:
    fields: dict[str, Any] = {"f:metadata": {"f:labels": {"f:nvidia.com/cc.mode.state": {}}}}
    made = gpu_node("gpu-0")
    made["metadata"]["managedFields"] = [
        {"manager": "kubelet", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:metadata": {}}},
        {"manager": "k8s-cc-manager", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields},
    ]
    assert Node.of(made).since == Node.of(trimmer()(made)).since == "2026-01-01T00:00:00Z"


# --- wait -------------------------------------------------------------------------------------------------------------


def test_wait_ends_when_the_mode_is_observed(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    two.managers.deaf.add("gpu-0")
    two.patch("gpu-0", {MODE_LABEL: "on"})
    ends: list[int] = []
    thread = threading.Thread(target=lambda: ends.append(two.run("wait", "gpu-0", "gpu-1")), daemon=True)
    thread.start()
    eventually(lambda: any(one.verb == "watch" for one in two.store.requests))
    assert not ends
    two.managers.deaf.clear()
    two.patch("gpu-0", annotations={RETRY_ANNOTATION: "now"})
    thread.join(10)
    assert ends == [0]
    assert sorted(capsys.readouterr().out.split("\n")) == ["", "gpu-0: in mode on", "gpu-1: in mode on"]
    assert len([one for one in two.store.requests if one.verb == "list"]) == 1


def test_wait_says_why_when_time_is_over(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    two.managers.failing["gpu-0"] = "GPU 0000:17:00.0 has left the bus."
    two.patch("gpu-0", {MODE_LABEL: "on"})
    assert two.run("wait", "--all", "--timeout", "1.5") == 1
    assert capsys.readouterr().err == "gpu-0: observed failed, another attempt. GPU 0000:17:00.0 has left the bus.\n"


def test_wait_ends_at_a_failure_when_asked(two: Bed) -> None:
    two.managers.failing["gpu-0"] = "broken"
    two.patch("gpu-0", {MODE_LABEL: "on"})
    assert two.run("wait", "-l", "topology.kubernetes.io/zone=a", "--fail-fast", "--timeout", "20") == 1


def test_wait_for_a_mode_that_nobody_asked_for(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert two.run("wait", "gpu-0", "--mode", "on", "--timeout", "1.5") == 1
    assert capsys.readouterr().err == "gpu-0: its label asks for off\n"
    assert two.run("wait", "gpu-9", "--timeout", "1.5") == 1
    assert capsys.readouterr().err == "gpu-9: there is no such node\n"


def test_wait_for_nothing_is_refused(two: Bed) -> None:
    for words in ([], ["gpu-0", "--all"]):
        with pytest.raises(Refused, match=r"Give nodes by name"):
            two.run("wait", *words)


def test_wait_without_the_right_ends(two: Bed) -> None:
    two.store.faults.refuse("list", "/nodes")
    with pytest.raises(ApiError, match=r"403"):
        two.run("wait", "--all", "--timeout", "20")


# --- explain ----------------------------------------------------------------------------------------------------------

CC_MANAGER = Pod("gpu-operator", "cc-1", phase="Running", daemon_set="nvidia-cc-manager", running=True)
GUEST = Pod.of(gpu_pod("guest", "gpu-0"))


@pytest.mark.parametrize(
    ("change", "pods", "cause", "evidence", "remedy"),
    [
        (
            {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "message": "Kubelet stopped posting."}]}},
            [CC_MANAGER],
            "the node is not ready: Kubelet stopped posting.",
            "observed on",
            "kubectl describe node gpu-0",
        ),
        ({"labels": {"nvidia.com/cc.mode.state": ""}}, [], "no pod of the CC manager", "(absent)", "cc-manager=true"),
        (
            {"labels": {MODE_LABEL: "off"}},
            [Pod("gpu-operator", "cc-1", phase="Pending", daemon_set="nvidia-cc-manager")],
            "the CC manager does not run",
            "pod gpu-operator/cc-1: Pending",
            "kubectl describe pod -n gpu-operator cc-1",
        ),
        (
            {"labels": {MODE_LABEL: "bogus", "nvidia.com/cc.mode.state": "failed"}},
            [CC_MANAGER],
            "'bogus'",
            "failed",
            "label node gpu-0",
        ),
        (
            {"labels": {"nvidia.com/cc.mode.state": "failed"}, "annotations": {"nvidia.com/cc.mode.reason": "In use."}},
            [CC_MANAGER, GUEST],
            "its GPUs are in use",
            "pod default/guest has nvidia.com/pgpu",
            "CC_MANAGER_BUSY=drain",
        ),
        (
            {
                "labels": {"nvidia.com/cc.mode.state": "failed"},
                "annotations": {
                    "nvidia.com/cc.mode.reason": "It has left the bus. Power-cycle.",
                    "nvidia.com/cc.mode.devices": '{"17:00.0": {"mode": "on"}, "18:00.0": {"problem": "lost"}}',
                },
            },
            [CC_MANAGER],
            "It has left the bus. Power-cycle.",
            "18:00.0: mode not known, lost",
            "kubectl cc retry gpu-0",
        ),
        (
            {"labels": {"nvidia.com/cc.mode.state": ""}, "annotations": {"nvidia.com/cc.mode.changing": "on"}},
            [CC_MANAGER],
            "its CC manager works on on",
            "(nothing)",
            "kubectl cc wait gpu-0",
        ),
        (
            {"labels": {"nvidia.com/cc.mode.state": "mixed"}},
            [CC_MANAGER],
            "different modes",
            "mixed",
            "one mode for all",
        ),
        ({"labels": {MODE_LABEL: "off"}}, [CC_MANAGER], "has not begun", "observed on", "kubectl cc retry gpu-0"),
        ({"spec": {"unschedulable": True}}, None, "it is cordoned", "observed on", "kubectl uncordon gpu-0"),
        (
            {"spec": {"unschedulable": True}, "annotations": {"nvidia.com/cc.mode.cordoned": "true"}},
            None,
            "its CC manager has cordoned it",
            "observed on",
            "kubectl cc wait gpu-0",
        ),
        (
            {
                "spec": {"unschedulable": True},
                "annotations": {"nvidia.com/cc.rollout": HELD},
            },
            None,
            "the rollout r1 has it cordoned",
            "observed on",
            "kubectl cc rollout status",
        ),
    ],
)
def test_explain_names_one_cause(change: Any, pods: Any, cause: str, evidence: str, remedy: str) -> None:
    answer = explain.explain(node(**change), pods, NOW)
    assert not answer.ready
    assert cause in answer.cause
    assert evidence in " ".join(answer.evidence)
    assert remedy in answer.remedy


def test_explain_says_when_nothing_is_the_matter(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert two.run("explain", "gpu-1") == 0
    assert capsys.readouterr().out.splitlines()[1] == "cause:    gpu-1 is in mode on and takes pods"
    two.store.create(PODS, gpu_pod("guest", "gpu-0"))
    two.managers.failing["gpu-0"] = "in use"
    two.patch("gpu-0", {MODE_LABEL: "on"})
    eventually(lambda: two.node("gpu-0").has_failed)
    two.store.create(PODS, cc_manager_pod("gpu-0"))
    assert two.run("explain", "gpu-0", "-o", "json") == 1
    assert json.loads(capsys.readouterr().out)["cause"] == "its GPUs are in use, and are not touched"
    two.store.faults.refuse("list", "/pods")
    assert two.run("explain", "gpu-0") == 1
    assert "cause:    in use" in capsys.readouterr().out


# --- retry ------------------------------------------------------------------------------------------------------------


def test_retry_asks_the_cc_manager(two: Bed) -> None:
    two.managers.failing["gpu-0"] = "broken"
    two.patch("gpu-0", {MODE_LABEL: "on"})
    eventually(lambda: two.node("gpu-0").has_failed)
    two.managers.failing.clear()
    assert two.run("retry", "gpu-0") == 0
    eventually(lambda: two.node("gpu-0").observed == "on")


# --- where the API is -------------------------------------------------------------------------------------------------


def write(path: Path, url: str) -> Path:
    """A kubeconfig of two contexts, of which the second is right."""
    content = {
        "current-context": "elsewhere",
        "contexts": [{"name": one, "context": {"cluster": one, "user": "me"}} for one in ("elsewhere", "here")],
        "clusters": [
            {"name": "elsewhere", "cluster": {"server": "http://127.0.0.1:1"}},
            {"name": "here", "cluster": {"server": url}},
        ],
        "users": [{"name": "me", "user": {"token": "t0ken"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_context_of_a_kubeconfig(two: Bed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "config", two.server.url)
    assert cli.main(["status", "--context", "here"], {"KUBECONFIG": str(path)}) == 0
    assert "gpu-1" in capsys.readouterr().out
    assert cli.main(["status"], {"KUBECONFIG": str(path)}) == 1
    assert "127.0.0.1" not in capsys.readouterr().out
    home = tmp_path / ".kube"
    home.mkdir()
    write(home / "config", two.server.url)
    assert cli.main(["status", "--context", "here"], {"HOME": str(tmp_path)}) == 0


def test_kubectl_proxy(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "gpu-1", "--server", two.server.url], {}) == 0
    assert cli.main(["status", "--server", "nonsense"], {}) == 2
    assert "cannot be used" in capsys.readouterr().err


def test_what_cannot_be_used_says_what_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "config", "http://127.0.0.1:1")
    content = yaml.safe_load(path.read_text())
    content["users"][0]["user"] = {"exec": {"command": "aws"}}
    path.write_text(yaml.safe_dump(content))
    for given in ({"KUBECONFIG": str(path)}, {"KUBECONFIG": f"{path}:{path}2"}, {"HOME": str(tmp_path)}):
        assert cli.main(["status"], given) == 2
    said = capsys.readouterr().err.splitlines()
    assert "kubectl proxy" in said[0]
    assert "several files" in said[1]
    assert "--kubeconfig" in said[2]


def test_an_error_of_the_api_is_a_line(two: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explain", "gpu-7", "--server", two.server.url], {}) == 1
    assert "404" in capsys.readouterr().err
    assert cli.main(["rollout", "status", "--server", two.server.url], {}) == 2
    assert "There is no rollout" in capsys.readouterr().err
