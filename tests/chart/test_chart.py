# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The Helm chart: what it renders and refuses, and that it names what the CC manager knows. No cluster is needed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "container")]

from cc_manager import chain, journal, metrics, names, publish, reading, settings  # noqa: E402
from gpu.devid_names import GPU_NAME_BY_DEVID  # noqa: E402
from kube import events  # noqa: E402

from tests.chart import gpu_operator, pods  # noqa: E402
from tests.cluster.kube import workloads  # noqa: E402

CHART = ROOT / "container/charts/cc-manager"
OPTIONAL = ("podMonitor.enabled", "alerts.enabled", "dashboard.enabled", "nodeFeatureRule.enabled")
RIGHTS = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
PLAIN = ("ServiceAccount", *RIGHTS, "DaemonSet", "NetworkPolicy")
POLICY = tuple(
    f"ValidatingAdmissionPolicy{kind}{name}" for kind in ("", "Binding") for name in ("", " cc-manager-events")
)
EVICTIONS = "ValidatingAdmissionPolicy cc-manager-evictions"
TEMPLATE = ("template", "cc-manager", str(CHART), "--namespace", "place", "--kube-version", "1.36.0")
Manifests = dict[str, Any]


AUDIT_FOLDER = "/var/log/confidential-gpu"


@pytest.fixture
def render(helm: Any) -> Any:
    """Values as for --set to manifests by kind; the second and further ones of a kind by kind and name."""

    def run(*values: str) -> Manifests:
        given = [word for value in values for word in ("--set", value)]
        done = helm(*TEMPLATE, *given)
        assert done.returncode == 0, done.stderr
        manifests: Manifests = {}
        for one in filter(None, yaml.safe_load_all(done.stdout)):
            kind = one["kind"]
            key = f"{kind} {one['metadata']['name']}" if kind in manifests else kind
            assert key not in manifests
            manifests[key] = one
        return manifests

    return run


