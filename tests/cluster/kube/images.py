# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The container images of the cluster's own pods: one static program, /bin/busybox, under every name it knows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.vm.bench.cache import finished

from .programs import BIN, CACHE, NotPossible
from .settings import BUSYBOX

PROGRAM = Path("/bin/busybox")
# The pause container only holds the pod's network; it waits until it is killed.
CONTAINERFILE = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "/bin"]
ENTRYPOINT ["/bin/sleep", "2147483647"]
"""


def archive() -> Path:
    """A docker archive; built when it is not in the cache."""
    ingredients = [CONTAINERFILE, BUSYBOX, PROGRAM.stat().st_size]
    return finished("busybox", ingredients, _build, CACHE) / "busybox.tar"


def buildah(storage: Path, *arguments: str) -> str:
    """Run buildah with storage of its own; its output. Raises NotPossible with its words."""
    options = ["--root", str(storage / "root"), "--runroot", str(storage / "run"), "--storage-driver", "vfs"]
    environment = {"PATH": BIN, "HOME": str(storage), "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(storage)}
    storage.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["buildah", *options, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotPossible(f"buildah {arguments[0]}: status {done.returncode}: {(done.stderr + done.stdout)[-3000:]}")
    return done.stdout


def _build(folder: Path) -> None:
    context, storage = folder / "context", folder / "storage"
    context.mkdir()
    (context / "busybox").write_bytes(PROGRAM.read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "Containerfile").write_text(CONTAINERFILE)
    buildah(storage, "build", "--quiet", "--file", str(context / "Containerfile"), "--tag", BUSYBOX, str(context))
    buildah(storage, "push", "--quiet", BUSYBOX, f"docker-archive:{folder / 'busybox.tar'}:{BUSYBOX}")
    for scratch in (context, storage):
        shutil.rmtree(scratch)
