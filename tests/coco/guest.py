# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Images of guests with stand-ins of NVIDIA's programs, which say what the real ones would, or what they never should.

nvattest proves nothing: it takes a nonce of 64 hexadecimal digits, tells it, and ends as its kind does.
"""

from __future__ import annotations

import shutil

from tests.cluster.kube import images
from tools.buildah import docker_archive

from .bench import MIRROR, Bench

SMI = """#!/bin/sh
case "$2" in
-f) echo "CC status: {state}" ;;
-grs) echo "Confidential Compute GPUs Ready state: ready" ;;
*) echo "$2 is not known" >&2; exit 2 ;;
esac
"""
ATTEST = """#!/bin/sh
[ "$1 $2 $3 $4 $5 $6" = "attest --device gpu --verifier local --nonce" ] || exit 2
echo "$7" | grep -Eq '^[0-9a-f]{{64}}$' || exit 2
echo "nonce $7"
exit {status}
"""
# What GPU's state and nvattest's status are; None: the image has no nvattest.
KINDS = {"good": ("ON", 0), "off": ("OFF", 0), "bad-evidence": ("ON", 3), "no-nvattest": ("ON", None)}


def guest_image(bench: Bench, kind: str) -> str:
    """The name of the image, which the node has."""
    state, status = KINDS[kind]
    name = f"{MIRROR}/guest:{kind}"
    folder = bench.folder / f"guest-{kind}"
    if folder.exists():
        return name
    context, storage = folder / "context", folder / "storage"
    context.mkdir(parents=True)
    storage.mkdir()
    (context / "busybox").write_bytes(images.PROGRAM.read_bytes())
    programs = {"nvidia-smi": SMI.format(state=state)}
    if status is not None:
        programs["nvattest"] = ATTEST.format(status=status)
    for program, text in programs.items():
        (context / program).write_text(text)
    for file in context.iterdir():
        file.chmod(0o755)
    copied = " ".join(["busybox", *programs])
    install = 'RUN ["/bin/busybox", "--install", "/bin"]'
    (context / "Containerfile").write_text(f"FROM scratch\nCOPY {copied} /bin/\n{install}\n")
    docker_archive(context, storage, name, folder / "guest.tar")
    bench.cluster.load(folder / "guest.tar")
    shutil.rmtree(storage)
    return name


__all__ = ["guest_image"]
