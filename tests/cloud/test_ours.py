# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Ours on a real API server: new nodes, deletion, who leads, rights, and the port."""

from __future__ import annotations

import signal
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from bmm_emulator.server import Emulator

from tests.cloud.programs import (
    FIGURES,
    LEASE,
    OFTEN,
    QUICK,
    SHUTDOWN,
    UNINITIALIZED,
    grant,
    holder,
    kubelet_node,
    lose,
    provider_id,
    start_ours,
    taints,
    untainted,
)
from tests.cloud.server import Child, Server, until

WRITES = ("patch", "delete", "create", "update")


def test_a_new_node(server: Server, emulator: Emulator) -> None:
    start_ours(server, emulator)
    server.register(kubelet_node("gpu-0"))
    until(untainted(server, ["gpu-0"]))
    node = server.nodes()["gpu-0"]
    assert node["spec"]["providerID"] == provider_id(emulator, "gpu-0")
    assert [one["address"] for one in node["status"]["addresses"]] == ["10.0.0.1", "fd00::1", "gpu-0"]
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "site-1"
    until(lambda: [one for one in server.events() if one["reason"] == "Synced"])


def test_an_instance_that_is_gone(server: Server, emulator: Emulator) -> None:
    start_ours(server, emulator, *OFTEN)
    server.register(kubelet_node("gpu-0"))
    server.register(kubelet_node("gpu-1"))
    until(untainted(server, ["gpu-0", "gpu-1"]))
    lose(server, "gpu-0")
    lose(server, "gpu-1")
    emulator.alter("instance", "gpu-1", {"status": "Error"})
    until(lambda: SHUTDOWN in taints(server.nodes()["gpu-1"]))
    emulator.remove_instance("gpu-0")
    until(lambda: "gpu-0" not in server.nodes())
    lose(server, "gpu-1", ready=True)
    until(lambda: SHUTDOWN not in taints(server.nodes()["gpu-1"]))


def test_nothing_changes_nothing_is_written(server: Server, emulator: Emulator) -> None:
    start_ours(server, emulator, *OFTEN)
    server.register(kubelet_node("gpu-0"))
    until(untainted(server, ["gpu-0"]))
    until(lambda: server.counted("ccm")["create events"])
    actions = ("shuffle", "shuffle_interfaces")
    emulator.add_faults([{"action": one, "path": "instance*", "times": "forever"} for one in actions])
    emulator.forget_requests()
    before = writes(server, "ccm")
    until(lambda: len(emulator.requests) >= 3)
    assert writes(server, "ccm") == before


# --- who leads --------------------------------------------------------------------------------------------------------


def test_the_next_one_goes_on_soon(server: Server, emulator: Emulator) -> None:
    """After SIGTERM the Lease is given back."""
    first, _second = pair(server, emulator)
    began = time.monotonic()
    assert first.end(timeout_s=20) == 0
    server.register(kubelet_node("gpu-0"))
    until(untainted(server, ["gpu-0"]))
    seconds = time.monotonic() - began
    FIGURES.append(f"successor acts {seconds:.1f} s after SIGTERM (retry period 2 s)")
    assert seconds < 3.5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_old_leader_writes_nothing(server: Server, emulator: Emulator, number: signal.Signals) -> None:
    """Killed, or frozen in the middle of its work: the next one goes on, and the old one does not when it wakes."""
    first, _second = pair(server, emulator, *QUICK, *OFTEN)
    old = holder(server)
    for count in range(4):
        server.register(kubelet_node(f"gpu-{count}"))
    first.send(number)
    server.register(kubelet_node("gpu-4"))
    until(lambda: holder(server) not in ("", old))
    until(untainted(server, [f"gpu-{count}" for count in range(5)]))
    taken = server.audit("ccm-2")
    since = min(
        one["stageTimestamp"] for one in taken if one["verb"] == "update" and one["responseStatus"]["code"] == 200
    )
    if number == signal.SIGSTOP:
        server.register(kubelet_node("gpu-5"))
        first.send(signal.SIGCONT)
        until(lambda: first.process.poll() is not None)
        assert first.process.returncode == 1
        until(untainted(server, ["gpu-5"]))
    late = [
        one
        for one in server.audit("ccm")
        if one["verb"] in WRITES and one["requestReceivedTimestamp"] > since and one["responseStatus"]["code"] < 300
    ]
    assert not late


