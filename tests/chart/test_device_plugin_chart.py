# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The device plugin's Helm chart: what it renders and refuses, and that the plugin takes what it renders."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "container")]

from device_plugin import settings  # noqa: E402
from device_plugin.gpu import config as gpu  # noqa: E402
from device_plugin.metrics import PluginMetrics  # noqa: E402
from device_plugin.source import Device  # noqa: E402
from device_plugin.tee import config  # noqa: E402
from kube import events  # noqa: E402

CHART = ROOT / "container/charts/device-plugin"
TEMPLATE = ("template", "device-plugin", str(CHART), "--namespace", "place", "--kube-version", "1.36.0")
PLAIN = {"ServiceAccount", "ConfigMap", "DaemonSet", "NetworkPolicy"}
ON_REQUEST = {
    "service.enabled": "Service",
    "podMonitor.enabled": "PodMonitor",
    "alerts.enabled": "PrometheusRule",
    "dashboard.enabled": "ConfigMap device-plugin-dashboard",
    "nodeFeatureRule.enabled": "NodeFeatureRule",
    "namespace.create": "Namespace",
}
GPU = ("source=gpu", "gpuConfig.sharing.timeSlicing.resources[0].name=nvidia.com/gpu")
REPLICAS = "gpuConfig.sharing.timeSlicing.resources[0].replicas"
FAIL = "gpuConfig.sharing.timeSlicing.failRequestsGreaterThanOne=true"
FEATURES = ("config.cdi.enabled=true", "config.reports.enabled=true")


@pytest.fixture
def render(helm: Any) -> Any:
    """Values as for --set to manifests by kind; the second of a kind by kind and name."""

    def run(*values: str) -> dict[str, Any]:
        done = helm(*TEMPLATE, *(word for value in values for word in ("--set", value)))
        assert done.returncode == 0, done.stderr
        made: dict[str, Any] = {}
        for one in filter(None, yaml.safe_load_all(done.stdout)):
            key = f"{one['kind']} {one['metadata']['name']}" if one["kind"] in made else one["kind"]
            assert key not in made
            made[key] = one
        return made

    return run


def pod(manifests: dict[str, Any]) -> Any:
    """The pod's specification."""
    return manifests["DaemonSet"]["spec"]["template"]["spec"]


def container(manifests: dict[str, Any]) -> Any:
    """Its only container."""
    (found,) = pod(manifests)["containers"]
    return found


def configuration(manifests: dict[str, Any]) -> config.Config:
    """What the plugin reads of the rendered file."""
    return config.parse(manifests["ConfigMap"]["data"]["config.yaml"], "config.yaml")


def test_lint(helm: Any) -> None:
    everything = ",".join([*(f"{name}=true" for name in ON_REQUEST), *FEATURES])
    for values in ((), ("--set", everything), ("--set", ",".join([*GPU, f"{REPLICAS}=4", FAIL, "register=false"]))):
        done = helm("lint", "--strict", "--kube-version", "1.36.0", *values, str(CHART))
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_installed_by_default_and_what_on_request(render: Any) -> None:
    assert set(render()) == PLAIN
    for value, kind in ON_REQUEST.items():
        assert set(render(f"{value}=true")) == {*PLAIN, kind}
    assert set(render("metricsPort=0", *(f"{name}=true" for name in ON_REQUEST))) == {
        *PLAIN,
        "NodeFeatureRule",
        "Namespace",
    }


def test_least_privilege(render: Any) -> None:
    manifests = render()
    context = container(manifests)["securityContext"]
    assert context == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostPID", "hostNetwork", "hostIPC", "securityContext"} & set(pod(manifests))
    assert pod(manifests)["automountServiceAccountToken"] is False
    assert manifests["ServiceAccount"]["automountServiceAccountToken"] is False
    assert not any(kind.endswith(("Role", "RoleBinding")) for kind in manifests)
    assert container(manifests)["resources"]["limits"] == {"memory": "64Mi"}
    assert manifests["NetworkPolicy"]["spec"]["egress"] == []


def test_pod_security_is_broken_by_host_paths_alone(render: Any) -> None:
    """The rules of the level "restricted", but for the user and the host's folders, of which there are no others."""
    manifests = render(*FEATURES)
    host = {one["name"]: one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one}
    assert host == {
        "plugins": "/var/lib/kubelet/device-plugins",
        "pod-resources": "/var/lib/kubelet/pod-resources",
        "dev": "/dev",
        "sockets": "/run/ccnp",
        "reports": "/sys/kernel/config/tsm/report",
        "cdi": "/var/run/cdi",
    }
    writable = {one["name"] for one in container(manifests)["volumeMounts"] if not one.get("readOnly")}
    assert writable == {"plugins", "sockets", "reports", "cdi"}
    off = render("config.socketFolder.enabled=false")
    assert {one["name"] for one in pod(off)["volumes"]} == {"plugins", "pod-resources", "config", "dev"}


