# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The modules' answers, with programs that keep a cluster in a folder in the place of kubectl and Helm."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_objects import NODE, Cluster
from fake_helm import write as write_release

from ansible_collections.confidential.gpu.plugins.module_utils._coco import deploy, look, node_mode, sample
from ansible_collections.confidential.gpu.plugins.module_utils._coco.errors import (
    ApiRefused,
    ChartRefused,
    ClusterUnreachable,
    HelmFailed,
    ReleaseWedged,
)
from ansible_collections.confidential.gpu.plugins.module_utils._coco.helm import Chart, Helm
from ansible_collections.confidential.gpu.plugins.module_utils._coco.kubectl import Api, Place
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest, NotPermitted
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock

HERE = Path(__file__).parent
EXPECT = {
    "technology": "",
    "mode": "",
    "mode_of_cluster": "",
    "gpus": 0,
    "sample_gpus": 1,
    "sample_nvswitches": 0,
    "sample_memory": "16Gi",
    "distribution": "k8s",
    "imports": [],
    "installs_nfd": False,
    "kata_version": "",
    "minimum": {},
    "documented": {},
    "runtime_request_timeout": 1200,
}


class Folder:
    """A cluster in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.parent.mkdir(exist_ok=True)
        programs = [self._program(name) for name in ("fake_kubectl", "fake_helm")]
        self.place = Place(kubectl=programs[0], helm=programs[1], kubeconfig=str(root))

    def _program(self, name: str) -> str:
        """An executable of this Python, without what it need not know: it starts in a fraction of the time."""
        path = self.root.parent / name
        path.write_text(f"#!{sys.executable} -SE\n" + (HERE / f"{name}.py").read_text())
        path.chmod(0o755)
        return str(path)

    def put(self, collection: str, *things: Any) -> None:
        """Objects of a collection; without any, an empty one."""
        folder = self.root / collection
        folder.mkdir(parents=True, exist_ok=True)
        for thing in things:
            (folder / (thing["metadata"]["name"] + ".json")).write_text(json.dumps(thing))

    def get(self, path: str) -> Any:
        return json.loads((self.root / (path + ".json")).read_text())

    def behave(self, **what: Any) -> None:
        (self.root / "behaviour.json").write_text(json.dumps(what))

    @property
    def options(self) -> dict[str, str]:
        return self.place._asdict()


@pytest.fixture
def folder(tmp_path: Path, cluster: Cluster) -> Folder:
    """The cluster in which all is well."""
    made = Folder(tmp_path / "cluster")
    kinds = ("clusterpolicies.nvidia.com", "nodefeaturerules.nfd.k8s-sigs.io")
    made.put("apis/apiextensions.k8s.io/v1/customresourcedefinitions", *({"metadata": {"name": one}} for one in kinds))
    made.put("api/v1/nodes", cluster.node)
    made.put("apis/node.k8s.io/v1/runtimeclasses", *cluster.classes)
    made.put("apis/apps/v1/daemonsets", *cluster.daemonsets)
    made.put("apis/nvidia.com/v1/clusterpolicies", cluster.policy)
    made.put("apis/nfd.k8s-sigs.io/v1alpha1/nodefeaturerules", *cluster.rules.values())
    made.put("api/v1/pods")
    made.put("api/v1/secrets")
    proxy = made.root / "api/v1/nodes" / NODE / "proxy"
    proxy.mkdir(parents=True)
    (proxy / "configz.json").write_text(json.dumps({"kubeletconfig": cluster.configz[NODE]}))
    (made.root / "version.json").write_text(json.dumps({"gitVersion": "v1.34.2"}))
    return made


def looked(folder: Folder, **changes: Any) -> dict[str, Any]:
    given = {"nodes": [NODE], "installed": True, "steps": [], "expect": EXPECT, "configz": True, "also": []}
    return look.run({"wait": 0, "read": True, "dest": "", **given, **folder.options, **changes}, Hurried())


class Hurried(Clock):
    """A clock on which a second passes in no time; whoever waits sees ``meanwhile`` happen once."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._now = 0.0
        self._meanwhile = meanwhile

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds
        self._meanwhile()


