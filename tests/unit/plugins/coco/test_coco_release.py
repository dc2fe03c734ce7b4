# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Helm's releases as data: read from their Secrets, and compared."""

from __future__ import annotations

import base64
import datetime
import gzip
import json
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._coco import deploy
from ansible_collections.confidential.gpu.plugins.module_utils._coco.errors import ChartRefused
from ansible_collections.confidential.gpu.plugins.module_utils._coco.helm import age_s
from ansible_collections.confidential.gpu.plugins.module_utils._coco.release import (
    Change,
    Release,
    decode,
    differences,
    images,
    latest,
    merged,
    outside,
    unpinned,
    wedged,
)
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest

MANIFEST = """---
# Source: kata-deploy/templates/rbac.yaml
apiVersion: v1
kind: ServiceAccount
metadata:
  name: kata-deploy-sa
  namespace: kata-system
---
# Source: kata-deploy/templates/kata-deploy.yaml
apiVersion: apps/v1
kind: DaemonSet
metadata:
  labels:
    name: not-this
  name: kata-deploy
  namespace: kata-system
spec:
  template:
    spec:
      containers:
        - name: kube-kata
          image: "quay.io/kata-containers/kata-deploy:4.1.0"
"""
POLICY = """---
kind: ClusterPolicy
metadata:
  name: cluster-policy
spec:
  ccManager:
    enabled: true
    repository: nvcr.io/nvidia/cloud-native
    image: k8s-cc-manager
    version: "v0.4.0"
  vfioManager:
    repository: nvcr.io/nvidia/cloud-native
    image: k8s-driver-manager
    version: sha256:1234
"""


def secret(revision: int = 1, status: str = "deployed", **more: Any) -> dict[str, Any]:
    """As Helm writes it."""
    found = {
        "name": "kata-deploy",
        "namespace": "kata-system",
        "version": revision,
        "info": {
            "status": status,
            "last_deployed": "2026-11-27T01:02:03.456789012Z",
            "description": "Install complete",
        },
        "chart": {"metadata": {"name": "kata-deploy", "version": "4.1.0"}},
        "config": {"debug": False},
        "manifest": MANIFEST,
        "hooks": [{"manifest": "kind: Job\nmetadata:\n  name: cleanup\n"}],
        **more,
    }
    packed = base64.b64encode(base64.b64encode(gzip.compress(json.dumps(found).encode()))).decode()
    return {"metadata": {"name": f"sh.helm.release.v1.kata-deploy.v{revision}"}, "data": {"release": packed}}


def release(**changes: Any) -> Release:
    return decode(secret())._replace(**changes)


def test_a_release_is_read_from_its_secret() -> None:
    found = decode(secret(info={"status": "deployed", "description": "chart sha256: abc"}))
    assert (found.chart, found.version, found.status, found.digest) == ("kata-deploy", "4.1.0", "deployed", "abc")
    assert decode(secret()).digest == ""


@pytest.mark.parametrize("data", ["", "!", base64.b64encode(b"x").decode(), None])
def test_what_is_no_release_is_refused_with_its_name(data: Any) -> None:
    with pytest.raises(InvalidRequest, match="sh.helm.release.v1.x"):
        decode({"metadata": {"name": "sh.helm.release.v1.x.v1"}, "data": {"release": data}})


def test_the_newest_revision_comes_first() -> None:
    assert [one.revision for one in latest([secret(9), secret(10), secret(1)])] == [10, 9, 1]


