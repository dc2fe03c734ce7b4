# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The source ``gpu``: GPUs, whole and shared in time."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from weakref import WeakValueDictionary

from ..inotify import Watch
from ..machine import Machine
from ..messages import most
from ..refusal import BadConfig
from ..source import Held
from . import announced, cdi
from .config import GPU, Config, parse, share_id
from .monitor import Monitor
from .resource import Gpus
from .seen import Gpu
from .verdicts import Verdicts
from .xids import Xids

LOG = logging.getLogger(__name__)
# As long as each GPU's.
ANY = "GPU-00000000-0000-0000-0000-000000000000"
# Of the host; a boot empties it.
STATE = "/run/device-plugin-gpu"
# One for the process: it stays when the configuration changes.
_MONITORS: WeakValueDictionary[tuple[Machine, str], Monitor] = WeakValueDictionary()


class Shares:
    """See source.Source."""

    def __init__(self, config: Config, file: str, machine: Machine, monitor: Monitor, verdicts: Verdicts) -> None:
        self._config = config
        self._file = file
        self._machine = machine
        self._monitor = monitor
        self._verdicts = verdicts
        # NVIDIA's plugin writes specifications of its own.
        names_matter = config.names_cdi and machine.offers
        self._specs = cdi.Specs([machine.at(one) for one in cdi.FOLDERS]) if names_matter else None
        names = dict.fromkeys([GPU, *(one.name for one in config.shared)])
        self._resources = {name: Gpus(name, config, machine, monitor) for name in names}
        self._watches: list[Watch] = []
        self._unhealthy: list[str] = []
        self._changed: Callable[[], None] = lambda: None
        self.collects = False

    @property
    def problem(self) -> str:
        """What is not offered at all, or that no GPU is healthy. A single one that is not stands in log and metrics."""
        healthy = any(device.healthy for one in self._resources.values() for device in one.devices())
        forbidden = [f"{one.name}: {one.problem}" for one in self._resources.values() if one.problem]
        return self._monitor.problem or "; ".join([*forbidden, *(() if healthy else self._unhealthy)])

    def resources(self) -> Sequence[Gpus]:
        """All of them."""
        return list(self._resources.values())

    def start(self, changed: Callable[[], None]) -> None:
        """Read the verdicts, and watch."""
        try:
            self._verdicts.start()
        except OSError as error:
            remedy = f"Mount {STATE} of the host into this container: verdicts on GPUs are kept there."
            raise BadConfig(self._file, "", str(error), remedy) from error
        self._changed = changed
        watch = self._machine.watcher.watch
        self._watches = [watch(self._verdicts.folder, self._judged)]
        if self._specs is not None:
            self._watches += [watch(one, self._look, writes=True) for one in self._specs.folders]
        self._monitor.join(self._look)
        self._look()

    def stop(self) -> None:
        """Watch no more."""
        for watch in self._watches:
            self._machine.watcher.end(watch)
        if self._watches:
            self._monitor.leave(self._look)
        self._watches = []

    def withheld(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
        """While the mode of the GPUs is being changed, or is not known."""
        return announced.withheld(labels, annotations)

    def collect(self, held: Held) -> None:
        """Nothing is left of a container."""

    def _judged(self) -> None:
        self._monitor.judge()
        self._look()

    def _look(self) -> None:
        names = self._specs.names() if self._specs is not None else None
        before, self._unhealthy = self._unhealthy, []
        of: dict[str, list[tuple[Gpu, int]]] = {name: [] for name in self._resources}
        for gpu in self._monitor.gpus:
            name, replicas = self._offered(gpu)
            of[name].append((gpu, replicas))
        for name, shares in of.items():
            resource = self._resources[name]
            resource.problem = self._forbidden(shares)
            self._unhealthy += resource.look(shares, names)
        for one in self._unhealthy:
            if one not in before:
                LOG.warning("%s.", one)
        if before and not self._unhealthy:
            LOG.info("All GPUs are healthy.")
        self._changed()

    def _offered(self, gpu: Gpu) -> tuple[str, int]:
        """Under which name, and how often. One that is named goes before the rest of them."""
        for one in self._config.shared:
            if not one.devices or {gpu.uuid, str(gpu.index)} & one.devices:
                return one.name, one.replicas
        return GPU, 1

    def _forbidden(self, shares: Sequence[tuple[Gpu, int]]) -> str:
        if not self._monitor.confidential or self._config.share_confidential or all(one == 1 for _gpu, one in shares):
            return ""
        return (
            "confidential computing is on, and shares of a GPU are neither in memory nor in faults apart from each "
            "other; they are not offered. Remove sharing.timeSlicing, or set confidential.allowSharing: true"
        )


def make(text: str, file: str, machine: Machine, environment: Mapping[str, str] | None = None) -> Shares:
    """Raises BadConfig, and BadSetting for the variables of NVIDIA's plugin."""
    config = parse(text, file)
    _check_sizes(config, file)
    key = (machine, config.driver_root)
    verdicts = Verdicts(machine.at(STATE))
    monitor = _MONITORS.get(key)
    if monitor is None:
        xids = Xids(os.environ if environment is None else environment)
        monitor = _MONITORS[key] = Monitor(
            machine.at(config.driver_root), machine.sys / "bus/pci/devices", verdicts, xids
        )
    return Shares(config, file, machine, monitor, verdicts)


def _check_sizes(config: Config, file: str) -> None:
    """Raises BadConfig for what no node could offer. Of nodes with several GPUs, who knows them says it."""
    fits = most(share_id(ANY, 0)[:-1], (0,))
    for number, one in enumerate(config.shared):
        if one.replicas > fits:
            problem = f"is {one.replicas}, which are more than one message of the kubelet holds, even of one GPU"
            remedy = f"Give at most {fits}, divided by the number of GPUs of a node."
            raise BadConfig(file, f"sharing.timeSlicing.resources[{number}].replicas", problem, remedy)