def test_a_cluster_that_is_well(folder: Folder) -> None:
    found = looked(folder)
    assert found["refused"] == found["unmet"] == []
    assert found["nodes"][NODE]["runtime_class"] == "kata-qemu-nvidia-gpu-snp"
    assert found["kubelets"] == {NODE: {"lacks": [], "gates": ["RuntimeClassInImageCriApi"], "ready": True}}
    assert found["nfd"] == ["node-feature-discovery/nfd-worker"]


def asked(folder: Folder) -> list[str]:
    """Every GET that the API server has seen since the last time."""
    file = folder.root / "asked.txt"
    lines = file.read_text().splitlines()
    file.unlink()
    return lines


def test_the_number_of_requests_is_fixed_but_for_one_to_each_kubelet(folder: Folder, cluster: Cluster) -> None:
    few = looked(folder)["lists"]
    before = [one for one in asked(folder) if "/proxy/configz" not in one]
    names = [f"worker-{number}" for number in range(100)]
    folder.put(
        "api/v1/nodes", *({**cluster.node, "metadata": {**cluster.node["metadata"], "name": name}} for name in names)
    )
    found = looked(folder, nodes=names)
    after = asked(folder)
    assert [one for one in after if "/proxy/configz" not in one] == before
    assert len(after) == len(before) + 100
    assert found["lists"] == few
    assert len(found["rows"]) == 9 * 100


def test_findings_as_if_all_were_installed_come_with_those_of_the_preflight(folder: Folder, cluster: Cluster) -> None:
    cluster.labels["nvidia.com/cc.mode.state"] = "off"
    folder.put("api/v1/nodes", cluster.node)
    found = looked(folder, installed=False, expect={**EXPECT, "mode": "on"})
    assert found["unmet"] == []
    assert [one["rule"] for one in found["as_installed"] if one["state"] == "failed"] == ["mode"]
    assert (found["mode_of_cluster"], found["workloads"]) == ("", {NODE: "vm-passthrough"})


def test_the_report_is_a_file_too(folder: Folder, tmp_path: Path) -> None:
    file = tmp_path / "new/report.json"
    found = looked(folder, dest=str(file))
    assert json.loads(file.read_text()) == {"rows": found["rows"], "findings": found["findings"]}
    with pytest.raises(NotPermitted, match="report"):
        looked(folder, dest=str(file / "below"))


def test_a_report_of_what_is_known_asks_nobody(folder: Folder) -> None:
    known = looked(folder)["as_installed"]
    asked(folder)
    found = looked(folder, read=False, also=known)
    assert not (folder.root / "asked.txt").exists()
    assert found["rows"] == looked(folder)["rows"]


def test_it_waits_until_nothing_of_the_wanted_steps_fails(folder: Folder, cluster: Cluster) -> None:
    cluster.labels["katacontainers.io/kata-runtime"] = "false"
    folder.put("api/v1/nodes", cluster.node)
    given = {"nodes": [NODE], "installed": True, "steps": ["kata"], "expect": EXPECT, "configz": False, "also": []}
    arguments = {**given, **folder.options, "read": True, "wait": 5, "dest": ""}
    assert any("kata-runtime" in words for words in look.run(arguments, Hurried())["unmet"])
    assert len([one for one in asked(folder) if one.startswith("/api/v1/nodes")]) == 6

    def mend() -> None:
        cluster.labels["katacontainers.io/kata-runtime"] = "true"
        folder.put("api/v1/nodes", cluster.node)

    assert look.run(arguments, Hurried(mend))["unmet"] == []
    assert len([one for one in asked(folder) if one.startswith("/api/v1/nodes")]) == 2


def test_a_cluster_without_kinds_of_others(folder: Folder) -> None:
    for path in ("apis/nvidia.com", "apis/nfd.k8s-sigs.io", "apis/apiextensions.k8s.io/v1/customresourcedefinitions"):
        shutil.rmtree(folder.root / path)
    assert any("no ClusterPolicy" in words for words in looked(folder)["unmet"])


