# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Equal sources, equal bytes: the time that builds use, and an artifact of ansible-galaxy packed without chance.

ansible-galaxy lists files in the order that the file system has them in, and writes the time of the build in three
places: each file's, and that of the compression.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

LIST, MANIFEST = "FILES.json", "MANIFEST.json"


def source_date_epoch(root: Path) -> int:
    """Seconds since 1970: SOURCE_DATE_EPOCH of the environment, or the last commit's time."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    return int(subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout)


def repack(artifact: Path, epoch: int) -> None:
    """Pack a collection's artifact again, in the order of the names, with one time and one owner."""
    files: dict[str, bytes | None] = {}  # None: a folder
    modes: dict[str, int] = {}
    with tarfile.open(artifact) as tar:
        for member in tar:
            reader = tar.extractfile(member)
            files[member.name] = reader.read() if reader else None
            modes[member.name] = member.mode
    files[LIST], files[MANIFEST] = _sorted_list(files[LIST] or b"", files[MANIFEST] or b"")
    draft = artifact.with_suffix(".new")
    # The manifest comes first: who installs reads it before the rest.
    names = sorted(files, key=lambda one: (one != MANIFEST, one != LIST, one))
    with (
        draft.open("wb") as out,
        # An empty name: gzip writes the file's into its header.
        gzip.GzipFile("", "wb", 9, out, mtime=epoch) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name in names:
            content = files[name]
            info = tarfile.TarInfo(name)
            info.mtime, info.mode = epoch, modes[name]
            if content is None:
                info.type = tarfile.DIRTYPE
            info.size = len(content or b"")
            tar.addfile(info, io.BytesIO(content or b""))
    draft.replace(artifact)


def _sorted_list(files: bytes, manifest: bytes) -> tuple[bytes, bytes]:
    """The list of files in order, and the manifest with the list's new hash."""
    listed, about = json.loads(files), json.loads(manifest)
    listed["files"].sort(key=lambda entry: entry["name"])
    ordered = json.dumps(listed, indent=True).encode()
    about["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(ordered).hexdigest()
    return ordered, json.dumps(about, indent=True).encode()
