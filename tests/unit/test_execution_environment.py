# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The execution environment as far as no base image is needed: its context, and the collection's needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
BUILDER = str(Path(sys.prefix) / "bin" / "ansible-builder")


def test_the_target_makes_a_context_with_the_collection() -> None:
    # Set-up is other suites' to try: -o takes it for done.
    subprocess.run(["make", "-s", "-o", "setup-dev", "execution-environment"], cwd=ROOT, check=True)
    context = ROOT / "dist" / "execution-environment"
    (base,) = [
        line for line in (context / "Containerfile").read_text().splitlines() if line.startswith("ARG EE_BASE_IMAGE=")
    ]
    assert base == 'ARG EE_BASE_IMAGE="debian:trixie-slim"'
    (collection,) = yaml.safe_load((context / "_build" / "requirements.yml").read_text())["collections"]
    folder = context / "_build" / Path(collection["name"]).relative_to("/build")
    assert yaml.safe_load((folder / "galaxy.yml").read_text())["name"] == "gpu"
    assert (folder / "plugins" / "modules" / "cc_mode.py").is_file()
    assert not (folder / "tests" / "unit").exists()


def test_the_collections_needs_are_found(tmp_path: Path) -> None:
    place = tmp_path / "ansible_collections" / "confidential"
    place.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "tools.artifact", "copy", place / "gpu"], cwd=ROOT, check=True)
    command = [BUILDER, "introspect", str(tmp_path)]
    needs = yaml.safe_load(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    source = "  # from collection confidential.gpu"
    system = ["openssh-client [platform:dpkg]", "openssh-clients [platform:rpm]"]
    assert needs == {"python": [], "system": [f"{one}{source}" for one in system]}