def test_findings_of_others_are_rows(folder: Folder) -> None:
    also = [{"rule": "sample", "step": "sample", "about": NODE, "state": "failed", "seen": "x", "remedy": "y"}]
    (row,) = [row for row in looked(folder, also=also)["rows"] if row["step"] == "sample"]
    assert (row["state"], row["evidence"], row["remedy"]) == ("failed", "x", "y")
    with pytest.raises(InvalidRequest, match="no step"):
        looked(folder, also=[{**also[0], "step": "rain"}])
    assert looked(folder, also=[{**also[0], "about": "worker-9"}])["unmet"] == []


def test_pods_that_a_change_would_hurt(folder: Folder) -> None:
    limits = {"resources": {"limits": {"nvidia.com/pgpu": "1"}}}
    guest = {"nodeName": NODE, "runtimeClassName": "kata-qemu-nvidia-gpu-snp", "containers": [limits]}
    other = {"nodeName": NODE, "containers": [{}]}
    for name, spec in (("guest", guest), ("other", other)):
        folder.put("api/v1/pods", {"metadata": {"name": name, "namespace": "default"}, "spec": spec})
    (user,) = looked(folder)["users"]
    assert (user["name"], user["gpus"]) == ("guest", 1)


def test_a_way_to_the_cluster_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachable, match="no such file"), Api(Folder(tmp_path / "nowhere").place):
        pass
    with pytest.raises(InvalidRequest, match="cannot be run"), Api(Place(kubectl=str(tmp_path / "none"))):
        pass


JOB = {
    "node": NODE,
    "namespace": "default",
    "runtime_class": None,
    "technology": "",
    "image": "registry.example/sample:1",
    "command": [],
    "gpus": 2,
    "nvswitches": 4,
    "memory": "16Gi",
    "contains": "Test PASSED",
    "environment": {"NONCE": 1},
    "annotations": {"io.katacontainers.config.hypervisor.cc_init_data": "x"},
    "pull_secrets": ["registry"],
    "tolerations": [{"operator": "Exists"}],
    "timeout": 0.1,
}


def sampled(folder: Folder, check: bool = False, **changes: Any) -> dict[str, Any]:
    return sample.run({**JOB, **folder.options, **changes}, check)


def pods_left(folder: Folder) -> list[Path]:
    return list((folder.root / "api/v1/namespaces/default/pods").glob("*.json"))


def test_a_sample_that_passes_is_deleted(folder: Folder) -> None:
    folder.behave(pod={"phase": "Succeeded"}, log="Test PASSED\n")
    found = sampled(folder)
    assert (found["state"], found["runtime_class"]) == ("passed", "kata-qemu-nvidia-gpu-snp")
    assert pods_left(folder) == []
    (pod,) = [json.loads(line) for line in (folder.root / "made.jsonl").read_text().splitlines()]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/pgpu": "2", "nvidia.com/nvswitch": "4"}
    assert pod["spec"]["restartPolicy"] == "Never"
    assert "nodeName" not in pod["spec"]


@pytest.mark.parametrize(
    ("pod", "log", "seen"),
    [
        ({"phase": "Succeeded"}, "nothing", "does not say"),
        (
            {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 7, "reason": "Error"}}}]},
            "",
            "status 7",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, "", "Evicted"),
        ({"phase": "Pending"}, "", "Pending after"),
    ],
)
def test_a_sample_that_fails_says_why_and_is_deleted(folder: Folder, pod: Any, log: str, seen: str) -> None:
    folder.behave(pod=pod, log=log)
    found = sampled(folder)
    assert found["state"] == "failed"
    assert seen in found["seen"]
    assert pods_left(folder) == []


def test_a_sample_without_a_class_a_node_or_a_right(folder: Folder) -> None:
    assert sampled(folder, check=True)["state"] == "skipped"
    with pytest.raises(InvalidRequest, match="no node"):
        sampled(folder, node="worker-9")
    folder.behave(forbidden=True)
    with pytest.raises(ApiRefused, match="forbidden"):
        sampled(folder)
    shutil.rmtree(folder.root / "apis/node.k8s.io/v1/runtimeclasses")
    assert "no runtime class" in sampled(folder)["seen"]


