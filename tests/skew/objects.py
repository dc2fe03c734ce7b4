# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the charts make, given to an API server; and tokens of their service accounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cloud.server import Refused, Server
from tests.cluster.kube.programs import EVERY
from tools.cache import ROOT

NAMESPACE = "confidential"
Object = dict[str, Any]


def rendered(folder: Path, chart: str, *values: str) -> list[Object]:
    """The objects of a chart."""
    command = [str(EVERY["helm"].path()), "template", "one", str(ROOT / "container/charts" / chart), "-n", NAMESPACE]
    command += [word for value in values for word in ("--set", value)]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def known(server: Server, objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Those whose kind the server has, each with the path of its collection."""
    for one in objects:
        if (plural := plurals(server, one["apiVersion"]).get(one["kind"])) is not None:
            yield collection(one, plural), one


@cache
def plurals(server: Server, version: str) -> Mapping[str, str]:
    """Kind to plural; nothing for a group that the server lacks."""
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        found = server.request("GET", root)["resources"]
    except Refused as refused:
        if refused.status != 404:
            raise
        return {}
    return {one["kind"]: one["name"] for one in found if "/" not in one["name"]}


def collection(one: Object, plural: str) -> str:
    """The path, in the object's namespace if it has one."""
    version = one["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = one["metadata"].get("namespace")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def installed(server: Server, objects: Iterable[Object]) -> None:
    """They are there, namespaces first, as strictly as the server can."""
    for path, one in known(server, sorted(objects, key=lambda one: str(one["kind"]) != "Namespace")):
        try:
            server.request("POST", f"{path}?fieldValidation=Strict", one)
        except Refused as refused:
            if refused.status != 409:
                raise


def token(server: Server, objects: Iterable[Object], node: str, seconds: int = 3600) -> str:
    """As the kubelet of this node gives it to a pod of the chart's DaemonSet; ``seconds``: how long it is good."""
    (pods,) = [one["spec"]["template"] for one in objects if one["kind"] == "DaemonSet"]
    account = pods["spec"]["serviceAccountName"]
    metadata = {**pods["metadata"], "name": f"{account}-{node}", "namespace": NAMESPACE}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**pods["spec"], "nodeName": node}}
    made = server.request("POST", f"/api/v1/namespaces/{NAMESPACE}/pods", pod)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": made["metadata"]["uid"]}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    asked["spec"] = {"boundObjectRef": bound, "expirationSeconds": seconds}
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token"
    return str(server.request("POST", path, asked)["status"]["token"])
