# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One extended resource of GPUs, whole ones or shares of them, with the ids of NVIDIA's device plugin."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..machine import Machine
from ..source import SEPARATOR, Answer, Device, Mount, Node, Refused
from . import cdi
from .config import ANNOTATIONS, CDI, ENVIRONMENT, MOUNTS, PACKED, UUID, Config, share_id
from .monitor import Monitor
from .seen import Gpu

VARIABLE = "NVIDIA_VISIBLE_DEVICES"
# For volume-mounts: NVIDIA's runtime takes the names of what is mounted there, which no image can set.
NAMES_FOLDER = "/var/run/nvidia-container-devices"
CONTROL = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


class Gpus:
    """See source.Resource. ``shares`` says how many of a GPU there are, 1: it is whole; one that it lacks is not of it.

    ``known``: names of the container runtime's specifications, or None where they do not matter.
    """

    def __init__(self, name: str, config: Config, machine: Machine, monitor: Monitor) -> None:
        self.name = name
        self._config = config
        self._machine = machine
        self._monitor = monitor
        self._gpus: dict[str, Gpu] = {}
        self._shares: Mapping[str, int] = {}
        self._devices: tuple[Device, ...] = ()
        self.problem = ""

    @property
    def is_present(self) -> bool:
        """Once there was a GPU for it, and while nothing forbids it."""
        return bool(self._gpus) and not self.problem

    @property
    def prefers(self) -> bool:
        """Of whole GPUs one is as good as another."""
        return any(one > 1 for one in self._shares.values())

    def look(self, shares: Sequence[tuple[Gpu, int]], names: frozenset[str] | None) -> list[str]:
        """These GPUs are of it. What is wrong with them."""
        self._gpus = {one.uuid: one for one, _replicas in shares}
        self._shares = {one.uuid: replicas for one, replicas in shares}
        problems = []
        devices: list[Device] = []
        for gpu, replicas in shares:
            why = self._monitor.why_not(gpu)
            if not why and names is not None and self._id(gpu) not in names:
                why = f"no CDI specification of the container runtime has {cdi.KIND}={self._id(gpu)}"
            if why:
                problems.append(f"{self.name}: GPU {gpu.uuid}: {why}")
            devices += _shares(gpu.uuid, replicas, not why, gpu.numa)
        if tuple(devices) != self._devices:
            self._devices = tuple(devices)
        return problems

    def devices(self) -> Sequence[Device]:
        """All shares of a GPU have the health of the GPU."""
        return self._devices

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        """One after the other from the GPU with the fewest shares taken; packed: with the most."""
        chosen = list(must)[:size]
        free = [one for one in available if one not in set(chosen)]
        taken = dict(self._shares)
        taken = {uuid: taken[uuid] - count for uuid, count in Counter(map(_uuid, free)).items() if uuid in taken}
        while free and len(chosen) < size:
            sign = -1 if self._config.policy == PACKED else 1
            best = min(free, key=lambda one: sign * taken.get(_uuid(one), 0))
            free.remove(best)
            chosen.append(best)
            taken[_uuid(best)] = taken.get(_uuid(best), 0) + 1
        return chosen

    def allocate(self, ids: Sequence[str]) -> Answer:
        """Each GPU once, however many shares of it."""
        if self._config.fail_above_one and self.prefers and len(ids) > 1:
            text = f"{len(ids)} shares were asked for, and failRequestsGreaterThanOne is set: a second brings nothing"
            raise Refused("more-than-one", text)
        gpus = []
        for uuid in dict.fromkeys(map(_uuid, ids)):
            if uuid not in self._gpus:
                raise Refused("unknown", f"there is no GPU {uuid!r}")
            gpus.append(self._gpus[uuid])
        names = [self._id(one) for one in gpus]
        qualified = tuple(f"{cdi.KIND}={one}" for one in names)
        strategies = self._config.strategies
        return Answer(
            environment=self._variable(names),
            mounts=[Mount(f"{NAMES_FOLDER}/{one}", "/dev/null") for one in names] if MOUNTS in strategies else (),
            nodes=self._nodes(gpus) if self._config.pass_nodes and not self._config.is_cdi_alone else (),
            annotations={self._annotation: ",".join(qualified)} if ANNOTATIONS in strategies else {},
            cdi=qualified if CDI in strategies else (),
        )

    def _variable(self, names: Sequence[str]) -> Mapping[str, str]:
        """With both strategies the mounts win, as with NVIDIA's plugin."""
        if MOUNTS in self._config.strategies:
            return {VARIABLE: NAMES_FOLDER}
        return {VARIABLE: ",".join(names)} if ENVIRONMENT in self._config.strategies else {}

    @property
    def _annotation(self) -> str:
        """One for each resource: a container can have several."""
        return f"{self._config.annotation_prefix}device-plugin_{self.name.partition('/')[2]}"

    def _id(self, gpu: Gpu) -> str:
        return gpu.uuid if self._config.ids == UUID else str(gpu.index)

    def _nodes(self, gpus: Sequence[Gpu]) -> Sequence[Node]:
        """Those of the driver that there are, and those of the GPUs."""
        control = [one for one in CONTROL if not self._machine.sees_nodes or self._machine.at(one).exists()]
        return [Node(one, one) for one in (*control, *(f"/dev/nvidia{gpu.minor}" for gpu in gpus))]


def _shares(uuid: str, replicas: int, healthy: bool, numa: tuple[int, ...]) -> list[Device]:
    ids = [uuid] if replicas == 1 else [share_id(uuid, one) for one in range(replicas)]
    return [Device(one, healthy, numa) for one in ids]


def _uuid(share: str) -> str:
    return share.partition(SEPARATOR)[0]