def set_mode(folder: Folder, mode: str, drain: bool = False, check: bool = False) -> node_mode.Answer:
    with Api(folder.place) as api:
        return node_mode.set_of_node(api, NODE, mode, drain, 0.1, check)


def hold(folder: Folder) -> None:
    limits = {"resources": {"limits": {"nvidia.com/pgpu": "1"}}}
    pod = {"metadata": {"name": "vm", "namespace": "default"}, "spec": {"nodeName": NODE, "containers": [limits]}}
    folder.put("api/v1/pods", pod)
    folder.put("api/v1/namespaces/default/pods", pod)


def test_the_mode_of_a_node(folder: Folder) -> None:
    label = "nvidia.com/cc.mode"
    folder.behave(after_patch={"metadata": {"labels": {label + ".state": "off"}}})
    assert set_mode(folder, "off", check=True).changed
    assert label not in folder.get("api/v1/nodes/" + NODE)["metadata"]["labels"]
    answer = set_mode(folder, "off")
    assert (answer.changed, answer.state) == (True, "off")
    assert not set_mode(folder, "off").changed
    with pytest.raises(InvalidRequest, match="no node"), Api(folder.place) as api:
        node_mode.set_of_node(api, "worker-9", "on", False, 0.1, False)


def test_a_mode_that_fails_or_never_comes(folder: Folder) -> None:
    reason = {"nvidia.com/cc.mode.reason": "GPU 0 did not boot"}
    folder.behave(after_patch={"metadata": {"labels": {"nvidia.com/cc.mode.state": "failed"}, "annotations": reason}})
    with pytest.raises(node_mode.ModeFailed, match="GPU 0 did not boot"):
        set_mode(folder, "off")
    folder.behave()
    with pytest.raises(node_mode.ModeFailed, match=r"after 0 s"):
        set_mode(folder, "devtools")


def test_gpus_that_are_held(folder: Folder) -> None:
    hold(folder)
    folder.behave(after_patch={"metadata": {"labels": {"nvidia.com/cc.mode.state": "off"}}})
    with pytest.raises(node_mode.GpusHeld, match="default/vm"):
        set_mode(folder, "off")
    assert set_mode(folder, "off", drain=True, check=True).evicted == ["default/vm"]
    assert set_mode(folder, "off", drain=True).evicted == ["default/vm"]
    hold(folder)
    folder.behave(budget=True)
    with pytest.raises(node_mode.GpusHeld, match="disruption budget"):
        set_mode(folder, "on", drain=True)


def set_cluster(folder: Folder, mode: str, drain: bool = False, check: bool = False) -> node_mode.Answer:
    with Api(folder.place) as api:
        return node_mode.set_of_cluster(api, mode, drain, 3, check, Hurried(lambda: settle(folder, mode)))


def settle(folder: Folder, mode: str) -> None:
    """The manager of the node takes the mode of the cluster, as soon as somebody waits for it."""
    node = folder.get("api/v1/nodes/" + NODE)
    state = "failed" if (folder.root / "fails").exists() else mode
    node["metadata"]["labels"]["nvidia.com/cc.mode.state"] = state
    folder.put("api/v1/nodes", node)


def test_the_mode_of_the_cluster_is_waited_for_on_each_node_without_one_of_its_own(folder: Folder) -> None:
    policy = "apis/nvidia.com/v1/clusterpolicies/cluster-policy"
    assert set_cluster(folder, "off", check=True).changed
    assert "ccManager" not in folder.get(policy)["spec"]
    answer = set_cluster(folder, "off")
    assert (answer.changed, answer.after, answer.state) == (True, "off", "off")
    assert folder.get(policy)["spec"]["ccManager"] == {"defaultMode": "off"}
    assert not set_cluster(folder, "off").changed
    with pytest.raises(InvalidRequest, match="ppcie"):
        set_cluster(folder, "ppcie")
    shutil.rmtree(folder.root / "apis/nvidia.com")
    with pytest.raises(InvalidRequest, match="0 ClusterPolicies"):
        set_cluster(folder, "on")


