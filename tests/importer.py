# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Build the collection's artifact and let galaxy-importer judge it, as Galaxy does when a collection is published."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What ansible-test and ansible-lint find has suites of its own; the importer would run them in containers.
CONFIG = """\
[galaxy-importer]
RUN_ANSIBLE_TEST = False
RUN_ANSIBLE_LINT = False
CHECK_REQUIRED_TAGS = True
REQUIRE_V1_OR_GREATER = False
"""
LARGEST_KIB = 512


def main() -> int:
    """0 if the artifact is small and the importer has neither error nor warning."""
    with tempfile.TemporaryDirectory(prefix="confidential-gpu-importer-") as name:
        folder = Path(name)
        (folder / "importer.cfg").write_text(CONFIG)
        subprocess.run([sys.executable, "-m", "tools.artifact", "build", folder], cwd=ROOT, check=True)
        (artifact,) = folder.glob("*.tar.gz")
        kib = artifact.stat().st_size / 1024
        print(f"{artifact.name}: {kib:.0f} KiB, {LARGEST_KIB} allowed")
        environment = {**os.environ, "GALAXY_IMPORTER_CONFIG": str(folder / "importer.cfg")}
        # From a folder of its own: the importer leaves files where it runs, and must see its own copy only.
        environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
        done = subprocess.run(
            [sys.executable, "-m", "galaxy_importer.main", artifact],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    print(done.stdout)
    complaints = [line for line in done.stdout.splitlines() if line.startswith(("ERROR", "WARNING"))]
    print(f"galaxy-importer: {len(complaints)} complaints")
    return 1 if done.returncode or complaints or kib > LARGEST_KIB else 0


if __name__ == "__main__":
    sys.exit(main())
