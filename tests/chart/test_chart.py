# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The Helm chart: what it renders, what it refuses, and that it names what the operand knows. No cluster is needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "container")]

from gpu.devid_names import GPU_NAME_BY_DEVID  # noqa: E402
from operand import cluster, metrics, names, reading, settings  # noqa: E402

from tests.cluster.kube.programs import HELM  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

CHART = ROOT / "container/chart"
OPTIONAL = ("podMonitor.enabled", "alerts.enabled", "dashboard.enabled", "nodeFeatureRule.enabled")
RIGHTS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
PLAIN = ("ServiceAccount", *RIGHTS, "DaemonSet", "NetworkPolicy")
POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
Manifests = dict[str, Any]


@pytest.fixture(scope="session")
def helm_path() -> str:
    """Helm, built from its Go module."""
    try:
        return str(HELM.path())
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def helm(helm_path: str, tmp_path: Path) -> Any:
    """Runs Helm without a cluster and without the user's settings; gives the process that has ended."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "KUBECONFIG": "/nonexistent"}
        return subprocess.run([helm_path, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def render(helm: Any) -> Any:
    """Values as for --set to manifests by kind."""

    def run(*values: str) -> Manifests:
        given = [word for value in values for word in ("--set", value)]
        done = helm("template", "cc-manager", str(CHART), "--namespace", "place", "--kube-version", "1.36.0", *given)
        assert done.returncode == 0, done.stderr
        found = [one for one in yaml.safe_load_all(done.stdout) if one]
        assert len({one["kind"] for one in found}) == len(found)
        return {one["kind"]: one for one in found}

    return run


def container(manifests: Manifests) -> Any:
    """The only container of the DaemonSet."""
    (found,) = manifests["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    return found


def test_lint(helm: Any) -> None:
    done = helm("lint", "--strict", "--kube-version", "1.36.0", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_installed_by_default(render: Any) -> None:
    assert set(render()) == {*PLAIN, *POLICY}


def test_least_privilege(render: Any) -> None:
    manifests = render()
    context, pod = container(manifests)["securityContext"], manifests["DaemonSet"]["spec"]["template"]["spec"]
    assert context["privileged"] is False
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"]}
    assert pod["hostPID"] is True
    assert "hostNetwork" not in pod
    assert container(manifests)["resources"]["limits"] == {"memory": "200Mi"}
    assert {volume["name"] for volume in pod["volumes"]} == {"sys", "run-nvidia", "tmp"}


def test_without_the_hosts_processes(render: Any) -> None:
    manifests = render("security.hostProcesses=false")
    assert container(manifests)["securityContext"]["capabilities"]["add"] == ["SYS_ADMIN"]
    assert manifests["DaemonSet"]["spec"]["template"]["spec"]["hostPID"] is False


def test_the_rights_are_those_that_are_used(render: Any) -> None:
    """The verbs of cluster.py; Events are made in one namespace only, and it is the Role's."""
    manifests = render()
    cluster_wide = {(*rule["resources"], *rule["verbs"]) for rule in manifests["ClusterRole"]["rules"]}
    assert cluster_wide == {("nodes", "get", "list", "watch", "patch"), ("pods", "list", "watch")}
    (events,) = manifests["Role"]["rules"]
    assert (events["resources"], events["verbs"]) == (["events"], ["create"])
    assert manifests["Role"]["metadata"]["namespace"] == cluster.EVENT_NAMESPACE
    for binding in ("ClusterRoleBinding", "RoleBinding"):
        (subject,) = manifests[binding]["subjects"]
        assert (subject["name"], subject["namespace"]) == ("cc-manager", "place")


