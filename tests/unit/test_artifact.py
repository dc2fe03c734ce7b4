# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection's artifact: the same bytes whenever, and on whatever file system, it is built; Ansible installs it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import artifact, reproducible  # noqa: E402


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of this working tree."""
    return artifact.build(ROOT, tmp_path_factory.mktemp("built"))


def elsewhere(built: Path, folder: Path) -> Path:
    """What ansible-galaxy makes of the same files later, by another user, where names come the other way round."""
    other = folder / built.name
    with tarfile.open(built) as given:
        files = {member.name: (member, given.extractfile(member)) for member in given}
        contents = {name: reader.read() for name, (_, reader) in files.items() if reader}
        listed, manifest = json.loads(contents["FILES.json"]), json.loads(contents["MANIFEST.json"])
        listed["files"].reverse()
        contents["FILES.json"] = json.dumps(listed, indent=True).encode()
        manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(contents["FILES.json"]).hexdigest()
        contents["MANIFEST.json"] = json.dumps(manifest, indent=True).encode()
        with tarfile.open(other, "w:gz") as made:
            for name, (member, _) in reversed(files.items()):
                member.mtime, member.uid, member.uname, member.size = 7, 7, "builder", len(contents.get(name, b""))
                made.addfile(member, io.BytesIO(contents.get(name, b"")))
    return other


def test_the_artifact_is_the_same_bytes_wherever_it_is_built(built: Path, tmp_path: Path) -> None:
    other = elsewhere(built, tmp_path)
    assert other.read_bytes() != built.read_bytes()
    reproducible.repack(other, reproducible.source_date_epoch(ROOT))
    assert other.read_bytes() == built.read_bytes()
    assert artifact.build(ROOT, tmp_path / "again").read_bytes() == built.read_bytes()


def test_ansible_installs_it_and_finds_every_file_as_it_was(built: Path, tmp_path: Path) -> None:
    galaxy = [str(Path(sys.prefix) / "bin" / "ansible-galaxy"), "collection"]
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
    subprocess.run([*galaxy, "install", "--offline", "-p", str(tmp_path), str(built)], env=environment, check=True)
    verified = [*galaxy, "verify", "--offline", "-p", str(tmp_path), "confidential.gpu"]
    done = subprocess.run(verified, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_time_is_the_environments_if_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "7")
    assert reproducible.source_date_epoch(ROOT) == 7
