# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The host that devices are on, as it is seen from here, and events of its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .inotify import Watcher


@dataclass(frozen=True)
class Machine:
    """``root``: where the host's folders are mounted. ``sys``: the kernel's own, which each container has.

    ``sees_nodes``: whether the host's /dev is among those folders. A pod in a user namespace cannot have it.
    ``offers``: whether containers get devices from here, or from another plugin, whose ways are its own.
    """

    root: Path
    sys: Path
    watcher: Watcher
    sees_nodes: bool = True
    offers: bool = True

    def at(self, path: str) -> Path:
        """Where a path of the host is seen."""
        return self.root / path.lstrip("/")
