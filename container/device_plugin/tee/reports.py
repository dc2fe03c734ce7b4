# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Report folders of configfs-tsm (Linux 6.7 and later): one for each container, named after its slot.

The kernel makes the files of such a folder when the folder is made, and takes them away with it. Two that share one
would overwrite each other's nonce. Only root in the container can write them.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from ..source import Held

LOG = logging.getLogger(__name__)
PREFIX = "device-plugin-"
# The kubelet names a container's devices some time after Allocate, and some time after its own start.
GRACE_S = 60.0


class Reports:
    """The folders of these resources, below one folder."""

    def __init__(self, folder: Path, now: Callable[[], float] = time.monotonic, grace_s: float = GRACE_S) -> None:
        self._folder = folder
        self._now = now
        self._grace_s = grace_s
        self._last_known: dict[str, float] = {}  # when it was made, or last listed

    def start(self) -> None:
        """What an earlier process left counts as made now. Raises OSError without configfs-tsm."""
        self._last_known = dict.fromkeys(self._names(), self._now())

    def _names(self) -> list[str]:
        with os.scandir(self._folder) as found:
            return [one.name for one in found if one.name.startswith(PREFIX) and one.is_dir()]

    @property
    def is_empty(self) -> bool:
        """True when nothing is left to collect."""
        return not self._last_known

    def make(self, resource: str, slot: str) -> str:
        """A new folder for a container that gets this slot; its name. Raises OSError.

        Whoever had the slot has ended, or the kubelet would not give it away: what that one left is removed.
        """
        name = name_of(resource, slot)
        if name in self._last_known or (self._folder / name).exists():
            os.rmdir(self._folder / name)
        os.mkdir(self._folder / name)
        self._last_known[name] = self._now()
        return name

    def collect(self, held: Held) -> None:
        """Remove the folders that no container has had for a while. One that cannot be removed is tried again.

        During an update another instance makes some, too: they count from when they are first seen.
        """
        try:
            names = self._names()
        except OSError as error:
            LOG.warning("Report folders cannot be listed: %s", error)
            return
        for name in names:
            self._last_known.setdefault(name, self._now())
        kept = {name_of(resource, slot) for resource, slots in held.items() for slot in slots}
        for name, last_known in list(self._last_known.items()):
            if name in kept:
                self._last_known[name] = self._now()
            if name in kept or self._now() - last_known < self._grace_s:
                continue
            try:
                os.rmdir(self._folder / name)
            except FileNotFoundError:
                pass
            except OSError as error:
                LOG.warning("The report folder %s cannot be removed: %s", name, error)
                continue
            del self._last_known[name]
            LOG.info("Removed the report folder %s, which no container has.", name)


def name_of(resource: str, slot: str) -> str:
    """device-plugin-tdx.intel.com_tdx-guest-tdx-guest-7"""
    return f"{PREFIX}{resource.replace('/', '_')}-{slot}"
