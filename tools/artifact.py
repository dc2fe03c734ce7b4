#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection as it is shipped, without what lies about in a working tree.

    python tools/artifact.py copy FOLDER     the files, and the lists of what ansible-test shall ignore
    python tools/artifact.py build FOLDER    the artifact for ansible-galaxy collection install

Shipped is what git knows or would take, less ``build_ignore`` of galaxy.yml.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
FOR_SANITY = "tests/sanity/ignore-*.txt"


def shipped(root: Path) -> Iterator[str]:
    """Paths of the files that the artifact holds, and galaxy.yml."""
    left_out = yaml.safe_load((root / "galaxy.yml").read_text())["build_ignore"]
    list_files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(list_files, cwd=root, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in filter(None, sorted(set(listed.split("\0")))):
        parts = [name, *(parent.as_posix() for parent in Path(name).parents)]
        if not any(fnmatch.fnmatch(part, pattern) for part in parts for pattern in left_out):
            yield name


def copy(root: Path, place: Path) -> None:
    """Copy what is shipped, and the lists for ansible-test, to a folder."""
    for name in [*shipped(root), *(str(path.relative_to(root)) for path in root.glob(FOR_SANITY))]:
        # A file that git knows may have been deleted. Links go by what they link to.
        if (root / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, place / name)


def build(root: Path, out: Path) -> int:
    """Build the artifact into a folder; the exit status."""
    with tempfile.TemporaryDirectory(prefix="confidential-gpu-build-") as folder:
        copy(root, Path(folder))
        galaxy = Path(sys.prefix) / "bin" / "ansible-galaxy"
        command: list[str | Path] = [galaxy, "collection", "build", "--force", "--output-path", out.absolute(), folder]
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


def main() -> int:
    """Copy or build."""
    parser = argparse.ArgumentParser(description="The collection as it is shipped.")
    parser.add_argument("what", choices=["copy", "build"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "build":
        return build(ROOT, arguments.folder)
    copy(ROOT, arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