def container(manifests: Manifests) -> Any:
    """The only container of the DaemonSet."""
    (found,) = manifests["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    return found


def rights(role: Any) -> set[tuple[str, ...]]:
    """Resources with their verbs."""
    return {(*rule["resources"], *rule["verbs"]) for rule in role["rules"]}


def variables(policy: Any) -> dict[str, str]:
    """The expressions of a policy's variables."""
    return {one["name"]: one["expression"] for one in policy["spec"]["variables"]}


def environment(manifests: Manifests) -> dict[str, str]:
    """The container's variables; none is there twice, which server-side apply refuses."""
    given = container(manifests)["env"]
    assert len({one["name"] for one in given}) == len(given)
    return {one["name"]: one.get("value", "") for one in given}


def test_lint(helm: Any) -> None:
    done = helm("lint", "--strict", "--kube-version", "1.36.0", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_with_everything_on(helm: Any) -> None:
    switches = (*OPTIONAL, "namespace.create", "openshift.enabled", "settings.driftRepair")
    values = ",".join([*(f"{name}=true" for name in switches), "settings.busy=drain"])
    done = helm("lint", "--strict", "--kube-version", "1.36.0", "--set", values, str(CHART))
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
    assert rights(manifests["ClusterRole"]) == {
        ("nodes", "get", "list", "watch", "patch"),
        ("pods", "list", "watch"),
    }
    assert rights(manifests["Role"]) == {("events", "create", "patch")}
    assert manifests["Role"]["metadata"]["namespace"] == events.NAMESPACE
    for binding in ("ClusterRoleBinding", "RoleBinding"):
        (subject,) = manifests[binding]["subjects"]
        assert (subject["name"], subject["namespace"]) == ("cc-manager", "place")


def test_fewer_rights_on_request(render: Any) -> None:
    """Pods of the components' namespace alone, and without components none at all."""
    fewer = ("rbac.podsOfAllNamespaces=false", "settings.componentsNamespace=operator")
    manifests = render(*fewer)
    assert rights(manifests["ClusterRole"]) == {("nodes", "get", "list", "watch", "patch")}
    roles = {one["metadata"]["namespace"]: one for key, one in manifests.items() if key.split()[0] == "Role"}
    assert rights(roles["operator"]) == {("pods", "list", "watch")}
    bindings = [one for key, one in manifests.items() if key.split()[0] == "RoleBinding"]
    (binding,) = [one for one in bindings if one["metadata"]["namespace"] == "operator"]
    assert binding["roleRef"]["name"] == roles["operator"]["metadata"]["name"]
    assert binding["subjects"] == manifests["ClusterRoleBinding"]["subjects"]
    assert not any(
        one["metadata"].get("namespace") == "operator"
        for one in render(*fewer, "settings.pauseComponents=false").values()
    )


@pytest.mark.parametrize("busy", ["wait", "drain"])
def test_pods_that_cannot_be_seen_are_not_waited_for(helm: Any, busy: str) -> None:
    done = helm(*TEMPLATE, "--set", f"settings.busy={busy},rbac.podsOfAllNamespaces=false")
    assert done.returncode != 0
    assert "rbac.podsOfAllNamespaces" in done.stderr


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
    assert EVICTIONS not in render()
    manifests = render("settings.busy=drain")
    assert may_evict(manifests)
    assert EVICTIONS in manifests
    assert f"ValidatingAdmissionPolicyBinding {EVICTIONS.split()[1]}" in manifests


def test_cordoning_is_a_right_only_for_draining(render: Any) -> None:
    def rule(manifests: Manifests) -> str:
        validations = manifests["ValidatingAdmissionPolicy"]["spec"]["validations"]
        (found,) = [one["expression"] for one in validations if "wasCordoned" in one["expression"]]
        return " ".join(found.split())

    assert "variables.cordoned ? false &&" in rule(render())
    assert "variables.cordoned ? true &&" in rule(render("settings.busy=drain"))


def test_every_denial_says_that_it_is_forbidden(render: Any) -> None:
    """By default the API server calls it an invalid object (422)."""
    manifests = render("settings.busy=drain")
    policies = [one for key, one in manifests.items() if key.split()[0] == "ValidatingAdmissionPolicy"]
    assert len(policies) == 3
    for policy in policies:
        assert policy["spec"]["failurePolicy"] == "Fail"
        for one in policy["spec"]["validations"]:
            assert one["reason"] == "Forbidden", one
            assert "message" in one or "messageExpression" in one


def test_rights_and_policy_for_the_gpu_operators_manager(render: Any) -> None:
    """No pods and no service account of the chart's: what it gives, it gives to the GPU Operator's."""
    manifests = render(*gpu_operator.VALUES, *(f"{name}=true" for name in OPTIONAL))
    assert not {"DaemonSet", "ServiceAccount", "NetworkPolicy", "PodMonitor"} & set(manifests)
    (subject,) = manifests["ClusterRoleBinding"]["subjects"]
    assert subject == {"kind": "ServiceAccount", "name": "nvidia-cc-manager", "namespace": "place"}
    for name in POLICY[:2]:
        (condition,) = manifests[name]["spec"]["matchConditions"]
        assert '"system:serviceaccount:place:nvidia-cc-manager"' in condition["expression"]
    assert 'daemonset="nvidia-cc-manager"' in yaml.safe_dump(manifests["PrometheusRule"])


def test_the_policy_that_is_applied_alone_is_the_charts(helm_path: str) -> None:
    assert gpu_operator.FILE.read_text() == gpu_operator.manifest(), "python -m tests.chart.gpu_operator"


@pytest.mark.parametrize("name", pods.VALUES)
def test_virtual_machines_run_the_charts_pod(helm_path: str, name: str) -> None:
    assert pods.file(name).read_text() == pods.text(name), "python -m tests.chart.pods"


@pytest.mark.parametrize(
    ("value", "absent"),
    [
        ("daemonSet.enabled=false", ("DaemonSet", "NetworkPolicy")),
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
    assert set(manifests) >= {"PodMonitor", "PrometheusRule", "ConfigMap", "NodeFeatureRule"}
    dashboard = json.loads(manifests["ConfigMap"]["data"]["cc-manager.json"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_an_image_by_its_digest(render: Any) -> None:
    digest = "sha256:" + "0123456789abcdef" * 4
    assert container(render("image.repository=place/name", "image.tag=1.0"))["image"] == "place/name:1.0"
    assert container(render("image.repository=place/name", f"image.digest={digest}"))["image"] == f"place/name@{digest}"


def test_another_name_for_everything(render: Any) -> None:
    manifests = render("fullnameOverride=other", "settings.busy=drain", *(f"{name}=true" for name in OPTIONAL))
    names_of_all = {one["metadata"]["name"] for one in manifests.values()}
    assert names_of_all == {"other", "other-events", "other-evictions", "other-dashboard"}
    assert 'daemonset="other"' in yaml.safe_dump(manifests["PrometheusRule"])


def test_volumes_of_the_users_own(render: Any) -> None:
    manifests = render(
        "extraVolumes[0].name=more",
        "extraVolumes[0].configMap.name=some",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/more",
    )
    assert {"name": "more", "configMap": {"name": "some"}} in manifests["DaemonSet"]["spec"]["template"]["spec"][
        "volumes"
    ]
    assert {"name": "more", "mountPath": "/more"} in container(manifests)["volumeMounts"]


def test_a_folder_for_audit_records_is_the_hosts(render: Any) -> None:
    manifests = render(f"settings.auditFolder={AUDIT_FOLDER}")
    volumes = manifests["DaemonSet"]["spec"]["template"]["spec"]["volumes"]
    assert {"name": "audit", "hostPath": {"path": AUDIT_FOLDER, "type": "DirectoryOrCreate"}} in volumes
    assert {"name": "audit", "mountPath": AUDIT_FOLDER} in container(manifests)["volumeMounts"]
    assert environment(manifests)["CC_MANAGER_AUDIT_FOLDER"] == AUDIT_FOLDER
    assert "audit" not in str(render()["DaemonSet"]["spec"]["template"]["spec"]["volumes"])


def test_lost_records_are_an_alert_where_there_are_any(alerts: Any) -> None:
    name = "ConfidentialComputingAuditLost"
    assert name not in alerts()
    assert AUDIT_FOLDER in alerts(f"settings.auditFolder={AUDIT_FOLDER}")[name]["annotations"]["description"]


def test_how_pods_are_replaced(render: Any) -> None:
    assert render()["DaemonSet"]["spec"]["updateStrategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxUnavailable": 1},
    }
    on_delete = render("updateStrategy.type=OnDelete", "updateStrategy.rollingUpdate=null")
    assert on_delete["DaemonSet"]["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_a_pod_that_ends_takes_its_readiness_file_with_it(render: Any) -> None:
    """The file that it was told to write, and none if it writes none."""
    for values in ((), ("settings.readinessFile=/run/nvidia/other",)):
        manifests = render(*values)
        file = environment(manifests)["CC_READINESS_FILE"]
        assert container(manifests)["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/rm", "-f", file]
    assert environment(render())["CC_READINESS_FILE"] == workloads.READINESS_FILE
    without = render("settings.readinessFile=")
    assert environment(without)["CC_READINESS_FILE"] == ""
    assert "lifecycle" not in container(without)


def test_variables_of_the_users_own(render: Any) -> None:
    assert environment(render("extraEnv.MORE=yes"))["MORE"] == "yes"


def test_a_variable_that_the_chart_sets_is_refused(helm: Any, render: Any) -> None:
    """Twice in the list, the second would win in one client and be an error in another."""
    for name in environment(render()):
        done = helm(*TEMPLATE, "--set-string", f"extraEnv.{name}=1")
        assert done.returncode != 0, name
        assert f"extraEnv.{name}" in done.stderr


def test_a_namespace_that_lets_the_pods_in(render: Any) -> None:
    """On request; it stays when the release goes, because Helm keeps the release in it."""
    assert "Namespace" not in render()
    found = render("namespace.create=true")["Namespace"]["metadata"]
    assert found["name"] == "place"
    assert found["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    assert found["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("processes", ["true", "false"])
def test_openshift_allows_what_the_pods_are(render: Any, processes: str) -> None:
    assert "SecurityContextConstraints" not in render()
    manifests = render("openshift.enabled=true", f"security.hostProcesses={processes}")
    allowed, pod = manifests["SecurityContextConstraints"], manifests["DaemonSet"]["spec"]["template"]["spec"]
    context = container(manifests)["securityContext"]
    assert allowed["users"] == ["system:serviceaccount:place:cc-manager"]
    assert allowed["allowHostPID"] is pod["hostPID"]
    assert allowed["allowedCapabilities"] == context["capabilities"]["add"]
    assert allowed["allowPrivilegedContainer"] is context["privileged"]
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= set(allowed["volumes"])
    assert context["seLinuxOptions"] == {"type": "spc_t"}
    assert "seLinuxOptions" not in container(render())["securityContext"]


def test_the_notes_say_what_to_do_next(helm: Any) -> None:
    def notes(*values: str) -> str:
        done = helm("install", *TEMPLATE[1:5], "--dry-run=client", *values)
        assert done.returncode == 0, done.stderr
        return str(done.stdout).partition("NOTES:")[2]

    assert f"{names.MODE_LABEL}=on" in notes()
    assert "into the mode off" in notes("--set", "settings.defaultMode=off")
    assert "may change every node" in notes("--set", "admissionPolicy.enabled=false")
    assert "may change every node" not in notes()
    assert "no pods" in notes("--set", ",".join(gpu_operator.VALUES))


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
        "image.digest=sha256:12",
        "fullnameOverride=Not_a_name",
        "updateStrategy.type=Recreate",
        "settings.readinessFile=relative",
        "extraVolumes[0].emptyDir.medium=Memory",
        "namespace.created=true",
    ],
)
def test_the_schema_refuses(helm: Any, value: str) -> None:
    done = helm("template", "cc-manager", str(CHART), "--set", value)
    assert done.returncode != 0
    assert "schema" in done.stderr


# --- the chart and the CC manager say the same ------------------------------------------------------------------------


def test_every_setting_is_one_of_the_cc_manager(render: Any) -> None:
    known = {option.variable for option in settings.OPTIONS}
    given = set(environment(render())) - {"HOME", "NVIDIA_VISIBLE_DEVICES"}
    assert given <= known
    assert known - given == {"KUBECONFIG"}, "a setting that the chart does not know"


def test_the_defaults_are_the_cc_managers(render: Any) -> None:
    given = {one["name"]: one.get("value") for one in container(render())["env"]}
    for option in settings.OPTIONS:
        if option.variable in given and option.variable not in ("NODE_NAME", "POD_NAME", "OPERATOR_NAMESPACE"):
            assert given[option.variable] == option.default, option.variable


def test_every_value_is_in_the_schema() -> None:
    """And nothing else is: a name that is misspelt is refused at each level."""

    def check(values: Any, schema: Any, path: str) -> None:
        if "properties" not in schema:
            return
        assert schema["additionalProperties"] is False, path
        assert set(values) <= set(schema["properties"]), path
        for key, value in values.items():
            if isinstance(value, dict):
                check(value, schema["properties"][key], f"{path}.{key}")

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    check(values, schema, "")
    assert set(schema["properties"]) - set(values) == {"global"}  # which Helm makes by itself
    assert set(schema["properties"]["settings"]["properties"]) == set(values["settings"])


def named(ending: str) -> set[str]:
    """The CC manager's names whose constants end so."""
    return {value for key, value in vars(names).items() if key.endswith(ending)}


def test_the_policy_allows_what_the_cc_manager_writes(render: Any) -> None:
    found = variables(render()["ValidatingAdmissionPolicy"])

    def words(name: str) -> set[str]:
        prefix = re.search(r'map\(name, "([^"]*)"', found[name])
        return {
            (prefix.group(1) if prefix else "") + word
            for word in re.findall(r'"([^"]+)"', found[name].split(".map(")[0])
        }

    users = {names.MODE_LABEL, names.WANTED_ANNOTATION, names.RETRY_ANNOTATION}
    assert words("ownLabels") == named("_LABEL") - users
    assert words("componentLabels") == set(names.COMPONENT_LABELS)
    assert words("pause") == {names.PAUSED}
    longest = json.loads(found["ownAnnotations"])
    assert set(longest) == named("_ANNOTATION") - users
    assert longest[names.RETRIED_ANNOTATION] >= publish.RETRIED_MAX
    assert longest[names.AUDIT_ANNOTATION] >= len(chain.Tail(10**12).text)
    assert longest[names.REASON_ANNOTATION] >= publish.REASON_MAX_BYTES
    allowed = json.loads(found["readyOf"])
    assert set(allowed) == {*names.MODES, names.MIXED, names.FAILED, ""}
    for state, ready in allowed.items():
        assert set(ready) == {publish.Status(state).ready, ""}


def test_the_policy_finds_an_original_in_the_journal(render: Any) -> None:
    """It reads the journal as text: the label's name and value as the CC manager writes them."""
    (expression,) = [
        one["expression"]
        for one in render()["ValidatingAdmissionPolicy"]["spec"]["validations"]
        if "variables.journal" in one["expression"]
    ]
    assert r'"\"" + key + "\": \"" + variables.labels[key] + "\""' in expression
    key = next(iter(names.COMPONENT_LABELS))
    assert f'"{key}": "some"' in journal.Journal({key: "some"}).text()


# --- what is asked of Prometheus --------------------------------------------------------------------------------------


@pytest.fixture
def alerts(render: Any) -> Any:
    """Values to the rules by name."""

    def run(*values: str) -> Manifests:
        (group,) = render("alerts.enabled=true", *values)["PrometheusRule"]["spec"]["groups"]
        return {rule["alert"]: rule for rule in group["rules"]}

    return run


@pytest.fixture
def expressions(alerts: Any) -> Any:
    """The expressions of the alerts, or of the dashboard."""

    def run(where: str) -> list[str]:
        if where == "alerts":
            return [rule["expr"] for rule in alerts(f"settings.auditFolder={AUDIT_FOLDER}").values()]
        found = json.loads((CHART / "files/dashboard.json").read_text())
        return [target["expr"] for panel in found["panels"] for target in panel.get("targets", [])]

    return run


@pytest.mark.parametrize("where", ["alerts", "dashboard"])
def test_every_expression_is_one(expressions: Any, where: str) -> None:
    for expression in expressions(where):
        # Grafana's own variable for a period stands where PromQL has one.
        promql_parser.parse(expression.replace("$__rate_interval", "5m"))


def test_every_alert_says_what_to_do(alerts: Any) -> None:
    for name, rule in alerts().items():
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["description"], name
        assert rule["labels"]["severity"] in ("warning", "critical")
    for name in ("GaveUp", "Fight"):
        assert f" {names.RETRY_ANNOTATION}=" in alerts()[f"ConfidentialComputing{name}"]["annotations"]["description"]


def test_no_alert_asks_for_readings_that_nobody_makes(alerts: Any) -> None:
    """Their age is one of the interval's, and without an interval none at all."""
    name = "ConfidentialComputingNotRead"
    assert "> 1800 " in alerts()[name]["expr"]
    assert "> 21600 " in alerts("settings.driftIntervalSeconds=3600")[name]["expr"]
    without = alerts("settings.driftIntervalSeconds=0")
    assert name not in without
    assert not any("last_reading" in rule["expr"] for rule in without.values())


@pytest.mark.parametrize("where", ["alerts", "dashboard"])
def test_every_label_and_its_value_exist(expressions: Any, where: str) -> None:
    made = metrics.CCManagerMetrics()
    made.show_state("")
    made.show_wanted(None)
    made.show_devices(reading.Reading((reading.Device("0000:17:00.0", mode="on"),)))
    values: dict[str, set[str]] = {}
    for family in made.registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, set()).add(value)
    of_targets, of_errors = {"node", "pod", "namespace"}, {"kind", "watch", "status", "key"}
    for expression in expressions(where):
        own = re.sub(r"kube_\w+{[^}]*}", "", expression)
        for label, value in re.findall(r'(\w+)=~?"([^"]*)"', own):
            assert value in values[label], expression
        for labels in re.findall(r"by \(([^)]*)\)", expression):
            assert {one.strip() for one in labels.split(",")} <= values.keys() | of_targets | of_errors, expression


@pytest.mark.parametrize("where", ["alerts", "dashboard"])
def test_every_metric_exists(expressions: Any, where: str) -> None:
    made = metrics.CCManagerMetrics()
    known = set()
    for family in made.registry.collect():
        suffix = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        known |= {family.name + one for one in suffix}
    used = {name for expression in expressions(where) for name in re.findall(r"cc_manager_[a-z_]+", expression)}
    assert used
    assert used <= known


def test_every_metric_is_looked_at(expressions: Any) -> None:
    text = " ".join(one for where in ("alerts", "dashboard") for one in expressions(where))
    asked = {re.sub("_(total|bucket)$", "", name) for name in re.findall(r"cc_manager_[a-z_]+", text)}
    ours = {one.name for one in metrics.CCManagerMetrics().registry.collect() if one.name.startswith(metrics.PREFIX)}
    assert sorted(ours - {metrics.PREFIX + "build"} - asked) == []