# --- rights -----------------------------------------------------------------------------------------------------------


def test_the_chart_grants_what_is_used(server: Server, emulator: Emulator, tmp_path: Path) -> None:
    """No more, by the audit log, and no less."""
    port = secure(server, emulator, tmp_path, *OFTEN)
    for name in ("gpu-0", "gpu-1", "nobody"):
        server.register(kubelet_node(name))
    until(untainted(server, ["gpu-0", "gpu-1"]))
    lose(server, "gpu-0")
    lose(server, "gpu-1")
    emulator.remove_instance("gpu-0")
    emulator.alter("instance", "gpu-1", {"status": "Error"})
    until(lambda: "gpu-0" not in server.nodes() and SHUTDOWN in taints(server.nodes()["gpu-1"]))
    assert fetch(port, "/metrics", server.tokens["reader"]) == 200
    emulator.add_faults([{"action": "status", "status": 401, "path": "*", "times": "forever"}])
    until(lambda: server.events("kube-system"))
    for _again in range(2):
        lose(server, "nobody")
    until(lambda: server.counted("ccm")["update leases"] >= 2)
    used = {
        (one["verb"], "/".join(filter(None, (one["objectRef"]["resource"], one["objectRef"].get("subresource")))))
        for one in server.audit("ccm")
        if one["responseStatus"]["code"] < 500
    }
    refused = [one for one in server.audit("ccm") if one["responseStatus"]["code"] == 403]
    assert not refused
    assert used <= GRANTED
    assert GRANTED - used <= {("patch", "events")}, "an Event that is told again is counted"


GRANTED = {
    *(("list", "nodes"), ("watch", "nodes"), ("patch", "nodes"), ("delete", "nodes"), ("patch", "nodes/status")),
    *(("create", "events"), ("patch", "events"), ("get", "leases"), ("create", "leases"), ("update", "leases")),
    *(("create", "tokenreviews"), ("create", "subjectaccessreviews")),
}


@pytest.mark.parametrize("missing", sorted(GRANTED - {("patch", "events")}), ids=" ".join)
def test_a_right_that_is_missing_is_named(
    server: Server, emulator: Emulator, tmp_path: Path, missing: tuple[str, str]
) -> None:
    grant(server, tmp_path, without=missing)
    verb, resource = missing
    server.register(kubelet_node("gpu-0"))
    server.register(kubelet_node("gpu-1", provider_id=provider_id(emulator, "gpu-1"), taints=[], ready=False))
    emulator.remove_instance("gpu-1")
    port = secure(server, emulator, tmp_path, *OFTEN)
    fetch(port, "/metrics", server.tokens["reader"])

    def is_named() -> bool:
        text = body(port, "/readyz")
        return verb in text.lower() and resource.partition("/")[0] in text

    until(is_named, words=f"readyz does not name {missing}")
    if resource != "events":
        until(lambda: [one for one in server.events("kube-system") if "MayNot" in one["reason"]])
    # The rest works.
    if resource != "leases" and missing not in (("list", "nodes"), ("patch", "nodes"), ("patch", "nodes/status")):
        until(untainted(server, ["gpu-0"]))
    if resource != "leases" and missing not in (("list", "nodes"), ("delete", "nodes")):
        until(lambda: "gpu-1" not in server.nodes())
    grant(server, tmp_path)
    until(untainted(server, ["gpu-0"]), timeout_s=90)


