# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Container images by buildah, without its daemons, its network, or the user's own storage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tools.needs import run


def docker_archive(context: Path, scratch: Path, tag: str, out: Path, options: Sequence[str] = ()) -> None:
    """Build the Containerfile of a folder, and put the image there whole. Raises NotPossible with buildah's words."""
    storage = ["--root", str(scratch / "root"), "--runroot", str(scratch / "run"), "--storage-driver", "vfs"]
    buildah = ["buildah", *storage]
    environment = {"HOME": str(scratch), "TMPDIR": str(scratch)}
    run([*buildah, "build", "--quiet", "--isolation", "chroot", "--tag", tag, *options, str(context)], "", environment)
    draft = scratch / "image.tar"
    run([*buildah, "push", "--quiet", tag, f"docker-archive:{draft}:{tag}"], "", environment)
    draft.replace(out)
