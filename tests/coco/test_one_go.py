# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The CC manager with an emulated GPU: from a stock cluster to the mode, a sample in the runtime class, and the report.

The cluster has containerd 2, which tells its handlers: runc and Kata's for SEV-SNP, and none for TDX.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.kube.bed import Bed, bed
from tests.cluster.kube.cluster import running
from tests.cluster.kube.programs import built_runtime, check_machine
from tests.cluster.kube.release import VALUES
from tests.cluster.kube.workloads import IMAGE
from tests.coco.actors import Actors
from tests.coco.bench import FIGURES, MIRROR, Bench
from tools import image
from tools.cache import ROOT
from tools.needs import NotPossible

KATA_IMAGES = {"image": "kata-deploy", "kubectlImage": "kubectl"}
HANDLERS = ("runc", "kata-qemu-nvidia-gpu-snp")
CC_MANAGER: dict[str, Any] = {
    "confidential_containers_gpu_operator": False,
    "confidential_containers_cc_manager": True,
    "confidential_containers_cc_manager_values": {"settings": {"bus": VALUES["settings"]["bus"]}},
    "confidential_containers_mode": "on",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of this working tree."""
    try:
        check_machine()
        path = tmp_path_factory.mktemp("image") / "cc-manager.tar"
        image.build(IMAGE, path)
    except NotPossible as reason:
        if os.environ.get("REQUIRE_ALL"):
            raise
        pytest.skip(str(reason))
    return path


@pytest.fixture(scope="module")
def emulated(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Bed]]:
    """A stock cluster with one emulated H100."""
    with running(keep=ROOT / "tests/output/coco-one-go", runtime=built_runtime(), handlers=HANDLERS) as cluster:
        made = Bench(cluster, tmp_path_factory.mktemp("one-go"))
        made.prepare()
        cluster.load(archive)
        made.tag(IMAGE, "cc-manager:dev")
        with Actors(cluster.api, gpus=1), bed(cluster, "h100-pcie") as node:
            node.power_on()
            yield made, node


def expect(**more: object) -> dict[str, object]:
    return {"sample_memory": "32Mi", "gpus": 1, **more}


def test_from_a_stock_cluster_to_a_report_in_one_go(emulated: tuple[Bench, Bed]) -> None:
    bench, node = emulated
    assert node.modes() == {"off"}
    played = bench.play("confidential_containers", **CC_MANAGER, confidential_containers_expect=expect())
    FIGURES.append(f"CC manager and emulated GPU, stock cluster to report: {played.seconds:.0f} s")
    assert played.status == 0, played.text
    assert node.modes() == {"on"}
    told = bench.told()
    assert {row["state"] for step, row in told.items() if step not in ("attestation", "gpu_operator")} == {"ok"}
    assert "cc.mode.state=on, nvidia.com/cc.ready.state=true" in told["mode"]["evidence"]
    assert "Test PASSED" in told["sample"]["evidence"]


def test_handlers_that_containerd_has_and_has_not(emulated: tuple[Bench, Bed]) -> None:
    bench, _node = emulated
    handlers = {one["name"] for one in bench.cluster.node()["status"]["runtimeHandlers"]}
    assert handlers >= set(HANDLERS)
    assert "containerd has the handler kata-qemu-nvidia-gpu-snp" in bench.told()["kata"]["evidence"]
    played = bench.play("confidential_containers_check", confidential_containers_expect=expect(technology="tdx"))
    assert played.status == 2
    assert "containerd has no handler kata-qemu-nvidia-gpu-tdx" in bench.told()["kata"]["evidence"]


def test_another_mode_and_removal(emulated: tuple[Bench, Bed]) -> None:
    bench, node = emulated
    played = bench.play(
        "confidential_containers", "--tags", "mode", **{**CC_MANAGER, "confidential_containers_mode": "off"}
    )
    assert played.status == 0, played.text
    assert node.modes() == {"off"}
    gone: dict[str, Any] = {"confidential_containers_remove_nfd": True, "confidential_containers_remove_crds": True}
    removed = bench.play("confidential_containers_remove", **CC_MANAGER, **gone)
    assert removed.status == 0, removed.text
    assert bench.cluster.helm("list", "-A", "-q").strip() == ""
    labels = bench.cluster.node()["metadata"]["labels"]
    assert [key for key in labels if key.startswith("nvidia.com/")] == []


def test_what_somebody_else_installed_in_the_order_of_the_documents_is_taken_over(emulated: tuple[Bench, Bed]) -> None:
    """kata-deploy before NFD, under a name and in a namespace of their own, with a value of their own."""
    bench, _node = emulated
    values = bench.folder / "theirs.yaml"
    mine = bench.variables()["confidential_containers_kata_values"]
    values.write_text(json.dumps({**mine, "tolerations": [{"operator": "Exists"}], "imagePullPolicy": "IfNotPresent"}))
    where = ("--namespace", "elsewhere", "--create-namespace", "--values", str(values))
    images = [f"--set={key}.reference={MIRROR}/kata-containers/{name}" for key, name in KATA_IMAGES.items()]
    bench.cluster.helm("install", "theirs", bench.charts["kata"], *where, *images)
    played = bench.play("confidential_containers", **CC_MANAGER, confidential_containers_expect=expect())
    assert played.status == 0, played.text
    releases = json.loads(bench.cluster.helm("list", "-A", "-o", "json"))
    assert sorted(one["name"] for one in releases) == ["cc-manager", "nfd", "theirs"]
    kept = json.loads(bench.cluster.helm("get", "values", "theirs", "-n", "elsewhere", "-o", "json"))
    assert kept["tolerations"] == [{"operator": "Exists"}]
    assert bench.rows()["sample"] == "ok"