def test_a_right_to_count_events_that_is_missing_is_named(server: Server, emulator: Emulator, tmp_path: Path) -> None:
    """It is needed when an Event is made again, as by the next process."""
    grant(server, tmp_path, without=("patch", "events"))
    emulator.add_faults([{"action": "status", "status": 401, "path": "*", "times": "forever"}])
    server.register(kubelet_node("gpu-0"))
    first = start_ours(server, emulator)
    until(lambda: server.events("kube-system"))
    assert first.end() == 0
    port = secure(server, emulator, tmp_path)
    until(lambda: "may not patch events" in body(port, "/readyz"))
    until(lambda: "MayNotPatchEvents" in [one["reason"] for one in server.events("kube-system")])


# --- the port and the file --------------------------------------------------------------------------------------------


def test_metrics_are_for_those_who_may(server: Server, emulator: Emulator, tmp_path: Path) -> None:
    port = secure(server, emulator, tmp_path)
    assert fetch(port, "/healthz") == 200
    until(lambda: fetch(port, "/readyz") == 200)
    assert fetch(port, "/metrics") == 403
    assert fetch(port, "/metrics", "nonsense") == 401
    assert fetch(port, "/metrics", server.tokens["nobody"]) == 403
    assert fetch(port, "/metrics", server.tokens["reader"]) == 200
    text = body(port, "/metrics", server.tokens["reader"])
    assert f'leader_election_master_status{{name="{LEASE}"}} 1.0' in text
    assert server.tokens["reader"] not in text


def test_the_cloud_config_is_read_again(server: Server, emulator: Emulator, tmp_path: Path) -> None:
    """A Secret that is replaced brings another token; one that is wrong is told and the old one stays."""
    port = secure(server, emulator, tmp_path, *OFTEN)
    config = server.folder / "cloud-config"
    good = config.read_text()
    config.write_text(good.replace('"emulated"', '"another"'))
    until(lambda: "Another cloud config" in server.started[-1].words())
    server.register(kubelet_node("gpu-0"))
    until(lambda: "NotAuthenticated" in body(port, "/readyz"))
    assert UNINITIALIZED in taints(server.nodes()["gpu-0"])
    config.write_text("{")
    until(lambda: "CloudConfigRefused" in body(port, "/readyz"))
    config.write_text(good)
    until(untainted(server, ["gpu-0"]), timeout_s=90)
    until(lambda: fetch(port, "/readyz") == 200)


def pair(server: Server, emulator: Emulator, *flags: str) -> tuple[Child, Child]:
    """The one that leads, and another one."""
    first = start_ours(server, emulator, *flags)
    until(lambda: lease_is_held(server))
    second = start_ours(server, emulator, *flags, who="ccm-2")
    until(lambda: server.counted("ccm-2")["get leases"])
    return first, second


def lease_is_held(server: Server) -> bool:
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    return any(one["spec"].get("holderIdentity") for one in server.request("GET", path)["items"])


def writes(server: Server, who: str) -> int:
    """How many, but for the Lease's."""
    return sum(1 for one in server.audit(who) if one["verb"] in WRITES and one["objectRef"]["resource"] != "leases")


def secure(server: Server, emulator: Emulator, folder: Path, *flags: str) -> int:
    """Begin ours with its port; which is that."""
    from fake_api.certificate import write  # noqa: PLC0415

    from tests.cloud.server import free_port  # noqa: PLC0415

    certificate, key = write(folder)
    port = free_port()
    server.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "reader"},
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}],
        },
    )
    tls = (
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
    )
    child = start_ours(server, emulator, *tls, *flags)

    def answers() -> bool:
        child.check()
        try:
            return fetch(port, "/healthz") == 200
        except OSError:
            return False

    until(answers)
    return port


def open_page(port: int, path: str, token: str = "") -> Any:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", headers=headers)
    return urllib.request.urlopen(request, timeout=10, context=context)


def fetch(port: int, path: str, token: str = "") -> int:
    try:
        with open_page(port, path, token) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def body(port: int, path: str, token: str = "") -> str:
    try:
        with open_page(port, path, token) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()
