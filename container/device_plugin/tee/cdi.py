# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The Container Device Interface: a file that tells the container runtime what a qualified name stands for.

A device given so belongs to the user that the container runs as; given by the kubelet's DeviceSpec it keeps the
host's owner and mode, root and 0600, and is of no use to anybody else. containerd reads these files from 2.0 on
without being told to.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

DEVICE = "guest"
# The oldest version of the format; nothing newer is used.
VERSION = "0.3.0"
TEMPORARY = ".tmp"


def kind(resource: str) -> str:
    """A kind of our own: others may have one by the resource's name."""
    return f"k8s.device-plugin.{resource}"


def qualified(resource: str) -> str:
    """What the runtime is asked for."""
    return f"{kind(resource)}={DEVICE}"


def file_name(resource: str) -> str:
    """Of the resource's file."""
    return kind(resource).replace("/", "-") + ".json"


def start(folder: Path, resources: list[str]) -> None:
    """Make the folder, and remove what was half written when a process was killed. Raises OSError."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for resource in resources:
        for left in folder.glob(f".{file_name(resource)}.*{TEMPORARY}"):
            with contextlib.suppress(FileNotFoundError):
                left.unlink()


def write(folder: Path, resource: str, path: str) -> bool:
    """Say that the resource's device is this node, if it does not stand there yet; whether it was written.

    It is never removed: containers that are to start again still ask for it. Raises OSError.
    """
    edits = {"deviceNodes": [{"path": path, "type": "c", "permissions": "rw"}]}
    spec = {"cdiVersion": VERSION, "kind": kind(resource), "devices": [{"name": DEVICE, "containerEdits": edits}]}
    text = json.dumps(spec, indent=2) + "\n"
    place = folder / file_name(resource)
    with contextlib.suppress(OSError, ValueError):
        if place.read_text(encoding="utf-8") == text:
            return False
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=f".{place.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return True