def test_a_mode_of_the_cluster_that_fails_on_a_node(folder: Folder) -> None:
    (folder.root / "fails").touch()
    with pytest.raises(node_mode.ModeFailed, match=f"off failed on {NODE}"):
        set_cluster(folder, "off")
    (folder.root / "fails").unlink()
    # What it said then is no answer to what is asked now.
    assert set_cluster(folder, "devtools").state == "devtools"


def test_the_mode_of_the_cluster_is_not_changed_below_pods_that_hold_gpus(folder: Folder, cluster: Cluster) -> None:
    hold(folder)
    policy = folder.get("apis/nvidia.com/v1/clusterpolicies/cluster-policy")
    with pytest.raises(node_mode.GpusHeld, match="default/vm"):
        set_cluster(folder, "off")
    assert folder.get("apis/nvidia.com/v1/clusterpolicies/cluster-policy") == policy
    assert set_cluster(folder, "off", drain=True, check=True).evicted == ["default/vm"]
    assert set_cluster(folder, "off", drain=True).evicted == ["default/vm"]
    # A node with a mode of its own does not follow, so its pods are in nobody's way.
    hold(folder)
    cluster.labels.update({"nvidia.com/cc.mode": "on"})
    folder.put("api/v1/nodes", cluster.node)
    assert set_cluster(folder, "devtools").evicted == []


CHART = {
    "name": "kata-deploy",
    "namespace": "kata-system",
    "state": "present",
    "version": "",
    "repository": "",
    "digest": "",
    "values": {"debug": False},
    "secret_values": None,
    "keep_values": False,
    "downgrade": False,
    "registry": "",
    "take_ownership": False,
    "repair": False,
    "patience": 900,
    "timeout": 60,
}


@pytest.fixture
def chart(folder: Folder, tmp_path: Path) -> Path:
    """One object that holds the values, and no release yet."""
    folder.put("api/v1/namespaces/kata-system/secrets")
    made = tmp_path / "chart"
    made.mkdir()
    (made / "Chart.yaml").write_text("name: kata-deploy\nversion: 4.1.0\n")
    (made / "manifest.yaml").write_text("kind: ConfigMap\nmetadata:\n  name: x\ndata: VALUES\nimage: a.example/b:1\n")
    return made


def released(folder: Folder, chart: Path, check: bool = False, **changes: Any) -> dict[str, Any]:
    return deploy.run({**CHART, "chart": str(chart), **folder.options, **changes}, check)


def test_a_release_is_installed_once(folder: Folder, chart: Path) -> None:
    assert released(folder, chart, check=True)["changed"]
    assert released(folder, chart)["changes"] == [{"what": "release", "before": "", "after": "kata-deploy 4.1.0"}]
    again = released(folder, chart)
    assert (again["changed"], again["images"]) == (False, ["a.example/b:1"])
    assert again["installed"]["revision"] == 1
    other = released(folder, chart, values={"debug": True}, check=True)
    assert "values.debug: false\n" in other["diff"]["before"]
    assert "object ConfigMap x: changed\n" in other["diff"]["after"]


def test_values_stay_where_they_may(folder: Folder, chart: Path) -> None:
    released(folder, chart, values={"debug": False, "theirs": 1})
    assert not released(folder, chart, keep_values=True)["changed"]
    assert released(folder, chart)["changed"]


def test_secret_values_are_on_no_command_line_and_in_no_diff(folder: Folder, chart: Path) -> None:
    answer = released(folder, chart, secret_values='{"a": {"b": "hunter2"}}')
    answer = released(folder, chart, secret_values='{"a": {"b": "hunter3"}}')
    assert "values.a.b: (hidden)" in answer["diff"]["after"]
    assert "hunter" not in json.dumps(answer) + (folder.root / "helm.txt").read_text()


