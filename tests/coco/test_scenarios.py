# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A cluster from bare to confidential and back, with what goes wrong on the way. The tests go on from one another."""

from __future__ import annotations

import concurrent.futures
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.kube.bed import is_running
from tests.cluster.kube.cluster import is_ready
from tests.cluster.kube.programs import EVERY
from tests.cluster.kube.settings import NODE
from tests.coco.actors import SNP
from tests.coco.bench import FIGURES, Bench, Played
from tests.coco.guest import guest_image

OK_ROWS = ("nodes", "kubelet", "nfd", "gpu_operator", "kata", "mode", "resources", "sample")
OTHER = "node1"
GUESTS = "/api/v1/namespaces/default/pods?labelSelector=app.kubernetes.io%2Fmanaged-by%3Dconfidential.gpu"
PENDING = "/api/v1/namespaces/kata-system/secrets?labelSelector=owner%3Dhelm%2Cstatus%3Dpending-upgrade"
CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


def classes(bench: Bench) -> set[str]:
    return {one["metadata"]["name"] for one in bench.cluster.api.get(CLASSES)["items"]}


def version(bench: Bench) -> str:
    """What changes with any write to what the playbooks are about."""
    found: list[Any] = []
    for path in (
        CLASSES,
        "/apis/apps/v1/daemonsets",
        "/apis/apps/v1/deployments",
        "/api/v1/secrets",
        "/api/v1/namespaces",
    ):
        found += [one["metadata"]["resourceVersion"] for one in bench.cluster.api.get(path)["items"]]
    return " ".join(sorted(found)) + bench.kubelet_file.read_text()