def test_selectors_select_the_pods(render: Any) -> None:
    manifests = render("podMonitor.enabled=true", "podLabels.app\\.kubernetes\\.io/name=other", "podLabels.more=yes")
    labels = manifests["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    assert labels["more"] == "yes"
    for kind, where in (("DaemonSet", "selector"), ("PodMonitor", "selector"), ("NetworkPolicy", "podSelector")):
        assert manifests[kind]["spec"][where]["matchLabels"].items() <= labels.items(), kind
    (endpoint,) = manifests["PodMonitor"]["spec"]["podMetricsEndpoints"]
    (port,) = container(manifests)["ports"]
    assert endpoint["port"] == port["name"]


def test_the_network_policy_allows_the_api_server_and_metrics_and_nothing_else(render: Any) -> None:
    source = "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team"
    spec = render(f"{source}=monitoring", "networkPolicy.apiServer.cidrs={10.0.0.1/32,fd00::1/128}")["NetworkPolicy"][
        "spec"
    ]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [
        {
            "ports": [{"port": 9403, "protocol": "TCP"}],
            "from": [{"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}],
        }
    ]
    (egress,) = spec["egress"]
    assert [port["port"] for port in egress["ports"]] == [443, 6443]
    assert [one["ipBlock"]["cidr"] for one in egress["to"]] == ["10.0.0.1/32", "fd00::1/128"]


def test_the_feature_rule_names_the_chips_that_know_confidential_computing(render: Any) -> None:
    """Against the names in NVIDIA's tool: everything of these families, and nothing else that has a name there."""
    (rule,) = render("nodeFeatureRule.enabled=true")["NodeFeatureRule"]["spec"]["rules"]
    (feature,) = rule["matchFeatures"]
    patterns = feature["matchExpressions"]["device"]["value"]
    chosen = {
        name for number, name in GPU_NAME_BY_DEVID.items() if any(re.search(one, f"{number:04x}") for one in patterns)
    }
    capable = re.compile(r"G?[HB]\d+|RTX-PRO-(4500|6000)")
    assert chosen == {name for name in GPU_NAME_BY_DEVID.values() if capable.fullmatch(name)}


def test_eviction_is_a_right_only_for_draining(render: Any) -> None:
    def may_evict(manifests: Manifests) -> bool:
        return any("pods/eviction" in rule["resources"] for rule in manifests["ClusterRole"]["rules"])

    assert not may_evict(render())
    assert may_evict(render("settings.busy=drain"))


@pytest.mark.parametrize(
    ("value", "absent"),
    [
        ("admissionPolicy.enabled=false", POLICY),
        ("networkPolicy.enabled=false", ("NetworkPolicy",)),
        ("rbac.create=false", RIGHTS),
        ("serviceAccount.create=false", ("ServiceAccount",)),
    ],
)
def test_what_can_be_left_out(render: Any, value: str, absent: tuple[str, ...]) -> None:
    assert set(render(value)) == {*PLAIN, *POLICY} - set(absent)


def test_everything_on(render: Any) -> None:
    manifests = render(*(f"{name}=true" for name in OPTIONAL))
    assert {"PodMonitor", "PrometheusRule", "ConfigMap", "NodeFeatureRule"} <= set(manifests)
    dashboard = json.loads(manifests["ConfigMap"]["data"]["cc-manager.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    assert all(rule["alert"] and rule["expr"] for rule in group["rules"])


def test_without_a_port_nothing_asks_it(render: Any) -> None:
    manifests = render("settings.metricsPort=0", "podMonitor.enabled=true", "alerts.enabled=true")
    assert not {"PodMonitor", "PrometheusRule"} & set(manifests)
    assert not {"ports", "livenessProbe", "readinessProbe", "startupProbe"} & set(container(manifests))
    assert manifests["NetworkPolicy"]["spec"]["ingress"] == []


@pytest.mark.parametrize(
    "value",
    [
        "settings.busy=maybe",
        "settings.defaultMode=bogus",
        "settings.bus=elsewhere",
        "settings.metricsPort=70000",
        "settings.retryLimit=0",
        "setings.busy=wait",
        "image.pullPolicy=Sometimes",
        "networkPolicy.apiServer.cidrs={everywhere}",
        "nodeSelector.yes=true",
    ],
)
def test_the_schema_refuses(helm: Any, value: str) -> None:
    done = helm("template", "cc-manager", str(CHART), "--set", value)
    assert done.returncode != 0
    assert "schema" in done.stderr


# --- the chart and the operand say the same ---------------------------------------------------------------------------


def test_every_setting_is_one_of_the_operand(render: Any) -> None:
    known = {option.variable for option in settings.OPTIONS}
    given = {one["name"] for one in container(render())["env"]} - {"HOME", "NVIDIA_VISIBLE_DEVICES"}
    assert given <= known
    left = {"KUBECONFIG", "CC_READINESS_FILE", "CC_MANAGER_STATE_FOLDER"}
    assert known - given == left, "a setting that the chart does not know"


def test_the_defaults_are_the_operands(render: Any) -> None:
    given = {one["name"]: one.get("value") for one in container(render())["env"]}
    for option in settings.OPTIONS:
        if option.variable in given and option.variable not in ("NODE_NAME", "OPERATOR_NAMESPACE"):
            assert given[option.variable] == option.default, option.variable


def test_the_policy_allows_what_the_operand_writes(render: Any) -> None:
    variables = {one["name"]: one["expression"] for one in render()["ValidatingAdmissionPolicy"]["spec"]["variables"]}

    def words(name: str) -> set[str]:
        prefix = re.search(r'map\(name, "([^"]*)"', variables[name])
        found = re.findall(r'"([^"]+)"', variables[name].split(".map(")[0])
        return {(prefix.group(1) if prefix else "") + word for word in found}

    assert words("ownLabels") == {names.STATE_LABEL, names.READY_LABEL}
    assert words("componentLabels") == set(names.COMPONENT_LABELS)
    assert words("ownAnnotations") == {
        names.CHANGING_ANNOTATION,
        names.REASON_ANNOTATION,
        names.DEVICES_ANNOTATION,
        names.JOURNAL_ANNOTATION,
    }


def expressions(file: str) -> list[str]:
    """What is asked of Prometheus."""
    found = yaml.safe_load((CHART / "files" / file).read_text())
    if file == "alerts.yaml":
        return [rule["expr"] for group in found["groups"] for rule in group["rules"]]
    return [target["expr"] for panel in found["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_every_label_and_its_value_exist(file: str) -> None:
    made = metrics.Metrics()
    made.show_state("")
    made.show_wanted(None)
    made.show_devices(reading.Reading((reading.Device("0000:17:00.0", mode="on"),)))
    values: dict[str, set[str]] = {}
    for family in made.registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    of_targets, of_errors = {"node", "pod", "namespace"}, {"kind", "watch", "status"}
    for expression in expressions(file):
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', expression):
            assert value in values[label], expression
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert {one.strip() for one in labels.split(",")} <= values.keys() | of_targets | of_errors, expression
        assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_every_metric_exists(file: str) -> None:
    made = metrics.Metrics()
    known = set()
    for family in made.registry.collect():
        suffix = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        known |= {family.name + one for one in suffix}
    used = set(re.findall(r"cc_manager_[a-z_]+", (CHART / "files" / file).read_text()))
    assert used
    assert used <= known