def test_older_charts_other_versions_other_digests_are_refused(folder: Folder, chart: Path, tmp_path: Path) -> None:
    released(folder, chart)
    (chart / "Chart.yaml").write_text("name: kata-deploy\nversion: 4.0.0\n")
    with pytest.raises(ChartRefused, match="older"):
        released(folder, chart)
    assert released(folder, chart, downgrade=True)["changed"]
    with pytest.raises(ChartRefused, match="not 4.2.0"):
        released(folder, chart, version="4.2.0")
    with pytest.raises(ChartRefused, match="it is a folder"):
        released(folder, chart, digest="sha256:1234")
    with pytest.raises(InvalidRequest, match="There is no chart"):
        released(folder, tmp_path / "none")
    with pytest.raises(InvalidRequest, match="no repository"):
        released(folder, Path("kata-deploy"))
    with pytest.raises(HelmFailed, match="no route"):
        deploy.run({**CHART, "chart": "oci://a.example/b", **folder.options}, True)


def test_several_releases_are_compared_at_once(folder: Folder, chart: Path, tmp_path: Path) -> None:
    released(folder, chart)
    folder.put("api/v1/namespaces/other/secrets")
    shared = {
        key: CHART[key] for key in ("keep_values", "downgrade", "registry", "take_ownership", "repair", "patience")
    }
    same = {"name": "kata-deploy", "namespace": "kata-system", "chart": str(chart), "values": {"debug": False}}
    new = {**same, "name": "new", "namespace": "other"}
    none = {**new, "chart": str(tmp_path / "none")}
    left = {"version": "", "repository": "", "digest": "", "secret_values": None}
    wanted = [{**left, **one} for one in (same, new, none)]
    answer = deploy.plan({**shared, **folder.options, "releases": wanted})
    assert [one["changed"] for one in answer["releases"]] == [False, True, False]
    assert answer["releases"][1]["changes"] == [{"what": "release", "before": "", "after": "kata-deploy 4.1.0"}]
    assert "There is no chart" in answer["releases"][2]["error"]["cause"]
    assert answer["images"] == ["a.example/b:1"]
    assert not list((folder.root / "api/v1/namespaces/other/secrets").iterdir())


def test_an_archive_is_known_by_its_chart_file(folder: Folder, chart: Path, tmp_path: Path) -> None:
    """And a file that is no chart is refused by name."""
    archive = tmp_path / "kata-deploy-4.1.0.tgz"
    inner = chart / "charts/other"
    inner.mkdir(parents=True)
    (inner / "Chart.yaml").write_text("name: other\nversion: 9.9.9\n")
    with tarfile.open(archive, "w:gz") as file:
        file.add(inner, "kata-deploy/charts/other")
        file.add(chart / "Chart.yaml", "kata-deploy/Chart.yaml")
    with Api(folder.place) as api:
        found = Helm(folder.place, api, "x", "y").fetch(Chart(str(archive), "4.1.0"), str(tmp_path))
        assert (found.name, found.version) == ("kata-deploy", "4.1.0")
        (tmp_path / "text").write_text("no archive")
        with pytest.raises(InvalidRequest, match="is no chart"):
            Helm(folder.place, api, "x", "y").fetch(Chart(str(tmp_path / "text")), str(tmp_path))


def test_an_interrupted_helm(folder: Folder, chart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released(folder, chart)
    pending = {
        "name": "kata-deploy",
        "namespace": "kata-system",
        "version": 2,
        "info": {"status": "pending-upgrade", "last_deployed": "2026-01-01T00:00:00Z"},
        "chart": {"metadata": {"name": "kata-deploy", "version": "4.1.0"}},
    }
    monkeypatch.setattr("sys.argv", ["helm", "--namespace", "kata-system"])
    write_release(folder.root, pending)
    with pytest.raises(ReleaseWedged, match="repair: true"):
        released(folder, chart)
    planned = released(folder, chart, repair=True, check=True)
    assert planned["changes"][0]["what"] == "repair"
    assert released(folder, chart, repair=True)["changed"]
    assert not released(folder, chart)["changed"]


def test_removal_also_when_a_hook_fails_and_also_twice(folder: Folder, chart: Path) -> None:
    released(folder, chart)
    assert released(folder, chart, state="absent", check=True)["changed"]
    (folder.root / "hook-fails").touch()
    answer = released(folder, chart, state="absent")
    assert answer["changed"]
    assert "without hooks" in answer["warnings"][0]
    assert not released(folder, chart, state="absent")["changed"]
