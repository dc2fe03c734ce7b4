# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The source ``tee``: everything about devices of confidential guests put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from ..inotify import Watch
from ..machine import Machine
from ..messages import most
from ..refusal import BadConfig
from ..source import Held
from . import cdi, folder, max_pods, node
from .config import Config, parse, slot_id
from .reports import Reports
from .slots import Slots

LOG = logging.getLogger(__name__)
# Where the host's /dev is not to be seen.
LOOK_S = 1.0


class Tee:
    """See source.Source."""

    def __init__(self, config: Config, file: str, machine: Machine) -> None:
        self._config = config
        self._file = file
        self._machine = machine
        self._reports = Reports(machine.at(config.reports.path)) if config.reports is not None else None
        self._slots = [Slots(one, config, machine, self._reports) for one in config.resources]
        self._watches: list[Watch] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def collects(self) -> bool:
        """True while there are report folders."""
        return self._reports is not None and not self._reports.is_empty

    @property
    def problem(self) -> str:
        """Without a single device there is nothing to offer."""
        if any(one.is_present for one in self._slots):
            return ""
        return "; ".join(f"{one.name}: {one.problem}" for one in self._slots)

    def resources(self) -> Sequence[Slots]:
        """All of them."""
        return self._slots

    def start(self, changed: Callable[[], None]) -> None:
        """Make folders, look at the devices, and watch the folders that they are in."""
        self._make_folders()

        def look() -> None:
            for one in self._slots:
                one.look()
            changed()

        if self._machine.sees_nodes:
            places = {str(PurePosixPath(path).parent) for one in self._slots for path in one.paths}
            self._watches = [self._machine.watcher.watch(self._machine.at(place), look) for place in sorted(places)]
        else:
            self._look_by_the_clock(look)
        for one in self._slots:
            one.look()
        how = (
            "by CDI, to the container's user"
            if self._config.cdi_folder
            else "as they are on the host, mostly root's alone"
        )
        LOG.info("Devices are given %s.", how)

    def _look_by_the_clock(self, look: Callable[[], None]) -> None:
        """Of the kernel's list no event tells."""

        def again() -> None:
            self._timer = loop.call_later(LOOK_S, again)
            look()

        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(LOOK_S, again)

    def _make_folders(self) -> None:
        if self._config.folder is not None:
            try:
                folder.ensure(self._config.folder, self._machine)
            except folder.BadFolder as error:
                raise BadConfig(
                    self._file, "socketFolder", str(error).rstrip("."), "Or set socketFolder.enabled: false."
                ) from error
        if self._reports is not None:
            try:
                self._reports.start()
            except OSError as error:
                remedy = "It needs Linux 6.7 and configfs, mounted into this container. Or set reports.enabled: false."
                raise BadConfig(self._file, "reports.path", str(error), remedy) from error
        if self._config.cdi_folder is not None:
            try:
                cdi.start(self._machine.at(self._config.cdi_folder), [one.name for one in self._slots])
            except OSError as error:
                remedy = "Mount that folder of the host into this container. Or set cdi.enabled: false."
                raise BadConfig(self._file, "cdi.folder", str(error), remedy) from error

    def stop(self) -> None:
        """Watch no more."""
        for watch in self._watches:
            self._machine.watcher.end(watch)
        self._watches = []
        if self._timer is not None:
            self._timer.cancel()

    def withheld(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
        """Nothing that a node says is about these devices."""
        return ""

    def collect(self, held: Held) -> None:
        """Remove report folders that no container has."""
        if self._reports is not None:
            self._reports.collect(held)


def make(text: str, file: str, machine: Machine) -> Tee:
    """Raises BadConfig, also for a path at which there is something else than a character device."""
    config = parse(text, file, max_pods.of_kubelet(machine))
    for number, offered in enumerate(config.resources):
        if offered.slots > (fits := most(slot_id(offered.kind, 0)[:-1])):
            problem = f"is {offered.slots}, which are more than one message of the kubelet holds"
            raise BadConfig(file, f"resources[{number}].slots", problem, f"Give at most {fits}.")
        for place, path in enumerate(offered.paths):
            if node.is_no_device(path, machine):
                key = f"resources[{number}].paths[{place}]"
                raise BadConfig(file, key, f"{path} is no character device", "Name the node of the device itself.")
    return Tee(config, file, machine)
