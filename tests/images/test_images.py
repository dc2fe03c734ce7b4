# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager's images, of `make image` and of container/Dockerfile, do the same: they start and set a mode.

No registry is needed: Debian's packages from the archive of this machine's apt make the base of the Dockerfile and of
the execution environment.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator.launch import launch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tools import debian, image, needs  # noqa: E402

BASE = "localhost/debian:trixie-slim"
# Where this machine's certificate authorities are, and where they are seen while an image is built.
AUTHORITIES, SEEN_AT = "/etc/ssl/certs/ca-certificates.crt", "/run/authorities.crt"
PLAYBOOK = (
    *("ansible-playbook", "--inventory", "localhost,", "--connection", "local", "--extra-vars"),
    "ansible_python_interpreter=/usr/bin/python3 cc_mode_bus=vfio-user:/sockets cc_mode_fact_file=/tmp/fact"
    " cc_mode_become=false cc_mode_install_tool=false cc_mode_mode=on",
    "confidential.gpu.cc_mode",
)


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._words = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        self._words += ["--storage-driver", "vfs"]

    def __call__(self, *words: str) -> str:
        """What it prints. Raises NotPossible with the end of what it said."""
        return needs.run([*self._words, *words], "", {"TMPDIR": str(self._folder)})

    def build(self, *words: str) -> None:
        """Build with this machine's way to Python's packages."""
        pip = [sys.executable, "-m", "pip", "config", "list"]
        listed = subprocess.run(pip, stdout=subprocess.PIPE, text=True, check=True).stdout
        config = self._folder / "pip.conf"
        config.write_text("\n".join(["[global]", f"cert = {SEEN_AT}", *indexes(listed), ""]))
        volumes = [f"--volume={AUTHORITIES}:{SEEN_AT}:ro", f"--volume={config}:/etc/pip.conf:ro"]
        self("build", "--quiet", "--isolation", "chroot", *volumes, *words)

    def run(self, name: str, *words: str, volume: str = "", status: int = 0) -> str:
        """What a program of an image prints, on both channels; it must end with this status."""
        container = self("from", "--pull-never", name).strip()
        volumes = [f"--volume={volume}"] if volume else []
        command = [*self._words, "run", "--isolation", "chroot", *volumes, container, "--", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self("rm", container)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


def indexes(listed: str) -> Iterator[str]:
    """Lines for pip.conf that name the indexes which pip is set to here."""
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        if name.endswith("index-url"):
            yield f"{name.rpartition('.')[2]} = {ast.literal_eval(value)}"


@pytest.fixture(scope="session")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    """With Debian's base image."""
    if os.geteuid() != 0:
        pytest.skip("run it as root")
    made = Buildah(tmp_path_factory.mktemp("buildah"))
    context = tmp_path_factory.mktemp("base")
    debian.mmdebstrap(context / "root.tar", ["apt"], ["--variant=minbase"])
    (context / "Containerfile").write_text("FROM scratch\nADD root.tar /\n")
    made("build", "--quiet", "--isolation", "chroot", "--tag", BASE, str(context))
    return made


@pytest.fixture(scope="session", params=["reproducible", "Dockerfile"])
def name(request: pytest.FixtureRequest, buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of the CC manager, by its name in buildah's storage."""
    name = f"localhost/cc-manager:{request.param.lower()}"
    if request.param == "Dockerfile":
        buildah.build(
            "--file", str(ROOT / "container/Dockerfile"), "--build-arg", f"BASE={BASE}", "--tag", name, str(ROOT)
        )
    else:
        archive = tmp_path_factory.mktemp("image") / "cc-manager.tar"
        image.build(name, archive)
        buildah("pull", "--quiet", f"docker-archive:{archive}")
    return name


def test_the_program_starts_and_says_what_it_lacks(buildah: Buildah, name: str) -> None:
    assert "NODE_NAME" in buildah.run(name, "k8s-cc-manager", status=2)
    assert "usage: " in buildah.run(name, "k8s-cc-manager", "--help")


def test_the_playbook_in_it_sets_the_mode_of_a_device(buildah: Buildah, name: str) -> None:
    with launch("h100-pcie") as node:
        said = buildah.run(name, *PLAYBOOK, volume=f"{node.sockets}:/sockets:rw")
        (device,) = node.control.state().values()
    assert device["mode"] == "on", said


def test_the_execution_environment_has_the_collection_and_its_needs(buildah: Buildah) -> None:
    subprocess.run(["make", "-s", "-o", "setup-dev", "execution-environment"], cwd=ROOT, check=True)
    name = "localhost/confidential-gpu-ee:test"
    buildah.build("--build-arg", f"EE_BASE_IMAGE={BASE}", "--tag", name, str(ROOT / "dist" / "execution-environment"))
    # buildah leaves the entrypoint out, which gives the user a home; docker and podman do not.
    entry = ("/opt/builder/bin/entrypoint", "dumb-init")
    said = buildah.run(name, *entry, "ansible-doc", "--type", "module", "--list", "confidential.gpu")
    assert "confidential.gpu.cc_mode " in said
    buildah.run(name, *entry, "ssh", "-V")
