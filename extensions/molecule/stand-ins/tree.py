# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every file below the folders that the roles write to, a line each: mode, owner, and content or target."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

FOLDERS = ("/boot", "/etc", "/opt", "/var/lib/confidential-gpu", "/stand-ins-log", "/sys/bus/pci")


def lines() -> Iterator[str]:
    """All of it, in order."""
    for top in FOLDERS:
        for folder, folders, files in os.walk(top):
            folders.sort()
            for path in (Path(folder, name) for name in sorted([*folders, *files])):
                seen = path.lstat()
                what = os.readlink(path) if path.is_symlink() else ""
                # Of the kernel's own files most cannot be read.
                readable = top != "/sys/bus/pci" or path.name == "driver_override"
                if readable and path.is_file() and not path.is_symlink():
                    what = hashlib.sha256(path.read_bytes()).hexdigest()
                yield f"{path} {seen.st_mode:o} {seen.st_uid} {seen.st_gid} {what}"


if __name__ == "__main__":
    print("\n".join(lines()))
