# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One device of a confidential guest, offered in many slots: any number of processes may ask it for reports."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..machine import Machine
from ..source import Answer, Device, Mount, Node, Refused
from . import cdi, folder, node
from .config import KINDS, Config, Offered, slot_id
from .reports import Reports

LOG = logging.getLogger(__name__)
# Where a container finds its report folder.
REPORT_VARIABLE = "TSM_REPORT_FOLDER"


class Slots:
    """The resource: see source.Resource."""

    prefers = False

    def __init__(self, offered: Offered, config: Config, machine: Machine, reports: Reports | None) -> None:
        self.name = offered.name
        self._offered = offered
        self._config = config
        self._machine = machine
        self._reports = reports
        self._by_health = {
            healthy: tuple(Device(slot_id(offered.kind, number), healthy) for number in range(offered.slots))
            for healthy in (True, False)
        }
        self.is_present = False
        self.problem = "it was not looked at"
        self._path = ""

    @property
    def paths(self) -> Sequence[str]:
        """Where the device may be."""
        return self._offered.paths

    def look(self) -> None:
        """See whether the device is there, and say so where it changed. Its CDI file comes before it is announced."""
        look = node.look if self._machine.sees_nodes else node.ask_kernel
        path, problem = look(self._offered.paths, KINDS[self._offered.kind].kernel_names, self._machine)
        if not problem and self._config.cdi_folder is not None:
            try:
                if cdi.write(self._machine.at(self._config.cdi_folder), self.name, path):
                    LOG.info("%s: the CDI file names %s.", self.name, path)
            except OSError as error:
                problem = f"the CDI file cannot be written: {error}"
        if problem != self.problem:
            LOG.log(logging.WARNING if problem else logging.INFO, "%s: %s", self.name, problem or f"{path} is healthy")
        self.problem = problem
        if not problem:
            self._path = path
            self.is_present = True

    def devices(self) -> Sequence[Device]:
        """All slots, of one health."""
        return self._by_health[not self.problem]

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        """One slot is as good as another."""
        return [*must, *(one for one in available if one not in must)][:size]

    def allocate(self, ids: Sequence[str]) -> Answer:
        """The device, the folder of sockets, and a report folder, as configured."""
        self.look()
        if self.problem:
            raise Refused("unhealthy", self.problem)
        mounts, environment = [], {}
        if self._config.folder is not None:
            try:
                folder.ensure(self._config.folder, self._machine)
            except folder.BadFolder as error:
                raise Refused("socket-folder", str(error)) from error
            place = self._config.folder.path
            mounts.append(Mount(place, place, self._config.folder.read_only))
        if self._reports is not None and self._config.reports is not None:
            mounts.append(self._report_folder(self._reports, ids))
            environment[REPORT_VARIABLE] = mounts[-1].container_path
        if self._config.cdi_folder is not None:
            return Answer(environment, mounts, cdi=(cdi.qualified(self.name),))
        return Answer(environment, mounts, nodes=(Node(self._path, self._path),))

    def _report_folder(self, reports: Reports, ids: Sequence[str]) -> Mount:
        assert self._config.reports is not None
        try:
            name = reports.make(self.name, min(ids))
        except OSError as error:
            raise Refused("report-folder", f"no report folder could be made: {error}") from error
        return Mount(self._config.reports.container_path, f"{self._config.reports.path}/{name}")
