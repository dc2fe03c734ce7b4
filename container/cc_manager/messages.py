# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the controller is told, by the threads that wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .node import Node
from .pod import Pod


@dataclass(frozen=True)
class NodeSeen:
    """The node as the watch saw it; None: it is not there.

    ``fresh``: from a list, so it is the truth although its resource version may be lower than one seen before: etcd was
    restored. (A list that was asked for before a patch of ours was answered is lower too: read the node again.)
    """

    node: Node | None
    fresh: bool = False


@dataclass(frozen=True)
class PodsSeen:
    """The pods on the node, of one namespace or of all, as ``watch`` sees them; or why they cannot be seen."""

    watch: object
    everywhere: bool
    pods: tuple[Pod, ...] = ()
    denied: str = ""


@dataclass(frozen=True)
class RunPlanned:
    """A run waits at its gate."""

    run: int


@dataclass(frozen=True)
class RunEnded:
    """A run has an answer: the module's, or the error that came instead."""

    run: int
    result: Mapping[str, Any]
    failed: bool = False


@dataclass(frozen=True)
class WatchFailed:
    """A watch met an error; it goes on by itself."""

    what: str
    error: str


@dataclass(frozen=True)
class StopAsked:
    """SIGTERM, at a moment of the controller's clock."""

    at: float


@dataclass(frozen=True)
class LockTaken:
    """No other CC manager works on this node."""


Message = NodeSeen | PodsSeen | RunPlanned | RunEnded | WatchFailed | StopAsked | LockTaken
