# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which GPUs had an error that makes them unhealthy: a file for each, which outlives this process and the kubelet.

The host's next boot ends it, and whoever has reset the GPU and takes the file away; and the driver, if it had said of
the GPU that it needs a reset, and says so no longer. Nothing else does: a driver that answers again says nothing about
a GPU whose memory failed.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from .seen import RESET

SUFFIX, TEMPORARY = ".json", ".tmp"
# Where the error told no GPU: all are meant.
EVERY = "all"
AWAITS = "awaits"
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Verdicts:
    """The folder with the files. It is of this boot: ``boot`` is the file with the kernel's own name for it."""

    def __init__(self, folder: Path, boot: Path = BOOT) -> None:
        self.folder = folder
        self._boot = boot
        self._unwritten: dict[str, str] = {}

    def start(self) -> None:
        """Make the folder; remove what an earlier boot or a killed process left. Raises OSError."""
        self.folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for path in self.folder.iterdir():
            if path.name.endswith(TEMPORARY) or (path.suffix == SUFFIX and self._is_of_earlier_boot(path)):
                path.unlink(missing_ok=True)

    def add(self, uuid: str, reason: str) -> None:
        """This GPU is unhealthy. Raises OSError; the verdict holds in this process all the same."""
        self._unwritten[uuid] = reason
        about: dict[str, object] = {"gpu": uuid, "reason": reason, "boot": self._boot_id(), "time": int(time.time())}
        if self.awaits_reset(uuid):
            about[AWAITS] = RESET
        self._write(uuid, about)
        del self._unwritten[uuid]

    def await_reset(self, uuid: str) -> None:
        """The driver says that this GPU, on which there is a verdict, needs a reset. Raises OSError."""
        self._write(uuid, {**_read(self._path(uuid)), AWAITS: RESET})

    def awaits_reset(self, uuid: str) -> bool:
        """Whether the driver has said so since the verdict, to this process or to one before it."""
        return _read(self._path(uuid)).get(AWAITS) == RESET

    def clear(self, uuid: str) -> None:
        """The verdict is over. Raises OSError."""
        self._unwritten.pop(uuid, None)
        self._path(uuid).unlink(missing_ok=True)

    def _path(self, uuid: str) -> Path:
        return self.folder / f"{uuid}{SUFFIX}"

    def _write(self, uuid: str, about: Mapping[str, object]) -> None:
        descriptor, temporary = tempfile.mkstemp(dir=self.folder, suffix=TEMPORARY)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(about, file)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)
            os.replace(temporary, self._path(uuid))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def all(self) -> Mapping[str, str]:
        """UUID, or EVERY, to the reason. A file that cannot be read is a verdict, too."""
        found = dict(self._unwritten)
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.folder.glob(f"*{SUFFIX}")):
                found.setdefault(path.stem, _reason(path))
        return found

    def _is_of_earlier_boot(self, path: Path) -> bool:
        about = _read(path)
        return isinstance(about.get("boot"), str) and about["boot"] != self._boot_id()

    def _boot_id(self) -> str:
        return self._boot.read_text(encoding="ascii").strip()


def _read(path: Path) -> dict[str, object]:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _reason(path: Path) -> str:
    return str(_read(path).get("reason") or f"{path.name} cannot be read")