def test_the_owner_of_the_folder_of_sockets_needs_what_the_pod_gets(render: Any) -> None:
    manifests = render("config.socketFolder.gid=1200", "config.socketFolder.mode=0775")
    assert pod(manifests)["securityContext"] == {"supplementalGroups": [1200]}
    assert "add" not in container(manifests)["securityContext"]["capabilities"]
    manifests = render("config.socketFolder.uid=4000000000")
    assert container(manifests)["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert configuration(manifests).folder == config.Folder("/run/ccnp/uds", 4_000_000_000, 0, 0o755, False)


def test_the_plugin_takes_what_is_rendered(render: Any) -> None:
    assert configuration(render()) == config.parse(
        "resources: [{device: tdx-guest}, {device: sev-guest}]", "the plugin's own defaults"
    )
    found = configuration(
        render(*FEATURES, "config.resources[0].device=tdx-guest", "config.resources[0].slots=1000000")
    )
    assert found.resources[0].slots == 1_000_000
    assert found.cdi_folder == "/var/run/cdi"
    assert found.reports == config.ReportFolders("/sys/kernel/config/tsm/report", "/run/tsm-report")


def test_the_process_takes_what_is_set_and_finds_what_is_mounted(render: Any) -> None:
    manifests = render(*FEATURES, "kubeletRoot=/data/kubelet", "metricsPort=9999", "logFormat=json")
    environment = {one["name"]: one.get("value", "") for one in container(manifests)["env"]}
    known = {option.variable for option in settings.options(["tee"])}
    assert {name for name in environment if name.startswith("DEVICE_PLUGIN_")} <= known
    assert environment.pop("DEVICE_PLUGIN_POD") == "$(POD_NAMESPACE)/$(POD_NAME)"
    chosen = settings.parse([], environment, ["tee"])
    assert (chosen.metrics_port, chosen.log_json) == (9999, True)
    mounts = {one["mountPath"]: one["name"] for one in container(manifests)["volumeMounts"]}
    host = {one["name"]: one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one}
    assert mounts[str(chosen.config.parent)] == "config"
    assert mounts[str(chosen.plugins_folder)] == "plugins"
    assert host[mounts[str(chosen.pod_resources.parent)]] == "/data/kubelet/pod-resources"
    found = configuration(manifests)
    assert found.folder is not None
    assert found.reports is not None
    assert found.cdi_folder is not None
    for path in (str(PurePosixPath(found.folder.path).parent), found.reports.path, found.cdi_folder, "/dev"):
        assert host[mounts[f"{chosen.host_root}{path}"]] == path


@pytest.mark.parametrize(
    "value",
    [
        "config.resources[0].slots=0",
        "config.resources[0].slot=1",
        "config.resources[0].device=tdx",
        "config.resources[0].name=tdx",
        "config.resources[0].paths[0]=/etc/passwd",
        "config.resources=null",
        "config.socketFolder.mode=0777",
        "config.socketFolder.path=/etc",
        "config.socketFolder.uid=-1",
        "config.cdii.enabled=true",
        "metricsPort=70000",
        "logFormat=xml",
        "security.hostUser=false",
        "bogus=1",
    ],
)
def test_what_cannot_be_meant_is_refused(helm: Any, value: str) -> None:
    given = ["--set-string" if ".mode=" in value else "--set", value]
    if "resources[0]" in value and ".device=" not in value:
        given += ["--set", "config.resources[0].device=tdx-guest"]
    assert helm(*TEMPLATE, *given).returncode != 0


def test_a_user_namespace_has_neither_devices_nor_configfs_of_the_host(render: Any, helm: Any) -> None:
    manifests = render("security.hostUsers=false")
    assert pod(manifests)["hostUsers"] is False
    assert "/dev" not in [one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one]
    chosen = [one["value"] for one in container(manifests)["env"] if one["name"] == "DEVICE_PLUGIN_DEVICES"]
    assert chosen == ["kernel"]
    done = helm(*TEMPLATE, "--set", "security.hostUsers=false,config.reports.enabled=true")
    assert done.returncode != 0
    assert "config.reports.enabled needs security.hostUsers: true" in done.stderr


def test_an_update_with_a_surge_and_other_ways(render: Any) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert render()["DaemonSet"]["spec"]["updateStrategy"] == strategy
    other = render("updateStrategy.type=OnDelete", "updateStrategy.rollingUpdate=null")
    assert other["DaemonSet"]["spec"]["updateStrategy"] == {"type": "OnDelete"}


def test_values_that_are_passed_on(render: Any) -> None:
    manifests = render(
        "security.seLinuxOptions.type=container_device_plugin_t",
        "priorityClassName=other",
        "nodeSelector.a=b",
        "tolerations[0].operator=Exists",
        "podLabels.more=yes",
        "image.tag=1.0",
    )
    assert container(manifests)["securityContext"]["seLinuxOptions"] == {"type": "container_device_plugin_t"}
    assert pod(manifests)["priorityClassName"] == "other"
    assert pod(manifests)["nodeSelector"] == {"a": "b"}
    assert pod(manifests)["tolerations"] == [{"operator": "Exists"}]
    assert container(manifests)["image"] == "localhost/device-plugin:1.0"
    digest = "sha256:" + "0" * 64
    assert container(render(f"image.digest={digest}"))["image"] == f"localhost/device-plugin@{digest}"


def test_what_a_pod_needs_beyond_that(render: Any, helm: Any) -> None:
    manifests = render(
        "extraEnv.MORE=x",
        "extraVolumes[0].name=more",
        "extraVolumes[0].configMap.name=some",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/more",
    )
    assert {"name": "MORE", "value": "x"} in container(manifests)["env"]
    assert {"name": "more", "configMap": {"name": "some"}} in pod(manifests)["volumes"]
    assert {"name": "more", "mountPath": "/more"} in container(manifests)["volumeMounts"]
    for name in ("DEVICE_PLUGIN_SOURCE", "DEVICE_PLUGIN_POD"):
        done = helm(*TEMPLATE, "--set", f"extraEnv.{name}=x")
        assert done.returncode != 0
        assert f"extraEnv.{name}: the chart sets it" in done.stderr


def test_nodes_with_any_of_the_labels_that_the_feature_rule_sets(render: Any) -> None:
    manifests = render("nodeFeatureRule.enabled=true")
    terms = pod(manifests)["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    chosen = [(one["key"], one["values"]) for term in terms["nodeSelectorTerms"] for one in term["matchExpressions"]]
    rules = manifests["NodeFeatureRule"]["spec"]["rules"]
    assert chosen == [(key, [value]) for rule in rules for key, value in rule["labels"].items()]
    assert len(chosen) == 2
    assert "affinity" not in pod(render("nodeLabels=null"))
    mine = render("affinity.podAffinity.x=y")
    assert pod(mine)["affinity"] == {"podAffinity": {"x": "y"}}


def test_selectors_select_the_pods(render: Any) -> None:
    manifests = render("podMonitor.enabled=true", "service.enabled=true", "podLabels.app\\.kubernetes\\.io/name=other")
    labels = manifests["DaemonSet"]["spec"]["template"]["metadata"]["labels"]
    for kind, where in (("DaemonSet", "selector"), ("PodMonitor", "selector"), ("NetworkPolicy", "podSelector")):
        assert manifests[kind]["spec"][where]["matchLabels"].items() <= labels.items(), kind
    assert manifests["Service"]["spec"]["selector"].items() <= labels.items()
    (port,) = container(manifests)["ports"]
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert manifests["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["port"] == port["name"]


@pytest.fixture
def expressions(render: Any) -> dict[str, str]:
    """All of PromQL in the chart, by the name of the alert or the title of the panel."""
    manifests = render("alerts.enabled=true", "dashboard.enabled=true")
    (group,) = manifests["PrometheusRule"]["spec"]["groups"]
    board = json.loads(manifests["ConfigMap device-plugin-dashboard"]["data"]["device-plugin.json"])
    found = {rule["alert"]: rule["expr"] for rule in group["rules"]}
    for panel in board["panels"]:
        found |= {f"{panel['title']} {one['refId']}": one["expr"] for one in panel["targets"]}
    # Grafana's own variable for a period stands where PromQL has one.
    return {name: text.replace("$__rate_interval", "5m") for name, text in found.items()}


def test_alerts_and_dashboard_ask_for_what_the_plugin_counts(expressions: dict[str, str]) -> None:
    metrics = PluginMetrics()
    known = {f"{one.name}_total" if one.type == "counter" else one.name for one in metrics.registry.collect()}
    known |= {f"{one.name}_info" for one in metrics.registry.collect() if one.type == "info"}
    asked: set[str] = set()
    for name, expression in expressions.items():
        promql_parser.parse(expression)
        words = set(re.findall(r"(?:device_plugin|process)_\w+", expression))
        assert words <= known, name
        asked |= words
    ours = {one for one in known if one.startswith("device_plugin_") and one != "device_plugin_build"}
    assert asked & ours == ours, "a metric that nobody looks at"


def test_labels_that_are_asked_for_exist(expressions: dict[str, str]) -> None:
    """Those of the plugin, and what Prometheus adds: node by the PodMonitor."""
    metrics = PluginMetrics()
    metrics.show_devices("r", [Device("a::0")])
    metrics.show_held(["r"], {"r": frozenset({"a::0"})})
    metrics.allocation_errors.labels("r", "why")
    metrics.node_errors.labels("403")
    known = {label for one in metrics.registry.collect() for sample in one.samples for label in sample.labels}
    for name, expression in expressions.items():
        for words in re.findall(r"by \(([^)]*)\)", expression):
            assert {one.strip() for one in words.split(",")} <= known | {"node"}, name


def test_the_dashboard_is_found_and_has_a_panel_of_each_id(render: Any) -> None:
    board = render("dashboard.enabled=true")["ConfigMap device-plugin-dashboard"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    panels = json.loads(board["data"]["device-plugin.json"])["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    places = [one["gridPos"] for one in panels]
    for number, one in enumerate(places):
        for other in places[:number]:
            beside = one["x"] >= other["x"] + other["w"] or other["x"] >= one["x"] + one["w"]
            assert beside or one["y"] >= other["y"] + other["h"] or other["y"] >= one["y"] + one["h"]


def test_every_alert_says_what_to_do(render: Any) -> None:
    (group,) = render("alerts.enabled=true")["PrometheusRule"]["spec"]["groups"]
    for rule in group["rules"]:
        assert rule["annotations"]["summary"], rule["alert"]
        assert rule["annotations"]["description"], rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_another_name_for_everything(render: Any) -> None:
    manifests = render("fullnameOverride=other", *(f"{name}=true" for name in ON_REQUEST))
    assert {one["metadata"]["name"] for one in manifests.values()} == {"other", "place", "other-dashboard"}
    (volume,) = [one for one in pod(manifests)["volumes"] if one["name"] == "config"]
    assert volume["configMap"]["name"] == "other"
    assert 'daemonset="other"' in yaml.safe_dump(manifests["PrometheusRule"])


def test_gpus(render: Any, helm: Any) -> None:
    manifests = render(
        *GPU,
        f"{REPLICAS}=1000000",
        "gpuConfig.flags.nvidiaDriverRoot=/run/nvidia/driver",
        "gpuConfig.flags.plugin.deviceListStrategy[0]=cdi-cri",
    )
    read = gpu.parse(manifests["ConfigMap"]["data"]["config.yaml"], "config.yaml")
    assert [(one.name, one.replicas) for one in read.shared] == [("nvidia.com/gpu", 1000000)]
    assert (read.driver_root, read.strategies) == ("/run/nvidia/driver", ("cdi-cri",))
    host = {one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one}
    assert host == {
        "/var/lib/kubelet/device-plugins",
        "/var/lib/kubelet/pod-resources",
        "/dev",
        "/run/device-plugin-gpu",
        "/etc/cdi",
        "/run/cdi",
        "/run/nvidia/driver",
    }
    writable = [one["mountPath"] for one in container(manifests)["volumeMounts"] if not one.get("readOnly")]
    assert writable == ["/var/lib/kubelet/device-plugins", "/host/run/device-plugin-gpu"]
    environment = {one["name"]: one.get("value", "of the pod") for one in container(manifests)["env"]}
    assert environment["DEVICE_PLUGIN_SOURCE"] == "gpu"
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert settings.parse([], environment, ["tee", "gpu"]).source == "gpu"
    assert pod(manifests)["runtimeClassName"] == "nvidia"
    assert "securityContext" not in pod(manifests)
    for values, words in (
        ((*GPU, f"{REPLICAS}=1"), "replicas"),
        (("source=gpu", "gpuConfig.flags.migStrategy=single"), "migStrategy"),
        (("source=gpu", "gpuConfig.sharing.timeSlicng.x=1"), "timeSlicng"),
        (("source=gpu", "security.hostUsers=false"), "security.hostUsers: true"),
    ):
        done = helm(*TEMPLATE, *(word for value in values for word in ("--set", value)))
        assert done.returncode != 0
        assert words in done.stderr


def of_name(manifests: dict[str, Any], kind: str, name: str) -> Any:
    """One of several of a kind."""
    (found,) = [one for one in manifests.values() if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


POLICY = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ((), ["nvidia.com/gpu"]),
        (("gpuConfig.sharing.timeSlicing.renameByDefault=true",), ["nvidia.com/gpu.shared"]),
        (("gpuConfig.sharing.timeSlicing.resources[0].rename=quarter",), ["nvidia.com/quarter"]),
        (("gpuConfig.sharing.timeSlicing.resources[0].name=gpu",), ["nvidia.com/gpu"]),
    ],
)
def test_requests_for_more_than_one_share_are_refused_by_the_names_that_the_plugin_offers(
    render: Any, values: tuple[str, ...], names: list[str]
) -> None:
    manifests = render(*GPU, f"{REPLICAS}=4", FAIL, *values)
    policy, binding = (of_name(manifests, kind, "device-plugin-one-share") for kind in POLICY)
    variables = {one["name"]: one["expression"] for one in policy["spec"]["variables"]}
    assert json.loads(variables["names"]) == names
    read = gpu.parse(manifests["ConfigMap"]["data"]["config.yaml"], "config.yaml")
    assert [one.name for one in read.shared] == names
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["validationActions"] == ["Deny"]
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])


def test_the_chart_takes_what_the_plugin_takes_of_nvidias_flags(render: Any) -> None:
    plugin = "gpuConfig.flags.plugin"
    strategies = [f"{plugin}.deviceListStrategy[{number}]={one}" for number, one in enumerate(gpu.STRATEGIES)]
    manifests = render("source=gpu", f"{plugin}.sharedDevicesAllocationPolicy=packed", *strategies)
    read = gpu.parse(manifests["ConfigMap"]["data"]["config.yaml"], "config.yaml")
    assert (read.strategies, read.policy) == (gpu.STRATEGIES, "packed")
    paths = {one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one}
    assert {"/etc/cdi", "/run/cdi"} <= paths
    alone = render("source=gpu", f"{plugin}.deviceListStrategy=cdi-annotations")
    assert "/run/cdi" in {one["hostPath"]["path"] for one in pod(alone)["volumes"] if "hostPath" in one}


def test_no_policy_where_nothing_is_to_fail(render: Any) -> None:
    for values in (
        (*GPU, f"{REPLICAS}=4"),
        (*GPU, f"{REPLICAS}=4", FAIL, "admissionPolicy.enabled=false"),
        (f"{REPLICAS}=4", GPU[1], FAIL),
        ("source=gpu",),
    ):
        names = {one["metadata"]["name"] for one in render(*values).values()}
        assert "device-plugin-one-share" not in names


def test_metrics_beside_nvidias_plugin(render: Any, helm: Any) -> None:
    cdi = "gpuConfig.flags.plugin.deviceListStrategy=cdi-cri"
    manifests = render(*GPU, f"{REPLICAS}=4", "register=false", cdi)
    environment = {one["name"]: one.get("value", "") for one in container(manifests)["env"]}
    assert not settings.parse([], environment, ["tee", "gpu"]).register
    paths = {one["hostPath"]["path"] for one in pod(manifests)["volumes"] if "hostPath" in one}
    assert paths == {"/var/lib/kubelet/pod-resources", "/dev", "/run/device-plugin-gpu"}
    mounted = {one["name"] for one in container(manifests)["volumeMounts"]}
    assert mounted == {one["name"] for one in pod(manifests)["volumes"]}
    done = helm(*TEMPLATE, "--set", "register=false")
    assert done.returncode != 0
    assert "register: false needs source: gpu" in done.stderr


def test_a_pod_with_gpus_has_no_more_rights(render: Any) -> None:
    manifests = render(*GPU, f"{REPLICAS}=4", "security.seLinuxOptions.type=container_device_plugin_t")
    assert container(manifests)["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "container_device_plugin_t"},
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostPID", "hostNetwork", "hostIPC", "shareProcessNamespace", "initContainers"} & set(pod(manifests))


def test_the_feature_rule_knows_guests_by_processor_module_or_device(render: Any) -> None:
    tdx, snp = render("nodeFeatureRule.enabled=true")["NodeFeatureRule"]["spec"]["rules"]

    def asked(rule: Any) -> list[tuple[str, str]]:
        every = [feature for one in rule["matchAny"] for feature in one["matchFeatures"]]
        return [(one["feature"], key) for one in every for key in one["matchExpressions"]]

    assert tdx["labels"] == {"intel.feature.node.kubernetes.io/tdx-guest": "enabled"}
    assert asked(tdx) == [("cpu.security", "tdx.protected"), ("kernel.loadedmodule", "tdx_guest")]
    assert snp["labels"] == {"amd.feature.node.kubernetes.io/snp-guest": "enabled"}
    assert asked(snp) == [("kernel.loadedmodule", "sev_guest"), ("local.feature", "sev-guest.device")]


FOUR = tuple(
    f"gpuNode.configs.four.{one}"
    for one in (
        "version=v1",
        "sharing.timeSlicing.resources[0].name=gpu",
        "sharing.timeSlicing.resources[0].replicas=4",
    )
)


def test_the_source_gpu_reads_its_node_and_makes_events_and_has_no_other_right(render: Any) -> None:
    manifests = render("source=gpu")
    rights = {
        kind: [(rule["apiGroups"], rule["resources"], rule["verbs"]) for rule in manifests[kind]["rules"]]
        for kind in ("ClusterRole", "Role")
    }
    assert rights == {"ClusterRole": [([""], ["nodes"], ["get", "watch"])], "Role": [([""], ["events"], ["create"])]}
    assert manifests["Role"]["metadata"]["namespace"] == manifests["RoleBinding"]["metadata"]["namespace"]
    assert manifests["Role"]["metadata"]["namespace"] == events.NAMESPACE
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        assert manifests[kind]["subjects"] == [
            {"kind": "ServiceAccount", "name": "device-plugin", "namespace": "place"}
        ]
    assert pod(manifests)["automountServiceAccountToken"] is True
    variables = {one["name"]: one for one in container(manifests)["env"]}
    assert variables["DEVICE_PLUGIN_NODE"]["valueFrom"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    ports = [port["port"] for rule in manifests["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]]
    assert ports == [443, 6443]
    (condition,) = manifests["ValidatingAdmissionPolicy"]["spec"]["matchConditions"]
    assert '"system:serviceaccount:place:device-plugin"' in condition["expression"]


@pytest.mark.parametrize("values", [("source=tee",), ("source=gpu", "gpuNode.enabled=false")])
def test_without_that_there_is_no_right_and_no_token(render: Any, values: tuple[str, ...]) -> None:
    manifests = render(*values)
    assert set(manifests) == PLAIN
    assert pod(manifests)["automountServiceAccountToken"] is False
    assert manifests["NetworkPolicy"]["spec"]["egress"] == []
    assert "DEVICE_PLUGIN_NODE" not in {one["name"] for one in container(manifests)["env"]}


def test_rights_that_somebody_else_gives(render: Any) -> None:
    manifests = render("source=gpu", "rbac.create=false", "admissionPolicy.enabled=false")
    assert set(manifests) == PLAIN
    assert pod(manifests)["automountServiceAccountToken"] is True


def test_configurations_by_name(render: Any, helm: Any) -> None:
    manifests = render("source=gpu", *FOUR, "gpuNode.defaultConfig=four", "gpuConfig.flags.nvidiaDriverRoot=/run/a")
    environment = {one["name"]: one.get("value", "node") for one in container(manifests)["env"]}
    chosen = settings.parse([], environment, ["tee", "gpu"])
    assert chosen.default_config == "four"
    mounts = {one["mountPath"]: one["name"] for one in container(manifests)["volumeMounts"]}
    (volume,) = [one for one in pod(manifests)["volumes"] if one["name"] == mounts[str(chosen.configs)]]
    files = of_name(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
    read = {name: gpu.parse(text, name) for name, text in files.items()}
    assert [one.replicas for one in read["four"].shared] == [4]
    assert read["default"].driver_root == "/run/a"
    assert "/host/run/a" in mounts
    for values, words in (
        ((*FOUR,), "needs source: gpu"),
        (("source=gpu", "gpuNode.enabled=false", *FOUR), "gpuNode.enabled: true"),
        (("source=gpu", *FOUR, "gpuNode.defaultConfig=five"), 'is "five"'),
        (("source=gpu", "gpuNode.configs.four.versio=v1"), "versio"),
        (("source=gpu", "gpuNode.configs.-four.version=v1"), "-four"),
    ):
        done = helm(*TEMPLATE, *(word for value in values for word in ("--set", value)))
        assert done.returncode != 0
        assert words in done.stderr
