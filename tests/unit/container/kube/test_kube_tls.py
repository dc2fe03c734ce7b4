# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The client and watches over TLS: whom it believes, how it proves who asks, and that its bounds hold here too."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from fake_api import faults
from fake_api.daemon_sets import NODES
from fake_api.daemon_sets import node as new_node
from fake_api.server import ApiServer, serving
from fake_api.store import Store
from fake_api.waiting import eventually
from kube.client import ApiError, Kube
from kube.connection import Connection
from kube.delay import Delay
from kube.watch import Watch
from kube_tools import NODE, THIS_NODE, get


class Authority:
    """It signs certificates, which lie with their keys in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = str(folder / f"{name}.crt")
        basic = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder(self._name, self._key).add_extension(basic, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = (
            builder.add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        Path(self.file).write_bytes(certificate.public_bytes(Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def certificate(self, name: str, address: str = "127.0.0.1", password: bytes = b"") -> tuple[str, str]:
        """The files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), key)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(names, critical=False).add_extension(issuer, critical=False)
        files = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        files[0].write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return str(files[0]), str(files[1])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def store() -> Store:
    made = Store()
    made.create(NODES, new_node(NODE))
    return made


@pytest.fixture
def server(authority: Authority, store: Store) -> Iterator[ApiServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("server"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_OPTIONAL
    with serving(store, context) as running:
        yield running


def ask(url: str, **more: Any) -> str:
    """The node's name, through a connection of its own."""
    with contextlib.closing(Kube(Connection(url, **more))) as kube:
        return get(kube)


def test_a_server_is_believed_by_its_authority(server: ApiServer, authority: Authority) -> None:
    assert ask(server.url, ca_file=authority.file) == NODE


def test_a_server_of_another_authority_is_not(server: ApiServer, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with pytest.raises(ApiError, match="certificate verify failed"):
        ask(server.url, ca_file=other.file)
    assert ask(server.url, ca_file=other.file, verify=False) == NODE


def test_a_server_of_another_name_is_not(authority: Authority, store: Store) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("elsewhere", "127.0.0.2"))
    with serving(store, context) as running, pytest.raises(ApiError, match="IP address mismatch"):
        ask(running.url, ca_file=authority.file)


def test_a_client_shows_its_certificate(authority: Authority, store: Store) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.certificate("server"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    certificate, key = authority.certificate("client")
    with serving(store, context) as running:
        assert ask(running.url, ca_file=authority.file, certificate_file=certificate, key_file=key) == NODE
        with pytest.raises(ApiError):
            ask(running.url, ca_file=authority.file)


def test_nobody_is_asked_for_a_keys_password(server: ApiServer, authority: Authority) -> None:
    certificate, key = authority.certificate("client", password=b"s3cr3t")
    with pytest.raises(ApiError):
        ask(server.url, ca_file=authority.file, certificate_file=certificate, key_file=key)


def test_an_authority_that_is_replaced_counts_from_the_next_connection_on(
    server: ApiServer, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("no certificate")
    with contextlib.closing(Kube(Connection(server.url, ca_file=str(file)))) as kube:
        with pytest.raises(ApiError):
            get(kube)
        file.write_bytes(Path(authority.file).read_bytes())
        assert get(kube) == NODE


@pytest.mark.parametrize("way", [faults.DRIP, faults.DRIP_HEADERS, faults.HANG])
def test_a_request_ends_in_a_bounded_time(server: ApiServer, authority: Authority, store: Store, way: str) -> None:
    store.faults.send(way, "get")
    hasty = contextlib.closing(Kube(Connection(server.url, authority.file), 0.5))
    with hasty as kube, pytest.raises(ApiError, match="no answer in time"):
        get(kube)
    store.faults.clear()
    assert ask(server.url, ca_file=authority.file) == NODE


def test_requests_share_a_connection(server: ApiServer, authority: Authority, store: Store) -> None:
    """Also one whose last answer was a refusal."""
    with contextlib.closing(Kube(Connection(server.url, authority.file))) as kube:
        get(kube)
        store.faults.refuse("get", status=500, times=1)
        with pytest.raises(ApiError):
            get(kube)
        get(kube)
        assert server.connections == 1
        server.cut()
        assert get(kube) == NODE
        assert server.connections == 2


def test_a_watch_tells_and_ends(server: ApiServer, authority: Authority, store: Store) -> None:
    seen: list[list[dict[str, Any]]] = []
    with contextlib.closing(Kube(Connection(server.url, authority.file))) as kube:
        watch = Watch(kube, THIS_NODE, lambda found, _fresh: seen.append(found), lambda _e: None, Delay(0.01, 0.05))
        watch.start()
        eventually(lambda: any(one.verb == "watch" for one in store.requests))
        store.patch(NODES, NODE, {"metadata": {"labels": {"a": "1"}}})
        eventually(lambda: seen and seen[-1][0]["metadata"]["labels"].get("a") == "1")
        watch.end()
        eventually(lambda: not any(thread.name.startswith("watch ") for thread in threading.enumerate()))
