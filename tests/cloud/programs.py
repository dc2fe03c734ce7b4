# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What both controllers are run with: programs, rights, and the scenes' nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from bmm_emulator.server import Emulator
from bmm_emulator.shapes import made_id

from tests.cloud.server import Child, Server, until
from tests.cluster.kube.programs import CACHE, EVERY, GO
from tools.cache import ROOT, finished
from tools.needs import NotPossible

ORG, SITE, TENANT, TOKEN = "acme", made_id("site", "site-1"), made_id("tenant", "acme"), "emulated"
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
CHART = ROOT / "container/charts/cloud-controller"
LEASE = "nvidia-bmm-cloud-controller-manager"
SOURCE = Path(__file__).resolve().parent / "go/oracle/main.go"
# What a run measured, for its end.
FIGURES: list[str] = []
# Short enough for a test; the rules are those of any times.
QUICK = ("--leader-elect-lease-duration=3s", "--leader-elect-renew-deadline=2s", "--leader-elect-retry-period=500ms")
OFTEN = ("--node-monitor-period=1s", "--node-status-update-frequency=2s")


def oracle() -> Path:
    """Kubernetes' own controllers, built once for each go.mod and source. Raises NotPossible."""

    def build(folder: Path) -> None:
        if shutil.which("go") is None:
            raise NotPossible("there is no Go: install Go 1.26 or later (go.dev/dl), and put it on PATH")
        module = folder / "module"
        module.mkdir()
        for name in ("go.mod", "go.sum"):
            shutil.copy(GO / "kubernetes" / name, module)
        shutil.copy(SOURCE, module)
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=mod"}
        command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(folder / "oracle"), "."]
        if subprocess.run(command, cwd=module, env=environment, check=False).returncode:
            raise NotPossible("go could not build the oracle (its words are above)")
        shutil.rmtree(module)

    ingredients = [SOURCE.read_text(), *((GO / "kubernetes" / name).read_text() for name in ("go.mod", "go.sum"))]
    return finished("oracle", ingredients, build, CACHE) / "oracle"


def start_oracle(server: Server, emulator: Emulator, *flags: str) -> Child:
    """Begin it, as the user oracle."""
    environment = {
        "PATH": os.environ["PATH"],
        "BMM_URL": emulator.url,
        "BMM_BASE": f"/v2/org/{ORG}/nico",
        "BMM_TOKEN": TOKEN,
        "BMM_SITE": SITE,
        "BMM_TENANT": TENANT,
        "BMM_ORG": ORG,
    }
    kubeconfig = server.kubeconfig("oracle")
    return server.run(
        "oracle",
        str(oracle()),
        "--cloud-provider=oracle",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--cert-dir={server.folder / 'oracle-certificates'}",
        "--secure-port=0",
        "--leader-elect=false",
        "--controllers=cloud-node-controller,cloud-node-lifecycle-controller",
        *flags,
        environment=environment,
    )


def cloud_config(server: Server, emulator: Emulator, name: str = "cloud-config", **more: Any) -> Path:
    """The file."""
    found = {"endpoint": emulator.url, "orgName": ORG, "token": TOKEN, "siteId": SITE, "tenantId": TENANT, **more}
    path = server.folder / name
    path.write_text(json.dumps(found))
    return path


def start_ours(server: Server, emulator: Emulator, *flags: str, who: str = "ccm") -> Child:
    """Begin ours, as a user with the chart's rights."""
    collections = ROOT / ".cache/collections"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'container'}:{collections}"}
    return server.run(
        who,
        sys.executable,
        "-m",
        "ccm",
        "--cloud-provider=nvidia-bmm",
        f"--cloud-config={cloud_config(server, emulator)}",
        f"--kubeconfig={server.kubeconfig(who)}",
        f"--leader-elect-resource-name={LEASE}",
        *(flags if any(one.startswith("--secure-port") for one in flags) else ("--secure-port=0", *flags)),
        environment=environment,
    )


def chart_objects(folder: Path, **values: Any) -> list[dict[str, Any]]:
    """What the chart makes, by Helm."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [str(EVERY["helm"].path()), "template", "ccm", str(CHART), "-n", "kube-system", "-f", str(file)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "HOME": str(folder)}
    )
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def grant(server: Server, folder: Path, *, without: tuple[str, str] | None = None) -> None:
    """The chart's rights, for both our users; ``without``: verb and resource of one that is missing."""
    for one in chart_objects(folder):
        if one["kind"] in ("ClusterRole", "Role"):
            one["rules"] = [_without(rule, without) for rule in one["rules"]]
            server.apply(one)
        elif one["kind"] in ("ClusterRoleBinding", "RoleBinding"):
            users = [
                {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name} for name in ("ccm", "ccm-2")
            ]
            server.apply({**one, "subjects": users})


def _without(rule: Mapping[str, Any], missing: tuple[str, str] | None) -> dict[str, Any]:
    verbs = list(rule["verbs"])
    if missing is not None and missing[1] in rule["resources"]:
        verbs = [one for one in verbs if one != missing[0]]
    return {**rule, "verbs": verbs or ["none"]}


def kubelet_node(
    name: str, *, provider_id: str = "", node_ip: str = "", ready: bool = True, **more: Any
) -> dict[str, Any]:
    """A node as a kubelet registers it with an external cloud provider."""
    taints = more.get("taints", [{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}])
    spec: dict[str, Any] = {"taints": taints} if taints else {}
    if provider_id:
        spec["providerID"] = provider_id
    addresses = more.get("addresses", [{"type": "Hostname", "address": name}])
    if node_ip:
        addresses = [*({"type": "InternalIP", "address": one} for one in node_ip.split(",")), *addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/hostname": name, **more.get("labels", {})},
            "annotations": {"alpha.kubernetes.io/provided-node-ip": node_ip} if node_ip else {},
        },
        "spec": spec,
        "status": {"addresses": addresses, "conditions": [condition(ready)]},
    }


def condition(ready: bool) -> dict[str, str]:
    """Ready, or not known to be."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "type": "Ready",
        "status": "True" if ready else "Unknown",
        "reason": "Test",
        "lastHeartbeatTime": moment,
        "lastTransitionTime": moment,
    }


def lose(server: Server, name: str, ready: bool = False) -> None:
    """Its kubelet says nothing any more; or all is well again."""
    server.patch(name, {"status": {"conditions": [condition(ready)]}}, "/status")


def provider_id(emulator: Emulator, name: str) -> str:
    """Of the instance of this name."""
    return f"nvidia-bmm://{ORG}/{TENANT}/{SITE}/{emulator.instance(name)['id']}"


def taints(node: Mapping[str, Any]) -> list[str]:
    """Keys."""
    return [one["key"] for one in node["spec"].get("taints") or []]


def untainted(server: Server, names: Sequence[str]) -> Callable[[], bool]:
    """Whether these are initialised."""

    def all_are() -> bool:
        found = server.nodes()
        return all(name in found and UNINITIALIZED not in taints(found[name]) for name in names)

    return all_are


def holder(server: Server) -> str:
    """Who leads."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/{LEASE}"
    found: str = server.request("GET", path)["spec"].get("holderIdentity") or ""
    return found


__all__ = ["until"]
