# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the scenarios below extensions/molecule need, made once into .cache: images, podman's storage, a collection.

The images are made by mmdebstrap from the Debian archive that apt on this machine uses. podman gets a storage of its
own, so the user's stays as it is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tools import cache, debian
from tools.needs import run

FOLDER = cache.ROOT / ".cache" / "molecule"
COLLECTIONS = cache.ROOT / ".cache" / "collections" / "ansible_collections"
LOCK = Path(__file__).parent / "collections.txt"
# Which of that package's collections is taken.
WANTED = "containers/podman"
NAME = "localhost/confidential-gpu"
PACKAGES = ["python3", "python3-venv", "python3-yaml", "grub2-common"]
SMALLER = [
    "--variant=minbase",
    "--aptopt=Apt::Install-Recommends false",
    *("--dpkgopt=path-exclude=/usr/share/%s/*" % name for name in ("doc", "man", "locale", "info")),
]


@dataclass(frozen=True)
class Podman:
    """A script that runs podman on a storage of its own, as root or as a user."""

    script: Path

    def __call__(self, *words: str) -> str:
        """Standard output of a podman command. Raises NotPossible with what it said."""
        return run([str(self.script), *words])


def prepare() -> Podman:
    """Everything; seconds when it is there already."""
    podman = make_podman()
    suites = {"debian-12": "bookworm", "debian-13": "trixie"}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: make_image(podman, name, suites[name]), suites))
    take_collections()
    return podman


def make_podman() -> Podman:
    """runc, because crun refuses hosts with two versions of control groups at once; no daemon's events."""
    # podman refuses a storage that was made under another path.
    storage = FOLDER / f"storage-{hashlib.sha256(str(FOLDER).encode()).hexdigest()[:8]}"
    storage.mkdir(parents=True, exist_ok=True)
    words = ["--root", str(storage), "--runroot", str(FOLDER / "run"), "--runtime", "runc"]
    words += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    script = FOLDER / "podman"
    script.write_text('#!/bin/sh\nexec podman %s "$@"\n' % " ".join(f"'{word}'" for word in words))
    script.chmod(0o755)
    return Podman(script)


def make_image(podman: Podman, name: str, suite: str) -> None:
    """The image of that name, unless it is there and made of the same packages."""

    def fetch(folder: Path) -> None:
        debian.mmdebstrap(folder / "root.tar", PACKAGES, SMALLER, suite=suite)

    folder = cache.finished(name, [suite, PACKAGES, SMALLER], fetch, FOLDER)
    if folder.name not in podman("images", "--format", "{{.Tag}}").split():
        podman("import", "--quiet", str(folder / "root.tar"), f"{NAME}:{folder.name}")
    podman("tag", f"{NAME}:{folder.name}", f"{NAME}:{name}")


def take_collections() -> None:
    """containers.podman, for its connection plugin, out of the package that it is released in."""

    def download(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        run([*pip, "--dest", str(folder / "wheel"), "--requirement", str(LOCK)])
        (wheel,) = (folder / "wheel").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            prefix = f"ansible_collections/{WANTED}/"
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith(prefix)])
        shutil.rmtree(folder / "wheel")

    found = cache.finished("collections", LOCK.read_text(), download, FOLDER) / "ansible_collections"
    namespace = WANTED.partition("/")[0]
    COLLECTIONS.mkdir(parents=True, exist_ok=True)
    link = COLLECTIONS / namespace
    if not link.is_symlink() or Path(os.readlink(link)) != found / namespace:
        # Another process may do the same at the same time.
        draft = COLLECTIONS / f".{namespace}-{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.symlink_to(found / namespace)
        draft.replace(link)


if __name__ == "__main__":
    print(prepare().script)
