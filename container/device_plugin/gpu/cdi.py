# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the container runtime knows of GPUs: specifications of the Container Device Interface that others wrote.

nvidia-ctk and Talos' extension write the kind nvidia.com/gpu, with devices by index, by UUID, and `all`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import yaml

KIND = "nvidia.com/gpu"
FOLDERS = ("/etc/cdi", "/var/run/cdi", "/run/cdi")
Mark = tuple[int, int, int]


class Specs:
    """The names of devices in these folders. A file is read again when it is another."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._known: dict[Path, tuple[Mark, frozenset[str]]] = {}

    def names(self) -> frozenset[str]:
        """Of all devices of the kind."""
        known: dict[Path, tuple[Mark, frozenset[str]]] = {}
        for folder in self.folders:
            for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.json")]):
                with contextlib.suppress(OSError):
                    status = path.stat()
                    mark = (status.st_ino, status.st_mtime_ns, status.st_size)
                    before = self._known.get(path)
                    known[path] = before if before is not None and before[0] == mark else (mark, _names(path))
        self._known = known
        return frozenset().union(*(names for _mark, names in known.values()))


def _names(path: Path) -> frozenset[str]:
    """Raises OSError. A file that is no specification has no names: the runtime takes nothing from it either."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if KIND not in text:
        return frozenset()
    try:
        spec = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return frozenset()
    if not isinstance(spec, dict) or spec.get("kind") != KIND or not isinstance(spec.get("devices"), list):
        return frozenset()
    return frozenset(str(one["name"]) for one in spec["devices"] if isinstance(one, dict) and "name" in one)
