# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Make the collection importable under its full name, whatever the repository's folder is called; the emulator too."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def register_collection(root: Path) -> None:
    """Register ``ansible_collections.confidential.gpu`` in memory, unless Ansible's own finder is at work."""
    if any(type(finder).__name__ == "_AnsibleCollectionFinder" for finder in sys.meta_path):
        return
    places = {
        "ansible_collections": [],
        "ansible_collections.confidential": [],
        "ansible_collections.confidential.gpu": [str(root)],
    }
    for name, locations in places.items():
        package = types.ModuleType(name)
        package.__path__ = locations
        package.__spec__ = importlib.machinery.ModuleSpec(name, loader=None, is_package=True)
        package.__spec__.submodule_search_locations = locations
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)


register_collection(ROOT)
for folder in ("gpu-admin-tools", "container", "tests"):
    sys.path.insert(0, str(ROOT / folder))
