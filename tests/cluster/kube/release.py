# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The chart, installed in the cluster beside the GPU Operator's components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tools.cache import ROOT

from .api import Object
from .bed import BUS, is_running
from .cluster import Cluster
from .workloads import NAMESPACE

RELEASE = "cc-manager"
CHART = ROOT / "container/chart"
VALUES = {"settings": {"bus": BUS, "retryDelaySeconds": 1, "componentsNamespace": NAMESPACE}}
# An installation without pods: rights and policy alone.
NOWHERE = {"nodeSelector": {"example.org/no": "node"}}
PODS = f"/api/v1/namespaces/{RELEASE}/pods?labelSelector=app.kubernetes.io%2Fname%3D{RELEASE}"


def install(cluster: Cluster, folder: Path, values: dict[str, Any]) -> None:
    """Install or upgrade, and wait until the pod is ready."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    cluster.helm(
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", RELEASE, "--create-namespace"),
        *("--values", str(file), "--wait", "--timeout", "60s"),
    )


def uninstall(cluster: Cluster) -> None:
    """Take the release away, pods and all."""
    cluster.helm("uninstall", RELEASE, "--namespace", RELEASE, "--wait", "--timeout", "60s", "--ignore-not-found")


def pod_of(cluster: Cluster) -> Object:
    """The manager's pod, running."""
    return cluster.api.until(PODS, is_running, 60)


def token_of(cluster: Cluster, pod: Object | None = None, account: str = RELEASE, namespace: str = RELEASE) -> str:
    """A token as the kubelet gives it to the pod."""
    metadata = (pod or pod_of(cluster))["metadata"]
    bound = (
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        metadata["name"],
        "--bound-object-uid",
        metadata["uid"],
    )
    return cluster.kubectl("create", "token", account, "-n", namespace, *bound).strip()
