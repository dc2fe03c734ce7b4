# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the API is, and how to prove who asks, without a secret in any message."""

from __future__ import annotations

import base64
import os
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_api.server import ApiServer
from fake_api.store import Store
from kube import connection
from kube.client import ApiError, Kube
from kube.connection import Connection, NoConnection
from kube_tools import NODE, get

UNSUPPORTED_OF_USERS = [
    "exec",
    "auth-provider",
    "username",
    "password",
    "as",
    "as-groups",
    "as-uid",
    "as-user-extra",
    "new",
]
UNSUPPORTED_OF_CLUSTERS = ["proxy-url", "tls-server-name", "new"]
NO_YAML = "users:\n- name: u\n  user:\n    token: s3cr3t\n   client-key-data: s3cr3t\n"
NO_MAPPING = "contexts: s3cr3t\nclusters: s3cr3t\nusers: s3cr3t\ncurrent-context: s3cr3t\n"
BAD_TOKENS = ["s3cr3t\nX-Other: 1", "s3cr3t\r", "s3 cr3t", "s3cr3t\u00e4", "s3cr3t\0"]


def kubeconfig(folder: Path, user: dict[str, Any], **cluster: Any) -> str:
    content = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443/", **cluster}}],
        "users": [{"name": "u", "user": user}],
    }
    (folder / "config").write_text(yaml.safe_dump(content, allow_unicode=True))
    return str(folder / "config")


def test_a_pods_service_account(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    found = connection.of_pod(environment, str(tmp_path))
    assert (found.server, found.ca_file) == ("https://10.0.0.1:443", str(tmp_path / "ca.crt"))
    assert found.token is not None
    assert found.token() == "first"
    token.write_text("second-and-longer")
    os.utime(token, (1, 1))
    assert found.token() == "second-and-longer"
    six = connection.of_pod({**environment, "KUBERNETES_SERVICE_HOST": "fd00::1"}, str(tmp_path))
    assert six.server == "https://[fd00::1]:443"
    with pytest.raises(NoConnection, match="in no pod"):
        connection.of_pod({}, str(tmp_path))


def test_kubeconfig_files(tmp_path: Path) -> None:
    found = connection.of_file(kubeconfig(tmp_path, {"token": "t"}, **{"certificate-authority": "ca.crt"}))
    assert (found.server, found.ca_file, found.verify) == ("https://api:6443", str(tmp_path / "ca.crt"), True)
    assert found.token is not None
    assert found.token() == "t"
    (tmp_path / "token").write_text("of-a-file\n")
    found = connection.of_file(kubeconfig(tmp_path, {"tokenFile": "token"}, **{"insecure-skip-tls-verify": True}))
    assert found.token is not None
    assert (found.token(), found.verify) == ("of-a-file", False)
    data = base64.b64encode(b"pem").decode()
    user = {"client-certificate-data": data, "client-key-data": data}
    found = connection.of_file(kubeconfig(tmp_path, user))
    assert found.token is None
    for file in (found.certificate_file, found.key_file):
        assert file is not None
        assert Path(file).read_bytes() == b"pem"
        assert os.stat(file).st_mode & 0o777 == 0o600
        assert file.startswith("/proc/self/fd/")  # so that nothing is left, however the process ends


@pytest.mark.parametrize("field", UNSUPPORTED_OF_USERS)
def test_fields_of_users_that_are_not_supported_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(NoConnection, match=f"the user has {field}, which is not supported") as caught:
        connection.of_file(kubeconfig(tmp_path, {"token": "t", field: {"secret": "s3cr3t"}}))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("field", UNSUPPORTED_OF_CLUSTERS)
def test_fields_of_clusters_that_are_not_supported_are_named(tmp_path: Path, field: str) -> None:
    with pytest.raises(NoConnection, match=f"the cluster has {field}, which is not supported"):
        connection.of_file(kubeconfig(tmp_path, {}, **{field: "x"}))


@pytest.mark.parametrize(
    "server", ["api:6443", "https://", "ftp://api", "https://u:s3cr3t@api", "https://api:port", ""]
)
def test_servers_that_are_none(tmp_path: Path, server: str) -> None:
    with pytest.raises(NoConnection, match="cannot be used") as caught:
        connection.of_file(kubeconfig(tmp_path, {}, server=server))
    assert "s3cr3t" not in str(caught.value)


def test_whether_the_servers_certificate_counts_is_true_or_false(tmp_path: Path) -> None:
    with pytest.raises(NoConnection, match="insecure-skip-tls-verify is neither true nor false"):
        connection.of_file(kubeconfig(tmp_path, {}, **{"insecure-skip-tls-verify": "false"}))


@pytest.mark.parametrize(
    ("text", "words"), [(NO_YAML, "line 5, column"), (NO_MAPPING, "field"), ("\xff s3cr3t", "YAML")]
)
def test_a_kubeconfig_that_cannot_be_read_is_not_shown(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config").write_bytes(text.encode("latin-1"))
    with pytest.raises(NoConnection) as caught:
        connection.of_file(str(tmp_path / "config"))
    said = "".join(traceback.format_exception(caught.value))
    assert words in said
    assert "s3cr3t" not in said


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_token_that_is_none_is_not_shown(tmp_path: Path, token: str) -> None:
    with pytest.raises(NoConnection, match="token") as caught:
        connection.of_file(kubeconfig(tmp_path, {"token": token}))
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("token", [*BAD_TOKENS, "", None])
def test_a_token_file_that_becomes_none_is_told_and_not_shown(
    tmp_path: Path, server: ApiServer, store: Store, token: str | None
) -> None:
    file = tmp_path / "token"
    file.write_text("good")
    kube = Kube(Connection(server.url, token=connection.FileToken(file)))
    assert get(kube) == NODE
    if token is None:
        file.unlink()
    else:
        file.write_text(f"{token}x" if token else "")
        os.utime(file, (1, 1))
    with pytest.raises(ApiError, match="token") as caught:
        get(kube)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(part in shown for part in ("s3cr3t", "X-Other"))
    file.write_text("good again".replace(" ", "-"))
    assert get(kube) == NODE
    kube.close()


NO_BASE64 = yaml.safe_dump(
    {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": 7, "certificate-authority-data": "a"}}],
        "users": [{"name": "u", "user": {}}],
    }
)


@pytest.mark.parametrize("text", [None, "{", "[]", "contexts: []\ncurrent-context: x\n", "contexts: {x", NO_BASE64])
def test_kubeconfig_files_that_are_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    with pytest.raises(NoConnection, match="cannot be used"):
        connection.of_file(str(tmp_path / "config"))
