# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The devices that the device plugin is measured with: of each source, how they are offered, go and come back."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path

from fake_kubelet.node import CONFIG, TDX, Node
from fake_nvml.driver import GPU_IS_LOST, Driver, build, uuid

# As many as a node has pods.
SLOTS = 110
GPUS = 8
STATE = "run/device-plugin-gpu"
# An error of a program, which makes no GPU unhealthy. It ends NVML's wait all the same.
HARMLESS, SERIOUS = 31, 79


class Devices(ABC):
    """On a node. ``resource`` is offered in ``slots`` of them, all of which depend on what goes and comes back."""

    source: str
    resource: str
    threads: int
    wakes_per_s: float  # of the other threads
    flip: str  # what a change of health is

    def __init__(self, node: Node) -> None:
        self.node = node

    @abstractmethod
    def offer(self, slots: int) -> None:
        """By the configuration."""

    @abstractmethod
    def sicken(self) -> int:
        """A device is unhealthy from now on; how many slots that are."""

    @abstractmethod
    def heal(self) -> None:
        """It is healthy again."""

    @abstractmethod
    def leave(self) -> int:
        """A device goes; how many slots have none now."""

    @abstractmethod
    def come_back(self) -> None:
        """It is there again."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is measured any more."""


class Guest(Devices):
    """The device of a TDX guest."""

    source, resource = "tee", TDX
    threads, wakes_per_s = 1, 0.0
    flip = "the longest; the device goes and comes back"

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        node.add_device()
        self._slots = 0

    def offer(self, slots: int) -> None:
        self._slots = slots
        self.node.configure({"resources": [{**CONFIG["resources"][0], "slots": slots}]})

    def sicken(self) -> int:
        self.node.remove_device()
        return self._slots

    def heal(self) -> None:
        self.node.add_device()

    leave, come_back = sicken, heal

    def close(self) -> None:
        return


class Shares(Devices):
    """GPUs in time slices."""

    source, resource = "gpu", "nvidia.com/gpu"
    # The second thread waits for NVML, a second at a time.
    threads, wakes_per_s = 2, 3.0
    flip = "the longest; an XID, and its verdict removed"

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._library = tempfile.TemporaryDirectory(prefix="nvml")
        self.driver = Driver(node.root, node.sys, build(Path(self._library.name)), GPUS)
        self._replicas = 0

    def offer(self, slots: int) -> None:
        self._replicas = -(-slots // GPUS)
        every = [{"name": self.resource, "replicas": self._replicas}]
        self.node.configure({"version": "v1", "sharing": {"timeSlicing": {"resources": every}}})

    def sicken(self) -> int:
        self.driver.xid(uuid(0), SERIOUS)
        return self._replicas

    def heal(self) -> None:
        (self.node.root / STATE / f"{uuid(0)}.json").unlink()

    def leave(self) -> int:
        self.driver.gpus(range(1, GPUS))
        self.driver.xid(uuid(1), HARMLESS)
        return self._replicas

    def come_back(self) -> None:
        self.driver.gpus(range(GPUS))
        self.driver.xid(uuid(1), HARMLESS)

    def lose_driver(self) -> None:
        """It does not answer."""
        self.driver.says("lost", GPU_IS_LOST)
        self.driver.xid(uuid(1), HARMLESS)

    def find_driver(self) -> None:
        """It answers again."""
        self.driver.says("lost", 0)

    def close(self) -> None:
        self.driver.close()
        self._library.cleanup()


SOURCES: dict[str, type[Devices]] = {one.source: one for one in (Guest, Shares)}
