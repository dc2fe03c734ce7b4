# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which of several configurations holds: a folder with a file for each, and a label of the node with the name of one.

Label and rules are those of the config-manager of NVIDIA's device plugin 0.20.0, whose fallback strategies are `named`
and `single`: without the label the default; without a default the one named `default`; without that the only one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .refusal import BadConfig

LABEL = "nvidia.com/device-plugin.config"
DEFAULT = "default"


def chosen(folder: Path, labels: Mapping[str, str], default: str) -> Path:
    """The file. Raises BadConfig."""
    there = names(folder)
    asked = labels.get(LABEL, "")
    name = asked or default or (DEFAULT if DEFAULT in there or len(there) != 1 else there[0])
    if name in there:
        return folder / name
    who = f"the node's label {LABEL}" if asked else "DEVICE_PLUGIN_DEFAULT_CONFIG" if default else "nobody"
    known = f"There are: {', '.join(there)}." if there else "There is none at all."
    remedy = f"Label the node with one of them. {known}" if there else f"Mount configurations there. {known}"
    if asked or default:
        raise BadConfig(str(folder), "", f"has no configuration {name!r}, which {who} asks for", remedy)
    raise BadConfig(str(folder), "", f"has no configuration {name!r}, and {who} asks for another", remedy)


def names(folder: Path) -> list[str]:
    """Of the configurations. A mounted ConfigMap has hidden files beside them. Raises BadConfig."""
    try:
        return sorted(one.name for one in folder.iterdir() if not one.name.startswith(".") and one.is_file())
    except OSError as error:
        raise BadConfig(
            str(folder), "", f"cannot be read: {error.strerror}", "Mount it, or set DEVICE_PLUGIN_CONFIGS."
        ) from error
