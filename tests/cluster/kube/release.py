# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The chart, installed in the cluster beside the GPU Operator's components."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.cache import ROOT

from .api import Object
from .bed import BUS, is_running
from .cluster import Cluster
from .workloads import NAMESPACE

RELEASE = "cc-manager"
CHART = ROOT / "container/charts/cc-manager"
VALUES = {"settings": {"bus": BUS, "retryDelaySeconds": 1, "componentsNamespace": NAMESPACE}}
# An installation without pods: rights and policy alone.
NOWHERE = {"nodeSelector": {"example.org/no": "node"}}
PODS = f"/api/v1/namespaces/{RELEASE}/pods?labelSelector=app.kubernetes.io%2Fname%3D{RELEASE}"


WAIT = ("--wait", "--timeout", "60s")


def install(
    cluster: Cluster,
    folder: Path,
    values: dict[str, Any],
    namespace: str = RELEASE,
    options: Sequence[str] = ("--create-namespace", *WAIT),
) -> None:
    """Install or upgrade, and wait until the pod is ready, unless the options are others."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    where = ("--namespace", namespace, "--values", str(file))
    cluster.helm("upgrade", "--install", RELEASE, str(CHART), *where, *options)


def uninstall(cluster: Cluster, namespace: str = RELEASE) -> None:
    """Take the release away, pods and all."""
    cluster.helm("uninstall", RELEASE, "--namespace", namespace, *WAIT, "--ignore-not-found")


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