def tenant(limits: dict[str, str] | None = None) -> Any:
    """Somebody's pod in the runtime class."""
    container = {
        "name": "main",
        "image": "localhost/mirror/cuda-sample:1",
        "imagePullPolicy": "Never",
        "resources": {"limits": limits or {}},
    }
    spec = {
        "runtimeClassName": "kata-qemu-nvidia-gpu-snp",
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    metadata = {"name": "tenant", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def test_a_bare_cluster_is_reported_step_by_step(bench: Bench) -> None:
    before = version(bench)
    played = bench.play("confidential_containers_check")
    assert played.status == 2, played.text
    assert played.changed == 0
    rows = bench.rows()
    assert rows["nodes"] == "ok"
    assert {rows[step] for step in ("kubelet", "nfd", "gpu_operator", "kata", "mode", "resources")} == {"failed"}
    assert version(bench) == before


def test_check_mode_lists_all_and_writes_nothing_although_no_kind_is_there(bench: Bench) -> None:
    before = version(bench)
    played = bench.play("confidential_containers", "--check", "--diff")
    assert played.status == 0, played.text
    for words in (
        "+release: node-feature-discovery",
        "+release: gpu-operator",
        "+release: kata-deploy",
        "runtimeRequestTimeout",
    ):
        assert words in played.text
    assert version(bench) == before


def test_from_bare_to_a_sample_that_passes(bench: Bench) -> None:
    played = bench.play("confidential_containers")
    FIGURES.append(f"bare cluster to report: {played.seconds:.0f} s")
    assert played.status == 0, played.text
    assert {step: bench.rows()[step] for step in OK_ROWS} == dict.fromkeys(OK_ROWS, "ok")
    kubelet = bench.cluster.api.get(f"/api/v1/nodes/{NODE}/proxy/configz")["kubeletconfig"]
    assert kubelet["featureGates"]["RuntimeClassInImageCriApi"] is True
    assert kubelet["runtimeRequestTimeout"] == "20m0s"
    assert bench.cluster.pods("default") == []


def test_a_second_run_changes_nothing_and_asks_once(bench: Bench) -> None:
    """One way to the cluster for the look, the comparison and the sample each, and one Helm for each chart."""
    programs: dict[str, Any] = {}
    log = bench.folder / "started.log"
    for name in ("helm", "kubectl"):
        programs[f"confidential_containers_{name}"] = str(bench.folder / f"counted-{name}")
        script = f'#!/bin/sh\necho "{name} $1 $3" >> {log}\nexec {EVERY[name].path()} "$@"\n'
        (bench.folder / f"counted-{name}").write_text(script)
        (bench.folder / f"counted-{name}").chmod(0o755)
    played = bench.play("confidential_containers", **programs)
    assert played.status == 0, played.text
    assert played.changed == 0, played.text
    charts = ("nfd", "gpu-operator", "kata-deploy")
    assert Counter(log.read_text().splitlines()) == {
        "kubectl --kubeconfig proxy": 3,
        **{f"helm upgrade {chart}": 1 for chart in charts},
    }
    checked = bench.play("confidential_containers_check")
    sampled = bench.play("confidential_containers_check", confidential_containers_check_sample=True)
    for one in (checked, sampled):
        assert (one.status, one.changed) == (0, 0), one.text
    FIGURES.append(
        f"second run: {played.seconds:.1f} s; check with a sample, too: {sampled.seconds:.1f} s; "
        f"without: {checked.seconds:.1f} s"
    )


def test_every_chart_and_image_is_shown(bench: Bench) -> None:
    played = bench.play("confidential_containers", "--tags", "images")
    assert (played.status, played.changed) == (0, 0), played.text
    for words in (
        '"name": "node-feature-discovery"',
        '"name": "gpu-operator"',
        '"version": "4.1.0"',
        "localhost/mirror/kata-containers/kubectl:1.36",
        "localhost/mirror/nvidia/gpu-operator:v26.3.0",
    ):
        assert words in played.text


def test_a_host_whose_node_has_another_name(bench: Bench) -> None:
    host = "gpu-server-7.example"
    played = bench.play("confidential_containers", hosts=(host,), nodes={host: NODE})
    assert (played.status, played.changed) == (0, 0), played.text
    assert {step: bench.rows()[step] for step in OK_ROWS} == dict.fromkeys(OK_ROWS, "ok")


def test_one_of_two_nodes_fails_and_the_other_goes_on(bench: Bench) -> None:
    """The one that fails is the first, on which what is done once for all is done."""
    bench.actors.add_node(OTHER)
    bench.actors.fails = {OTHER}
    try:
        played = bench.play(
            "confidential_containers",
            hosts=(OTHER, NODE),
            confidential_containers_mode="devtools",
            confidential_containers_check_sample_timeout=8,
        )
        assert played.status == 2
        assert {step: bench.rows()[step] for step in OK_ROWS} == dict.fromkeys(OK_ROWS, "ok")
        assert bench.cluster.node()["metadata"]["labels"]["nvidia.com/cc.mode.state"] == "devtools"
        other = bench.told(OTHER)
        assert (other["mode"]["state"], other["sample"]["state"]) == ("failed", "failed")
        assert f"The mode devtools failed on {OTHER}" in other["mode"]["evidence"]
        assert "nvidia.com/cc.ready.state=true, the node has false" in other["sample"]["evidence"]
        assert other["kata"]["state"] == "ok"
    finally:
        bench.actors.fails = set()
        bench.actors.remove_node(OTHER)
        bench.cluster.set_labels({"nvidia.com/cc.mode": None})
        bench.cluster.until_node(lambda node: node["metadata"]["labels"]["nvidia.com/cc.mode.state"] == "on", 20)


def test_the_mode_of_the_cluster_changes_only_where_no_pod_holds_a_gpu(bench: Bench) -> None:
    def mode() -> str:
        (policy,) = bench.cluster.api.get("/apis/nvidia.com/v1/clusterpolicies")["items"]
        return str(policy["spec"]["ccManager"]["defaultMode"])

    bench.cluster.apply(tenant(limits={"nvidia.com/pgpu": "1"}))
    bench.cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name=tenant", is_running, 30)
    try:
        refused = bench.play("confidential_containers", confidential_containers_default_mode="devtools")
        assert refused.status == 2
        assert "default/tenant" in bench.told()["gpu_operator"]["evidence"]
        assert mode() == "on"
    finally:
        bench.cluster.kubectl("delete", "pod", "tenant", "--now")
    played = bench.play("confidential_containers", confidential_containers_default_mode="devtools")
    assert played.status == 0, played.text
    assert mode() == "devtools"
    assert "cc.mode.state=devtools" in bench.told()["mode"]["evidence"]
    back = bench.play("confidential_containers", "--tags", "gpu_operator")
    assert back.status == 0, back.text
    assert mode() == "on"


def attested(bench: Bench, kind: str) -> Played:
    """The check, with a guest of this kind."""
    return bench.play(
        "confidential_containers_check",
        confidential_containers_attestation=True,
        attestation_check_image=guest_image(bench, kind),
        attestation_check_memory="32Mi",
        attestation_check_timeout=30,
    )


def test_a_guest_tells_its_gpu_and_verifies_evidence_with_a_nonce_of_its_own(bench: Bench) -> None:
    nonces = set()
    for _time in range(2):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            going = pool.submit(attested, bench, "good")
            pod = bench.cluster.api.until(GUESTS, lambda one: not one["deleted"], 60)
            played = going.result()
        (variable,) = pod["spec"]["containers"][0]["env"]
        nonces.add(variable["value"])
        assert played.status == 0, played.text
        assert "evidence verified in the guest with a fresh nonce" in bench.told()["attestation"]["evidence"]
        assert variable["value"] not in played.text
    assert len(nonces) == 2
    assert bench.cluster.pods("default") == []


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("off", "does not say 'CC status: ON'"),
        ("bad-evidence", "status 3"),
        ("no-nvattest", "evidence was not asked for"),
    ],
)
def test_a_guest_that_cannot_prove_it(bench: Bench, kind: str, seen: str) -> None:
    played = attested(bench, kind)
    row = bench.told()["attestation"]
    assert seen in row["evidence"], row
    assert (played.status, row["state"]) == ((0, "ok") if kind == "no-nvattest" else (2, "failed"))


