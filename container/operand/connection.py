# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the API server is and how to prove who asks: the pod's service account, or a kubeconfig file."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


class NoConnection(ValueError):
    """There is nothing to connect to; the text says what was looked for."""


@dataclass(frozen=True)
class Connection:
    """An API server. ``token`` is asked before every request: the kubelet replaces a pod's token within its hour."""

    server: str
    ca_file: str | None = None
    token: Callable[[], str] | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    verify: bool = True


def of_pod(environment: Mapping[str, str], folder: str = ACCOUNT_FOLDER) -> Connection:
    """The connection that Kubernetes gives to a pod. Raises NoConnection."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    token = Path(folder, "token")
    if not host or not port or not token.is_file():
        raise NoConnection(
            "This process is in no pod with a service account (KUBERNETES_SERVICE_HOST, "
            f"KUBERNETES_SERVICE_PORT and {token}). Give --kubeconfig."
        )
    server = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    return Connection(server, str(Path(folder, "ca.crt")), FileToken(token))


class FileToken:
    """A token in a file, read again when the file is another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._token, self._stamp = self._path.read_text(encoding="utf-8").strip(), stamp
        return self._token


def of_file(path: str) -> Connection:
    """The current context of a kubeconfig file: token, token file, or client certificate. Raises NoConnection."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        context = _named(content["contexts"], content["current-context"])["context"]
        cluster = _named(content["clusters"], context["cluster"])["cluster"]
        user = _named(content["users"], context["user"]).get("user") or {}
        server = str(cluster["server"]).rstrip("/")
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise _unusable(path, error) from error
    if "exec" in user or "auth-provider" in user:
        raise NoConnection(
            f"The kubeconfig {path} gets its token from a program. Give one with a token or a certificate."
        )
    folder = os.path.dirname(os.path.abspath(path))
    try:
        return Connection(
            server,
            _file(cluster, "certificate-authority", folder),
            _token(user, folder),
            _file(user, "client-certificate", folder),
            _file(user, "client-key", folder),
            not cluster.get("insecure-skip-tls-verify", False),
        )
    except (OSError, ValueError, TypeError) as error:  # base64 that is none, a file name that is none
        raise _unusable(path, error) from error


def _unusable(path: str, error: Exception) -> NoConnection:
    return NoConnection(f"The kubeconfig {path} cannot be used: {type(error).__name__} {error}.")


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)


def _token(user: Mapping[str, Any], folder: str) -> Callable[[], str] | None:
    if "tokenFile" in user:
        return FileToken(Path(folder, user["tokenFile"]))
    token = user.get("token")
    return (lambda: str(token)) if token else None


def _file(entry: Mapping[str, Any], key: str, folder: str) -> str | None:
    """The file of a key, or one made of its inline data: TLS takes files only."""
    data = entry.get(key + "-data")
    if data is None:
        return os.path.join(folder, entry[key]) if key in entry else None
    descriptor, name = tempfile.mkstemp(prefix="cc-manager-")
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64decode(data))
    return name
