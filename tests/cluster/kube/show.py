# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What a person sees of a change: the node's labels before, during and after, as kubectl prints them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tools import image

from . import workloads
from .bed import CHANGING, MODE, NODE, READY, STATE, annotations_of, bed, is_settled
from .cluster import running

COLUMNS = (MODE, STATE, READY)
SHOWN = "kubectl get nodes -L " + ",".join(COLUMNS)


def show() -> None:
    """A cluster, eight H100 with the default timing, the image of this working tree, one change."""
    with tempfile.TemporaryDirectory() as folder, running() as cluster:
        archive = Path(folder, "cc-manager.tar")
        image.build(workloads.IMAGE, archive)
        cluster.load(archive)
        cluster.apply(workloads.namespace())

        def nodes() -> None:
            print(f"$ {SHOWN}\n{cluster.kubectl(*SHOWN.split()[1:])}", flush=True)

        with bed(cluster, flr_s=0.1, boot_s=2.0) as node:
            node.start()
            node.until(lambda found: is_settled(found, "off"))
            node.wait_for_components()
            nodes()
            print(f"$ kubectl label node {NODE} {MODE}=on\n{cluster.kubectl('label', 'node', NODE, f'{MODE}=on')}")
            node.until(lambda found: CHANGING in annotations_of(found))
            nodes()
            node.until(lambda found: is_settled(found, "on"))
            nodes()