def test_an_api_server_that_goes_while_helm_works(bench: Bench) -> None:
    """The release stays half done; nobody takes it for his until it is known that no Helm works on it."""
    change = {**bench.variables()["confidential_containers_kata_values"], "tolerations": [{"operator": "Exists"}]}
    server = bench.cluster.processes["kube-apiserver"]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        going = pool.submit(bench.play, "confidential_containers", confidential_containers_kata_values=change)
        bench.cluster.api.until(PENDING, lambda one: not one["deleted"], 60)
        server.stop(signal.SIGKILL)
        broken = going.result()
    bench.cluster.start_server()
    bench.cluster.until_node(is_ready, 60)
    assert broken.status == 2
    assert "Helm" in broken.text or "helm upgrade ended" in broken.text
    waits = bench.play("confidential_containers", "--tags", "kata", confidential_containers_repair=True)
    assert waits.status == 2
    assert "another Helm may be at work" in waits.text
    mended = bench.play(
        "confidential_containers",
        confidential_containers_kata_values=change,
        confidential_containers_repair=True,
        confidential_containers_patience=0,
    )
    assert mended.status == 0, mended.text
    assert {step: bench.rows()[step] for step in OK_ROWS} == dict.fromkeys(OK_ROWS, "ok")
    assert bench.cluster.pods("default") == []


