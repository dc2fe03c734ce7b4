# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""etcd and an API server on loopback, without nodes: ready in seconds, as any user."""

from __future__ import annotations

import contextlib
import json
import secrets
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.cluster.kube.programs import EVERY

READY_S = 60.0
MERGE = "application/merge-patch+json"
# The administrator, Kubernetes' own controllers, and ours: two processes with a user each, told apart by the log.
PEOPLE = {
    "admin": "system:masters",
    "oracle": "system:masters",
    "ccm": "",
    "ccm-2": "",
    "rollout": "",
    "reader": "",
    "nobody": "",
}
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # Not what is asked once, about which versions there are.
    "rules": [
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "Metadata", "users": ["ccm", "ccm-2", "oracle", "rollout"]},
        {"level": "None"},
    ],
}


class Refused(RuntimeError):
    """The API server said no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Child:
    """A program that goes on running; its words go to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        with log.open("ab") as words:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT
            )

    def words(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-3000:]

    def check(self) -> None:
        """Raises RuntimeError when it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.log.stem} ended with status {self.process.returncode}: {self.words()}")

    def send(self, number: int) -> None:
        """Send it one."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, timeout_s: float = 30.0) -> int:
        """Send a signal and wait for the end; kill what does not end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout_s)
        return int(self.process.returncode)


class Server:
    """A running API server, asked as its administrator. ``release``: of Kubernetes; empty: the one of the clusters."""

    def __init__(self, folder: Path, release: str = "") -> None:
        self.folder = folder
        server = EVERY[f"kube-apiserver-{release}" if release else "kube-apiserver"].path()
        etcd_port, peer_port, self.port = (free_port() for _ in range(3))
        self.url = f"https://127.0.0.1:{self.port}"
        self.started: list[Child] = []
        self._forgotten = 0
        self.tokens = {name: secrets.token_hex(16) for name in PEOPLE}
        self._write()
        etcd = f"http://127.0.0.1:{etcd_port}"
        self.children = [
            self.run(
                "etcd",
                str(EVERY["etcd"].path()),
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                "--unsafe-no-fsync=true",
            ),
            self.run("apiserver", str(server), *self._arguments(etcd)),
        ]
        self._opener: ssl.SSLContext | None = None
        self._wait()

    def run(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Child:
        """A program of these tests; who starts it ends it."""
        self.started.append(Child(command, self.folder / f"{name}.log", environment))
        return self.started[-1]

    def _write(self) -> None:
        rows = [f'{self.tokens[name]},{name},{name},"{group}"' for name, group in PEOPLE.items()]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        (self.folder / "audit.json").write_text(json.dumps(AUDIT))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (self.folder / "accounts.pem").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))

    def _arguments(self, etcd: str) -> list[str]:
        folder = self.folder
        return [
            f"--etcd-servers={etcd}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={folder / 'certificates'}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'accounts.pem'}",
            f"--service-account-signing-key-file={folder / 'accounts.pem'}",
            f"--audit-policy-file={folder / 'audit.json'}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--audit-log-mode=blocking",
            "--shutdown-delay-duration=0s",
        ]

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            for one in self.children:
                one.check()
            with contextlib.suppress(OSError, Refused):
                if self.request("GET", "/readyz") == "ok" and self.request("GET", "/api/v1/namespaces/kube-system"):
                    return
            if time.monotonic() > deadline:
                raise RuntimeError(f"the API server is not ready: {self.children[-1].words()}")
            time.sleep(0.05)  # it announces its readiness to nobody

    def request(
        self, method: str, path: str, body: object = None, kind: str = "application/json", who: str = "admin"
    ) -> Any:
        """The answer's JSON, or its text. Raises Refused."""
        if self._opener is None:
            self._opener = ssl.create_default_context(cafile=str(self.folder / "certificates/apiserver.crt"))
        headers = {"Authorization": f"Bearer {self.tokens[who]}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20, context=self._opener) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode()) from None
        try:
            return json.loads(text)
        except ValueError:
            return text

    def kubeconfig(self, who: str) -> Path:
        """A file for one of PEOPLE."""
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "certificates/apiserver.crt")}
        found = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": who,
            "clusters": [{"name": who, "cluster": cluster}],
            "users": [{"name": who, "user": {"token": self.tokens[who]}}],
            "contexts": [{"name": who, "context": {"cluster": who, "user": who}}],
        }
        path = self.folder / f"{who}.kubeconfig"
        path.write_text(json.dumps(found))
        return path

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create objects of RBAC, namespaces and the like; those that are there are replaced."""
        for one in objects:
            path = _collection(one)
            try:
                self.request("POST", path, one)
            except Refused as refused:
                if refused.status != 409:
                    raise
                self.request("PUT", f"{path}/{one['metadata']['name']}", one)

    # --- nodes --------------------------------------------------------------------------------------------------------

    def register(self, node: Mapping[str, Any]) -> None:
        """As a kubelet does: the node, then its status."""
        self.request("POST", "/api/v1/nodes", {key: value for key, value in node.items() if key != "status"})
        path = f"/api/v1/nodes/{node['metadata']['name']}/status"
        self.request("PATCH", path, {"status": node["status"]}, MERGE)

    def nodes(self) -> dict[str, dict[str, Any]]:
        """All, by name."""
        found = self.request("GET", "/api/v1/nodes")["items"]
        return {one["metadata"]["name"]: one for one in found}

    def patch(self, name: str, change: object, part: str = "") -> None:
        """Change a node, or a part of it."""
        self.request("PATCH", f"/api/v1/nodes/{name}{part}", change, MERGE)

    def events(self, namespace: str = "default") -> list[dict[str, Any]]:
        """Those that there are."""
        found: list[dict[str, Any]] = self.request("GET", f"/api/v1/namespaces/{namespace}/events")["items"]
        return found

    def clear(self) -> None:
        """No nodes, Events and Leases."""
        for path in ("/api/v1/nodes", "/api/v1/namespaces/default/events", "/api/v1/namespaces/kube-system/events"):
            self.request("DELETE", path)
        self.request("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases")

    # --- who asked for what -------------------------------------------------------------------------------------------

    def audit(self, who: str) -> list[dict[str, Any]]:
        """Entries of the log of a user, in order."""
        log = self.folder / "audit.log"
        if not log.exists():
            return []
        with log.open() as file:
            file.seek(self._forgotten)
            lines = [line for line in file if line.endswith("\n")]
        found = [json.loads(line) for line in lines if f'"{who}"' in line]
        return [one for one in found if one["user"]["username"] == who]

    def forget(self) -> None:
        """Let the log begin again."""
        log = self.folder / "audit.log"
        self._forgotten = log.stat().st_size if log.exists() else 0

    def counted(self, who: str) -> Counter[str]:
        """Requests by verb and resource; a watch counts when it begins."""
        counted: Counter[str] = Counter()
        for one in self.audit(who):
            if one["stage"] == ("ResponseStarted" if one["verb"] == "watch" else "ResponseComplete"):
                about = one.get("objectRef") or {}
                part = f"/{about['subresource']}" if "subresource" in about else ""
                counted[f"{one['verb']} {about.get('resource')}{part}"] += 1
        return counted


def until(condition: Any, timeout_s: float = 30.0, words: str = "it did not come about") -> Any:
    """What the condition returns, once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, words
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def running(release: str = "") -> Iterator[Server]:
    """One, for as long as it is used. Raises NotPossible."""
    with tempfile.TemporaryDirectory(prefix="cloud-", ignore_cleanup_errors=True) as name:
        made = Server.__new__(Server)
        made.children = []
        try:
            made.__init__(Path(name), release)  # type: ignore[misc]
            yield made
        finally:
            for one in reversed(made.children):
                one.end(signal.SIGKILL)


def free_port() -> int:
    """Nobody listens there."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def _collection(one: Mapping[str, Any]) -> str:
    plural = one["kind"].lower() + "s"
    version = one["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = one["metadata"].get("namespace")
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


__all__ = ["Child", "Refused", "Server", "free_port", "running", "until"]
