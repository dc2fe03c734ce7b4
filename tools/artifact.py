#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection as it is shipped, without what lies about in a working tree.

    python -m tools.artifact copy FOLDER     the files, and the lists of what ansible-test shall ignore
    python -m tools.artifact build FOLDER    the artifact for ansible-galaxy collection install; the same bytes twice

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

from tools.reproducible import repack, source_date_epoch

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


def build(root: Path, out: Path) -> Path:
    """Build the artifact into a folder; the artifact. Raises CalledProcessError."""
    galaxy = yaml.safe_load((root / "galaxy.yml").read_text())
    name = "{namespace}-{name}-{version}.tar.gz".format_map(galaxy)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=out) as folder:
        sources, made = Path(folder, "sources"), Path(folder, "made")
        copy(root, sources)
        program = Path(sys.prefix) / "bin" / "ansible-galaxy"
        command: list[str | Path] = [program, "collection", "build", "--output-path", made.absolute(), sources]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        repack(made / name, source_date_epoch(root))
        (made / name).replace(out / name)
    return out / name


def main() -> int:
    """Copy or build."""
    parser = argparse.ArgumentParser(description="The collection as it is shipped.")
    parser.add_argument("what", choices=["copy", "build"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "build":
        print(build(ROOT, arguments.folder))
        return 0
    copy(ROOT, arguments.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
