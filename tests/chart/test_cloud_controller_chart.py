# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The cloud controller manager's chart: what it renders and refuses, and that the program takes what it renders."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "container")]

from ccm import flags  # noqa: E402
from ccm.metrics import Metrics  # noqa: E402

CHART = ROOT / "container/charts/cloud-controller"
TEMPLATE = ("template", "cloud-controller", str(CHART), "--namespace", "kube-system", "--kube-version", "1.36.0")


@pytest.fixture
def render(helm: Any) -> Any:
    """Values as for --set to manifests, by kind and name."""

    def run(*values: str) -> dict[tuple[str, str], Any]:
        done = helm(*TEMPLATE, *(word for value in values for word in ("--set", value)))
        assert done.returncode == 0, done.stderr
        return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(done.stdout) if one}

    return run


def pod(manifests: dict[tuple[str, str], Any]) -> Any:
    """The pod's specification."""
    return manifests["Deployment", "cloud-controller"]["spec"]["template"]["spec"]


def container(manifests: dict[tuple[str, str], Any]) -> Any:
    """Its only container."""
    (found,) = pod(manifests)["containers"]
    return found


def test_lint(helm: Any) -> None:
    done = helm("lint", "--strict", "--kube-version", "1.36.0", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_installed(render: Any) -> None:
    assert set(render()) == {
        ("ServiceAccount", "cloud-controller"),
        ("Deployment", "cloud-controller"),
        ("Secret", "cloud-controller-tls"),
        ("ClusterRole", "cloud-controller"),
        ("ClusterRoleBinding", "cloud-controller"),
        *((kind, f"cloud-controller-{what}") for kind in ("Role", "RoleBinding") for what in ("events", "lease")),
    }
    assert ("Secret", "mine") not in render("tls.secretName=mine")
    assert not [kind for kind, _name in render("rbac.create=false") if "Role" in kind]


def test_the_program_takes_its_flags(render: Any) -> None:
    found = flags.parse(container(render())["args"])
    assert found == flags.parse(
        [
            "--cloud-config=/etc/nvidia-bmm/cloud-config",
            "--leader-elect-resource-name=nvidia-bmm-cloud-controller-manager",
            "--tls-cert-file=/etc/tls/tls.crt",
            "--tls-private-key-file=/etc/tls/tls.key",
        ]
    ), "beside these, the chart's defaults are the program's"
    found = flags.parse(
        container(
            render(
                "settings.deletionLimit=25%",
                "settings.deletionWindow=1h",
                "settings.monitorPeriod=2s",
                "settings.controllers=cloud-node",
                "leaderElection.leaseDuration=30s",
                "securePort=12345",
            )
        )["args"]
    )
    assert (found.deletion_share, found.deletion_window_s, found.monitor_period_s) == (0.25, 3600.0, 2.0)
    assert (set(found.controllers), found.times.duration_s, found.port) == ({"node"}, 30.0, 12345)


def test_a_first_node_can_run_it(render: Any) -> None:
    """No network of pods, no DNS of the cluster; the taints that a first node has."""
    found = pod(render("apiServer.host=10.0.0.1"))
    assert found["hostNetwork"] is True
    assert found["dnsPolicy"] == "Default"
    tolerated = {one["key"] for one in found["tolerations"]}
    assert tolerated == {
        "node.cloudprovider.kubernetes.io/uninitialized",
        "node-role.kubernetes.io/control-plane",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/network-unavailable",
    }
    assert {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.1"} in container(render("apiServer.host=10.0.0.1"))[
        "env"
    ]


def test_the_pod_may_little(render: Any) -> None:
    found = pod(render())
    assert found["securityContext"]["runAsNonRoot"] is True
    context = container(render())["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [one for one in found["volumes"] if "hostPath" in one]


def test_secrets_are_mounted_as_folders(render: Any) -> None:
    """A file of its own (subPath) would never be replaced."""
    assert not [one for one in container(render())["volumeMounts"] if "subPath" in one]


def test_the_lease_alone(render: Any) -> None:
    manifests = render("leaderElection.name=other", "leaderElection.namespace=place")
    role = manifests["Role", "cloud-controller-lease"]
    assert role["metadata"]["namespace"] == "place"
    named = [one for one in role["rules"] if "get" in one["verbs"]]
    assert [one["resourceNames"] for one in named] == [["other"]]


@pytest.mark.parametrize(
    "value",
    [
        "replicas=-1",
        "securePort=443",
        "settings.deletionLimit=5",
        "settings.monitorPeriod=5",
        "cloudConfig.secretName=",
        "env.TOKEN=x",
        "unknown=1",
        "settings.unknown=1",
        "podMonitor.interval=often",
        "podMonitor.tokenSecret.name=x",
    ],
)
def test_what_is_refused(helm: Any, value: str) -> None:
    done = helm(*TEMPLATE, "--set", value)
    assert done.returncode != 0
    assert value.partition("=")[0].rpartition(".")[2].removeprefix("TOKEN") in done.stderr


# --- monitoring -------------------------------------------------------------------------------------------------------


def test_monitoring_is_there_on_request(render: Any) -> None:
    monitor = ("PodMonitor", "cloud-controller")
    assert not {monitor, ("PrometheusRule", "cloud-controller")} & set(render())
    manifests = render(
        "podMonitor.enabled=true", "podMonitor.tokenSecret.name=reader", "podMonitor.tokenSecret.key=token"
    )
    labels = manifests["Deployment", "cloud-controller"]["spec"]["template"]["metadata"]["labels"]
    assert manifests[monitor]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = manifests[monitor]["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in [one["name"] for one in container(manifests)["ports"]]
    assert (endpoint["scheme"], endpoint["authorization"]) == (
        "https",
        {"credentials": {"name": "reader", "key": "token"}},
    )
    right = manifests["ClusterRole", "cloud-controller-metrics"]["rules"]
    assert right == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


@pytest.fixture
def alerts(render: Any) -> Any:
    """By name."""
    (group,) = render("alerts.enabled=true")["PrometheusRule", "cloud-controller"]["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def test_alerts_ask_for_what_is_counted(alerts: Any) -> None:
    metrics = Metrics()
    metrics.leading.labels("x")
    metrics.problems.labels("a", "r")
    metrics.calls.labels("GET", "instance", "200")
    metrics.call_seconds.labels("instance")
    metrics.waiting.labels("nodes")
    samples = [one for family in metrics.registry.collect() for one in family.samples]
    known = {one.name for one in samples}
    labels = {label for one in samples for label in one.labels}
    asked: set[str] = set()
    for name, rule in alerts.items():
        promql_parser.parse(rule["expr"])
        found = set(re.findall(r"\b((?:bmm|node_controller|leader_election|workqueue)_\w+)", rule["expr"]))
        assert found <= known, name
        asked |= found
        for words in re.findall(r"by \(([^)]*)\)", rule["expr"]):
            assert {one.strip() for one in words.split(",")} <= labels, name
    assert {"bmm_problems_total", "bmm_node_deletions_total", "bmm_config_refused", "workqueue_depth"} <= asked


def test_every_alert_says_what_to_do(alerts: Any) -> None:
    for name, rule in alerts.items():
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["description"], name
        assert rule["labels"]["severity"] in ("warning", "critical"), name
