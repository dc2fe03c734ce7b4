# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a source of devices gives to the engine, and what the engine tells it.

A source knows nothing of gRPC or sockets. A source is made from the text of its configuration (see ``sources``), or
refuses it with BadConfig. It notices by itself when something about its devices changes, by an event where there is
one, and then calls what it was given at its start. All calls come in the thread of the event loop and do not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

# Resource name to the ids of the devices that containers have.
Held = Mapping[str, frozenset[str]]


# Between the id of a device and the number of one of its shares, as in NVIDIA's plugin.
SEPARATOR = "::"


class Device(NamedTuple):
    """One device, or one share of it. ``numa``: the nodes of memory that it is near to, if it is near to any."""

    id: str
    healthy: bool = True
    numa: tuple[int, ...] = ()


class Mount(NamedTuple):
    """A folder or file of the host in the container."""

    container_path: str
    host_path: str
    read_only: bool = False


class Node(NamedTuple):
    """A device node of the host in the container, with permissions of r, w and m."""

    container_path: str
    host_path: str
    permissions: str = "rw"


@dataclass(frozen=True)
class Answer:
    """What a container gets. ``cdi``: qualified names, vendor/class=name."""

    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    nodes: Sequence[Node] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    cdi: Sequence[str] = ()


class Refused(Exception):
    """A container does not get its devices. The kubelet never asks again for that pod: only where nothing else is true.

    ``reason``: a word for the metric; the text is for people.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Resource(Protocol):
    """One extended resource."""

    @property
    def name(self) -> str:
        """With its domain: tdx.intel.com/tdx-guest."""
        ...

    @property
    def is_present(self) -> bool:
        """False until there was a device for it since the start: it is not registered before."""
        ...

    @property
    def prefers(self) -> bool:
        """Whether ``prefer`` is to be asked."""
        ...

    def devices(self) -> Sequence[Device]:
        """All of them, now. Equal answers may be one object."""
        ...

    def allocate(self, ids: Sequence[str]) -> Answer:
        """For one container, which gets these healthy devices. Raises Refused, or OSError."""
        ...

    def prefer(self, available: Sequence[str], must: Sequence[str], size: int) -> Sequence[str]:
        """The best ``size`` of the available ids, among them all of ``must``."""
        ...


class Source(Protocol):
    """Where devices come from."""

    @property
    def collects(self) -> bool:
        """True while something lies about that is to go when no container has its device any more."""
        ...

    @property
    def problem(self) -> str:
        """Why nothing, or not everything, can be offered; empty if all is well."""
        ...

    def resources(self) -> Sequence[Resource]:
        """All that may be offered, as configured."""
        ...

    def start(self, changed: Callable[[], None]) -> None:
        """Mend what an earlier process left, make what devices need, and call ``changed`` when answers may differ.

        Raises BadConfig for what the machine does not allow, and then nothing was started.
        """
        ...

    def stop(self) -> None:
        """Call nothing any more. What containers use stays."""
        ...

    def collect(self, held: Held) -> None:
        """What containers have, as the kubelet just said."""
        ...

    def withheld(self, labels: Mapping[str, str], annotations: Mapping[str, str]) -> str:
        """Why the node, by what it says, is to give no device to anybody now; empty: it may."""
        ...
