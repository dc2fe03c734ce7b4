# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What makes a manager blind, or argues with it, while nothing is broken that anybody would see."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .api import ApiError, Object
from .cluster import NODE_PATH, Cluster
from .settings import NODE
from .space import ADDRESS
from .workloads import MANAGER, NAMESPACE

USER = f"system:serviceaccount:{NAMESPACE}:{MANAGER}"
GROUP = "admissionregistration.k8s.io"
RELAY_PORT = 7443
# The environment of a manager that reaches the API server through the relay.
THROUGH_RELAY = {"KUBERNETES_SERVICE_HOST": ADDRESS, "KUBERNETES_SERVICE_PORT": str(RELAY_PORT)}
# Copies bytes both ways. Connections older than the file of the fourth argument hear nothing more of the server.
RELAY = """
import socket, sys, threading, time
from pathlib import Path
listen, host, port, mute = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])

def copy(source, sink, heard_since):
    while data := source.recv(65536):
        if heard_since is None or not mute.exists() or mute.stat().st_mtime < heard_since:
            sink.sendall(data)

def carry(source, sink, heard_since=None):
    try:
        copy(source, sink, heard_since)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

server = socket.create_server(("", listen), backlog=64)
while True:
    client, _address = server.accept()
    upstream = socket.create_connection((host, port))
    threading.Thread(target=carry, args=(client, upstream), daemon=True).start()
    threading.Thread(target=carry, args=(upstream, client, time.time()), daemon=True).start()
"""


@contextlib.contextmanager
def stripping(cluster: Cluster, kind: str, key: str) -> Iterator[None]:
    """As by a mutating webhook: of ``kind``, labels or annotations, a key vanishes from all that the manager writes."""
    cluster.apply(*_stripper(kind, key))
    try:
        _wait_until_stripped(cluster, kind, key, True)
        yield
    finally:
        for name in ("mutatingadmissionpolicybindings", "mutatingadmissionpolicies"):
            cluster.api.delete(f"/apis/{GROUP}/v1/{name}/strip")
        _wait_until_stripped(cluster, kind, key, False)


def _wait_until_stripped(cluster: Cluster, kind: str, key: str, stripped: bool) -> None:
    """The API server compiles a new policy, and forgets an old one, within seconds, and says so to nobody."""
    change = json.dumps({"metadata": {kind: {key: "probe"}}})
    patch = ("patch", "node", NODE, "--as", USER, "--dry-run=server", "--type=merge", "-p", change, "-o", "json")
    deadline = time.monotonic() + 20
    while (key in json.loads(cluster.kubectl(*patch))["metadata"].get(kind, {})) == stripped:
        if time.monotonic() > deadline:
            raise ApiError(f"{key} is {'not' if stripped else 'still'} stripped")
        time.sleep(0.1)


def _stripper(kind: str, key: str) -> list[Object]:
    words = {"kind": kind, "key": key}
    expression = """"%(key)s" in object.metadata.?%(kind)s.orValue({}) ?
        [JSONPatch{op: "remove", path: "/metadata/%(kind)s/" + jsonpatch.escapeKey("%(key)s")}] : []"""
    rule: Any = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["nodes"]}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [{"name": "manager", "expression": f'request.userInfo.username == "{USER}"'}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression % words}}],
    }
    made = {"apiVersion": f"{GROUP}/v1", "metadata": {"name": "strip"}}
    return [
        {**made, "kind": "MutatingAdmissionPolicy", "spec": spec},
        {**made, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": "strip"}},
    ]


@contextlib.contextmanager
def putting_back(cluster: Cluster, key: str, value: str, timeout_s: float = 120) -> Iterator[None]:
    """Another controller that wants a label of the node to be something else, and sets it as soon as it is not."""
    over = threading.Event()

    def insist() -> None:
        with contextlib.suppress(ApiError):  # the time is over
            for node in cluster.api.watch(f"/api/v1/nodes?fieldSelector=metadata.name={NODE}", timeout_s):
                if over.is_set():
                    return
                if node["metadata"]["labels"].get(key) != value:
                    cluster.set_labels({key: value})

    thread = threading.Thread(target=insist, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        cluster.api.patch(
            NODE_PATH, {"metadata": {"annotations": {"example.org/over": "true"}}}
        )  # which the watch sees
        thread.join(timeout_s)
        cluster.api.patch(NODE_PATH, {"metadata": {"annotations": {"example.org/over": None}}})


@contextlib.contextmanager
def losing(cluster: Cluster, address: str) -> Iterator[None]:
    """Whatever goes over the connections that an address has to the API server now is lost; new ones are whole."""
    found = cluster.space.run("ss", "-Htn", "state", "established", "sport", "=", ":6443", "dst", address)
    ports = [line.split()[3].rpartition(":")[2] for line in found.splitlines()]
    if not ports:
        raise ApiError(f"{address} has no connection: {found}")
    rules = [("INPUT", "-s", address, "--sport", port) for port in ports]
    rules += [("OUTPUT", "-d", address, "--dport", port) for port in ports]

    def tables(action: str) -> None:
        for chain, *match in rules:
            cluster.space.run("iptables", action, chain, "-p", "tcp", *match, "-j", "DROP")

    tables("-I")
    try:
        yield
    finally:
        tables("-D")


class Relay:
    """A way to the API server that can fall silent without closing a connection."""

    def __init__(self, cluster: Cluster) -> None:
        self._mute = cluster.folder / "mute"
        self._mute.unlink(missing_ok=True)
        arguments = [str(RELAY_PORT), ADDRESS, "6443", str(self._mute)]
        self._process = cluster.space.launch("relay", sys.executable, "-c", RELAY, *arguments)

    def mute(self) -> None:
        """The connections that are there hear nothing more; those that come are as they should be."""
        self._mute.touch()

    def end(self) -> None:
        """Close all."""
        self._process.stop()
        self._mute.unlink(missing_ok=True)
