# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the API server is and how to prove who asks: the pod's service account, or a kubeconfig file."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
# What a header may hold of a token (RFC 6750). Anything else would be repeated by whoever complains about it.
NO_TOKEN = re.compile(r"[^\x21-\x7e]")
# Of a kubeconfig: what is used here, and what means nothing to a client that only sends requests.
TOP_FIELDS = {"apiVersion", "kind", "preferences", "extensions", "clusters", "contexts", "current-context", "users"}
CONTEXT_FIELDS = {"cluster", "user", "namespace", "extensions"}
CLUSTER_FIELDS = {
    "server",
    "certificate-authority",
    "certificate-authority-data",
    "insecure-skip-tls-verify",
    "disable-compression",
    "extensions",
}
USER_FIELDS = {
    "token",
    "tokenFile",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "extensions",
}


class NoConnection(ValueError):
    """There is nothing to connect to; the text says what was looked for, and nothing that is secret."""


class BadToken(ValueError):
    """What should be a token is none; the text says where it is, not what."""


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
        """The token. Raises OSError, BadToken."""
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_ino)
        if stamp != self._stamp:
            self._token = _checked(self._path.read_bytes().decode("utf-8", "replace").strip(), str(self._path))
            self._stamp = stamp
        return self._token


def _checked(token: str, where: str) -> str:
    wrong = NO_TOKEN.search(token)
    if wrong is not None:
        raise BadToken(f"The token of {where} is none: character {wrong.start() + 1} cannot be in one.")
    if not token:
        raise BadToken(f"The token of {where} is empty.")
    return token


def of_server(server: str) -> Connection:
    """An address that asks for nothing: of `kubectl proxy`. Raises NoConnection."""
    try:
        return Connection(_server(server))
    except ValueError as error:
        raise NoConnection(f"The address {server!r} cannot be used: {error}.") from None


def of_file(path: str, context: str = "") -> Connection:
    """A context of a kubeconfig file, by default the current one: token, token file, or client certificate.

    Raises NoConnection.
    """
    try:
        return _of_content(yaml.safe_load(Path(path).read_bytes()), os.path.dirname(os.path.abspath(path)), context)
    except yaml.YAMLError as error:
        raise _unusable(path, f"it is not YAML{_place(error)}") from None  # its own text shows lines of the file
    except OSError as error:
        raise _unusable(path, f"{error.strerror} ({error.filename or path})") from None
    except (NoConnection, BadToken) as error:
        raise _unusable(path, str(error)) from None
    except KeyError as error:
        raise _unusable(path, f"it has no {error}") from None
    except (ValueError, TypeError, AttributeError) as error:  # base64 that is none, a list that is a mapping
        raise _unusable(path, f"a {type(error).__name__}: a field is not of the kind that it should be") from None


def _of_content(content: Any, folder: str, name: str) -> Connection:
    context = _named(content, "contexts", name or content["current-context"])["context"]
    cluster = _named(content, "clusters", context["cluster"])["cluster"]
    user = _named(content, "users", context["user"]).get("user") or {}
    for what, entry, known in (
        ("the file", content, TOP_FIELDS),
        ("the context", context, CONTEXT_FIELDS),
        ("the cluster", cluster, CLUSTER_FIELDS),
        ("the user", user, USER_FIELDS),
    ):
        _refuse_others(what, entry, known)
    verify = not cluster.get("insecure-skip-tls-verify", False)
    if not isinstance(cluster.get("insecure-skip-tls-verify", False), bool):
        raise NoConnection("insecure-skip-tls-verify is neither true nor false")
    return Connection(
        _server(cluster["server"]),
        _file(cluster, "certificate-authority", folder),
        _token(user, folder),
        _file(user, "client-certificate", folder),
        _file(user, "client-key", folder),
        verify,
    )


def _refuse_others(what: str, entry: Mapping[str, Any], known: set[str]) -> None:
    """A field that is passed over silently may be the one that keeps others out."""
    others = sorted(str(key) for key, value in entry.items() if key not in known and value not in (None, ""))
    if others:
        raise NoConnection(
            f"{what} has {', '.join(others)}, which is not supported. Give a kubeconfig with a token or a certificate, "
            "and without proxies, programs and impersonation"
        )


def _server(text: Any) -> str:
    url = urlsplit(str(text))
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.password or url.query:
        raise NoConnection("server is not an address like https://host:6443")
    url.port  # noqa: B018  (raises ValueError where it is none)
    return str(text).rstrip("/")


def _unusable(path: str, why: str) -> NoConnection:
    return NoConnection(f"The kubeconfig {path} cannot be used: {why}.")


def _place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""


def _named(content: Mapping[str, Any], kind: str, name: str) -> dict[str, Any]:
    for entry in content[kind]:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise NoConnection(f"none of its {kind} has the name that is asked for")


def _token(user: Mapping[str, Any], folder: str) -> Callable[[], str] | None:
    if user.get("tokenFile"):
        return FileToken(Path(folder, user["tokenFile"]))
    if not user.get("token"):
        return None
    token = _checked(str(user["token"]), "the user")
    return lambda: token


def _file(entry: Mapping[str, Any], key: str, folder: str) -> str | None:
    """The file of a key, or one made of its inline data: TLS takes files only.

    That one is memory of this process with a name below /proc. Nothing of it outlives the process, however that ends.
    """
    data = entry.get(key + "-data")
    if not data:
        return os.path.join(folder, entry[key]) if entry.get(key) else None
    content = base64.b64decode(data, validate=True)
    descriptor = os.memfd_create("kubeconfig")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, content)
    return f"/proc/self/fd/{descriptor}"
