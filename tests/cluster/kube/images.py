# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The container images of the cluster's own pods: one static program, /bin/busybox, under every name it knows."""

from __future__ import annotations

import shutil
from pathlib import Path

from tools.buildah import docker_archive
from tools.cache import finished

from .programs import CACHE
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


def _build(folder: Path) -> None:
    context, storage = folder / "context", folder / "storage"
    context.mkdir()
    (context / "busybox").write_bytes(PROGRAM.read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "Containerfile").write_text(CONTAINERFILE)
    storage.mkdir()
    docker_archive(context, storage, BUSYBOX, folder / "busybox.tar")
    for scratch in (context, storage):
        shutil.rmtree(scratch)