def test_a_release_that_is_as_wanted_has_no_difference() -> None:
    assert differences(release(), release(digest="abc")) == []
    reordered = "---\n".join(reversed(MANIFEST.split("---\n")))
    assert differences(release(), release(manifest=reordered)) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": "4.2.0"}, Change("version", "4.1.0", "4.2.0")),
        ({"config": {"debug": True}}, Change("values.debug", "false", "true")),
        ({"config": {}}, Change("values.debug", "false", "")),
        (
            {"manifest": MANIFEST.replace(":4.1.0", ":4.1.1")},
            Change("object DaemonSet kata-system/kata-deploy", "there", "changed"),
        ),
        ({"manifest": MANIFEST + POLICY}, Change("object ClusterPolicy cluster-policy", "", "there")),
        ({"manifest": ""}, Change("object ServiceAccount kata-system/kata-deploy-sa", "there", "")),
        ({"hooks": []}, Change("hook Job cleanup", "there", "")),
    ],
    ids=["version", "value", "value gone", "object", "new object", "object gone", "hook"],
)
def test_each_difference_is_told(changes: dict[str, Any], told: Change) -> None:
    assert told in differences(release(), release(**changes))


def test_a_digest_counts_only_where_it_was_written_down() -> None:
    assert differences(release(digest="abc"), release(digest="def")) == [Change("digest", "abc", "def")]
    assert differences(release(), release(digest="def")) == []


def test_what_is_not_deployed_is_a_difference() -> None:
    assert Change("status", "failed", "deployed") in differences(release(status="failed"), release())


def test_secrets_are_not_told() -> None:
    wanted = release(config={"pullSecret": "hunter2", "deep": {"x": "hunter3"}, "debug": False, "password": "hunter4"})
    told = differences(release(), wanted, ["deep.x"])
    assert {one.what for one in told} == {"values.pullSecret", "values.deep.x", "values.password"}
    assert "hunter" not in str(told)


def test_values_merge_as_helm_does() -> None:
    assert merged({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}, "d": {"e": 1}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 1},
    }


def test_every_image_is_found_also_those_of_a_cluster_policy() -> None:
    found = images(
        release(manifest=MANIFEST + POLICY, hooks=["spec:\n  image: quay.io/kata-containers/kubectl:latest\n"])
    )
    assert found == [
        "nvcr.io/nvidia/cloud-native/k8s-cc-manager:v0.4.0",
        "nvcr.io/nvidia/cloud-native/k8s-driver-manager@sha256:1234",
        "quay.io/kata-containers/kata-deploy:4.1.0",
        "quay.io/kata-containers/kubectl:latest",
    ]
    assert outside(found, "quay.io/") == found[:2]
    assert unpinned([*found, "a/b", "host:5000/c", "host:5000/c:1"]) == [found[3], "a/b", "host:5000/c"]


def test_with_a_registry_other_and_unpinned_images_are_refused() -> None:
    with pytest.raises(ChartRefused, match="quay.io"):
        deploy.refuse_images(release(), "registry.example/mirror")
    latest_one = release(manifest="image: registry.example/mirror/x:latest\n")
    with pytest.raises(ChartRefused, match="latest"):
        deploy.refuse_images(latest_one, "registry.example/mirror")
    deploy.refuse_images(latest_one, "")
    deploy.refuse_images(release(), "quay.io/kata-containers")


@pytest.mark.parametrize("status", ["pending-install", "pending-upgrade", "pending-rollback", "uninstalling"])
def test_an_interrupted_helm_is_seen_and_one_at_work_is_waited_for(status: str) -> None:
    problem = wedged(release(status=status), 1000, 900)
    assert problem is not None
    assert not problem.retryable
    assert "repair" in problem.remedy
    young = wedged(release(status=status), 10, 900)
    assert young is not None
    assert young.retryable
    assert wedged(release(status="failed"), 1000, 900) is None
    assert wedged(None, None, 900) is None


def test_ages_of_helms_time_stamps() -> None:
    now = datetime.datetime(2026, 11, 27, 1, 3, 3, tzinfo=datetime.UTC)
    assert age_s("2026-11-27T01:02:03.456789012Z", now) == 60
    assert age_s("2026-11-27T03:02:03+02:00", now) == 60
    assert age_s("", now) is None


def test_secret_values_that_are_no_mapping_are_refused_without_telling_them() -> None:
    for text in ("hunter2", "[1]"):
        with pytest.raises(InvalidRequest) as error:
            deploy.run({"secret_values": text}, True)
        assert "hunter2" not in str(error.value)