def test_an_order_that_left_the_rule_out_is_detected_and_repaired(bench: Bench) -> None:
    """As in NVIDIA's order: what kata-deploy rendered has no rule, so NFD sets no label, and pods stay Pending."""
    values = bench.folder / "kata.yaml"
    without = {**bench.variables()["confidential_containers_kata_values"], "nodeFeatureRules": {"create": False}}
    values.write_text(yaml.safe_dump(without))
    where = ("--namespace", "kata-system", "--reuse-values", "--values", str(values))
    bench.cluster.helm("upgrade", "kata-deploy", bench.charts["kata"], *where)
    bench.cluster.until_node(lambda node: SNP not in node["metadata"]["labels"], 20)
    found = bench.play(
        "confidential_containers_check",
        confidential_containers_check_sample=True,
        confidential_containers_expect={"technology": "snp", "sample_memory": "32Mi", "gpus": 2},
    )
    assert found.status == 2
    assert "before NFD" in found.text
    assert f"selects {SNP}=true, the node has no such label" in found.text
    # Their values stay where ours say nothing, so ours say it.
    more = {**bench.variables()["confidential_containers_kata_values"], "nodeFeatureRules": {"create": "auto"}}
    played = bench.play("confidential_containers", "--tags", "kata,sample", confidential_containers_kata_values=more)
    assert played.status == 0, played.text
    assert bench.rows()["sample"] == "ok"


def test_a_mode_that_fails_is_told_and_the_report_goes_on(bench: Bench) -> None:
    bench.actors.fails = {NODE}
    try:
        played = bench.play("confidential_containers", "--tags", "mode,sample", confidential_containers_mode="off")
    finally:
        bench.actors.fails = set()
        bench.cluster.set_labels({"nvidia.com/cc.mode": None})
    assert played.status == 2
    assert f"The mode off failed on {NODE}" in played.text
    assert bench.rows()["mode"] == "failed"
    bench.cluster.until_node(lambda node: node["metadata"]["labels"].get("nvidia.com/cc.ready.state") == "true", 20)


def test_a_kubelet_that_does_not_take_its_file_gets_the_old_one_back(bench: Bench) -> None:
    """A longer time-out is wanted, in a file with a field that the kubelet refuses to start with."""
    good = bench.kubelet_file.read_text()
    broken = yaml.safe_load(good) | {"evictionHard": {"memory.available": "rubbish"}}
    bench.kubelet_file.write_text(yaml.safe_dump(broken))
    try:
        played = bench.play(
            "confidential_containers",
            "--tags",
            "kubelet",
            kubelet_confidential_request_timeout=1800,
            kubelet_confidential_timeout=9,
            confidential_containers_expect={"runtime_request_timeout": 1800},
        )
        assert "its file is as it was" in played.text
        assert yaml.safe_load(bench.kubelet_file.read_text()) == broken
    finally:
        bench.kubelet_file.write_text(good)
        bench.restart_kubelet()
        bench.cluster.until_node(is_ready, 60)


def test_an_upgrade_stops_at_the_first_node_that_fails_and_leaves_the_rest_closed(bench: Bench) -> None:
    newer = bench.folder / "newer"
    shutil.copytree(bench.charts["kata"], newer)
    for file in (newer / "Chart.yaml",):
        file.write_text(file.read_text().replace("4.1.0", "4.1.1"))
    bench.older, bench.charts["kata"] = bench.charts["kata"], str(newer)
    # A pod on it runs, and never says that it passed.
    bench.actors.add_node(OTHER)
    try:
        played = bench.play(
            "confidential_containers_upgrade", hosts=(OTHER, NODE), confidential_containers_check_sample_timeout=8
        )
        assert played.status == 2
        assert bench.told(OTHER)["sample"]["state"] == "failed"
        nodes = {one["metadata"]["name"]: one for one in bench.cluster.api.get("/api/v1/nodes")["items"]}
        assert [name for name, one in nodes.items() if one["spec"].get("unschedulable")] == [NODE, OTHER]
        assert f"sample on {NODE}" not in played.text
    finally:
        bench.actors.remove_node(OTHER)


