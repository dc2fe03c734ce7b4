# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Make all that a release has, signed, and publish nothing: python -m tools.release --key FILE [--out FOLDER]

The collection, the images, an SBOM of each, where they come from (provenance.json), and SHA256SUMS of all these with a
signature by GPG. The collection's manifest has one too: `ansible-galaxy collection verify` checks
it. The key is a file, as `gpg --export-secret-keys` writes it, without a passphrase; it goes to no keyring of
the user's. Everything is made in a draft folder and takes the name of the folder when it is complete.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tools import artifact, image, provenance, sbom
from tools.needs import NotPossible, run
from tools.reproducible import MANIFEST, source_date_epoch

ROOT = Path(__file__).resolve().parent.parent
SUMS = "SHA256SUMS"


def main() -> int:
    """Build, sign, list; 1 with the reason if that cannot be."""
    parser = argparse.ArgumentParser(description="Make a signed release, and publish nothing.")
    parser.add_argument("--key", type=Path, required=True, help="file of GPG's secret key, without a passphrase")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "release", help="by default dist/release")
    parser.add_argument("--images", nargs="*", choices=image.IMAGES, default=list(image.IMAGES), help="by default all")
    parser.add_argument("--changed", action="store_true", help="even if the working tree is not the commit")
    options = parser.parse_args()
    try:
        for path in release(options.key, options.out, options.images, options.changed):
            print(f"{provenance.sha256(path)}  {path.name}")
    except (NotPossible, subprocess.CalledProcessError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"release: all of it is in {options.out}; nothing was published")
    return 0


def release(key: Path, out: Path, images: Sequence[str], changed_too: bool = False) -> list[Path]:
    """The files of a release, in a folder that holds nothing else. Raises NotPossible before anything is built."""
    changed = bool(provenance.git(ROOT, "status", "--porcelain"))
    if changed and not changed_too:
        raise NotPossible("the working tree is not the commit: git status shows what differs. Commit it, or stash it")
    galaxy: Mapping[str, Any] = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    epoch = source_date_epoch(ROOT)
    out.parent.mkdir(parents=True, exist_ok=True)
    with signer_of(key) as signer, tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        draft = Path(scratch, "draft")
        made = artifact.build(ROOT, draft)
        with tarfile.open(made) as tar:
            tar.extract(MANIFEST, draft, filter="data")
        signer.sign(draft / MANIFEST)
        needs = pins((ROOT / "gpu-admin-tools/requirements.txt").read_text())
        (draft / f"{made.name}.cdx.json").write_text(sbom.of_collection(galaxy, made, needs, epoch))
        for name in images:
            image.build(f"{name}:{galaxy['version']}", draft / f"{name}.tar", image=image.IMAGES[name])
        files = sorted(draft.iterdir())
        (draft / "provenance.json").write_text(provenance.statement(ROOT, galaxy["repository"], files, epoch, changed))
        files.append(draft / "provenance.json")
        (draft / SUMS).write_text("".join(f"{provenance.sha256(path)}  {path.name}\n" for path in files))
        signer.sign(draft / SUMS)
        shutil.rmtree(out, ignore_errors=True)
        draft.rename(out)
    return sorted(out.iterdir())


class Signer:
    """GPG with one key, in a keyring of its own."""

    def __init__(self, key: Path, home: str) -> None:
        self._gpg = ["gpg", "--homedir", home, "--batch", "--no-tty", "--quiet"]
        run([*self._gpg, "--import", str(key)])

    def sign(self, path: Path) -> None:
        """Put a signature beside a file, as FILE.asc."""
        run([*self._gpg, "--armor", "--detach-sign", "--output", f"{path}.asc", str(path)])


@contextmanager
def signer_of(key: Path) -> Iterator[Signer]:
    """Signs with the key of a file. Raises NotPossible if there is none in it."""
    if not key.is_file():
        raise NotPossible(f"there is no key {key}: gpg --export-secret-keys --armor NAME writes one")
    # The agent's socket is in there, and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="release-gnupg-") as home:
        try:
            yield Signer(key, home)
        finally:
            run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"])


def pins(lock: str) -> list[str]:
    """The lines "name==version" of a lock file."""
    return re.findall(r"^([A-Za-z0-9._-]+==[^\s;\\]+)", lock, re.MULTILINE)


if __name__ == "__main__":
    sys.exit(main())