def test_an_upgrade_drains_verifies_and_opens_again(bench: Bench) -> None:
    bench.cluster.kubectl("uncordon", NODE)
    bench.cluster.apply(tenant())
    bench.cluster.api.until("/api/v1/namespaces/default/pods?fieldSelector=metadata.name=tenant", is_running, 30)
    refused = bench.play("confidential_containers_upgrade")
    assert refused.status == 2
    assert "Pods use the nodes: tenant" in refused.text
    assert "unschedulable" not in bench.cluster.node()["spec"]
    bench.cluster.kubectl("delete", "pod", "tenant", "--now")
    played = bench.play("confidential_containers_upgrade")
    assert played.status == 0, played.text
    assert bench.rows()["sample"] == "ok"
    assert "unschedulable" not in bench.cluster.node()["spec"]


def test_no_downgrade(bench: Bench) -> None:
    newer, bench.charts["kata"] = bench.charts["kata"], bench.older
    for playbook in ("confidential_containers", "confidential_containers_upgrade"):
        refused = bench.play(playbook)
        assert refused.status == 2
        assert "4.1.0 is older" in refused.text
    assert "unschedulable" not in bench.cluster.node()["spec"]
    bench.charts["kata"] = newer


def test_an_interrupted_helm_is_refused_and_repaired(bench: Bench) -> None:
    bench.interrupt("kata-deploy", "kata-system")
    refused = bench.play("confidential_containers", "--tags", "kata")
    assert refused.status == 2
    assert "is pending-upgrade" in refused.text
    played = bench.play("confidential_containers", "--tags", "kata", confidential_containers_repair=True)
    assert played.status == 0, played.text
    assert '"status":"deployed"' in bench.cluster.helm("list", "-n", "kata-system", "-o", "json")


def test_images_of_another_registry_are_refused_before_anything_is_changed(bench: Bench) -> None:
    before = version(bench)
    values = {"image": {"reference": "quay.io/kata-containers/kata-deploy"}}
    played = bench.play("confidential_containers", "--tags", "kata", confidential_containers_kata_values=values)
    assert played.status == 2
    assert "not below localhost/mirror" in played.text
    assert version(bench) == before


def test_nothing_is_removed_while_a_pod_uses_it(bench: Bench) -> None:
    bench.cluster.apply(tenant())
    try:
        played = bench.play("confidential_containers_remove")
        assert played.status == 2
        assert "default/tenant" in played.text
        assert "kata-qemu-nvidia-gpu-snp" in classes(bench)
    finally:
        bench.cluster.kubectl("delete", "pod", "tenant", "--now")


def test_removal_leaves_nothing_also_when_a_hook_cannot_run_and_also_twice(bench: Bench) -> None:
    """The cleanup's image is not there, as without a way to its registry; and a Helm was interrupted before."""
    bench.interrupt("gpu-operator", "gpu-operator")
    ctr = ("ctr", "-a", bench.cluster.settings.path("containerd.sock"), "-n", "k8s.io", "images", "rm")
    bench.cluster.space.run(*ctr, "localhost/mirror/kata-containers/kubectl:1.36")
    played = bench.play(
        "confidential_containers_remove",
        confidential_containers_remove_nfd=True,
        confidential_containers_remove_crds=True,
        confidential_containers_timeout=10,
    )
    assert played.status == 0, played.text
    assert classes(bench) == set()
    names = bench.cluster.helm("list", "-A", "-q")
    assert names.strip() == ""
    left = bench.cluster.kubectl("get", "crd,serviceaccount,jobs,daemonsets", "-A", "-o", "name")
    assert [line for line in left.splitlines() if any(word in line for word in ("kata", "nvidia", "nfd"))] == []
    labels = bench.cluster.node()["metadata"]["labels"]
    assert [key for key in labels if "nvidia.com" in key or "kata" in key] == []
    again = bench.play("confidential_containers_remove", confidential_containers_remove_nfd=True)
    assert again.status == 0, again.text
    assert again.changed == 0, again.text


def test_no_proxy_is_left(bench: Bench) -> None:
    """Modules end what they start, and their sockets' folders go."""
    assert list(Path("/tmp").glob("kubectl-*/s")) == []
