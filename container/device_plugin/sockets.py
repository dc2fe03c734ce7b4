# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Sockets of our own in the kubelet's folder: a new name for each, and none is left behind.

The kubelet from 1.37 on tells two instances of a plugin apart by the path. During an update with a surge two of us
work side by side, so only sockets on which nobody listens are swept away.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import socket
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path

from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from .kubelet import Mark, mark

LOG = logging.getLogger(__name__)
PREFIX, SUFFIX = "cdp-", ".sock"
# A socket's path may have 107 bytes, and the kubelet's folder takes 32.
MAX_READABLE = 40
# A client that reads nothing lets no connection end.
CLOSE_S = 1.0


def name_for(resource: str) -> str:
    """A file name that nobody had before."""
    readable = re.sub(r"[^A-Za-z0-9.-]", "_", resource)[-MAX_READABLE:]
    return f"{PREFIX}{readable}-{secrets.token_hex(6)}{SUFFIX}"


class Listening:
    """A gRPC server on a socket of its own, until it is closed. Raises OSError where there can be none."""

    def __init__(self, folder: Path, resource: str, handlers: Sequence[object]) -> None:
        self.path = folder / name_for(resource)
        self._server = _Server(list(handlers), config=Configuration(_keepalive_time=None))
        self._socket = _bound(self.path)
        self._mark: Mark | None = mark(self.path)

    async def start(self) -> None:
        """Take connections."""
        await self._server.start(sock=self._socket)

    @property
    def is_there(self) -> bool:
        """False when somebody took the file away, or put another in its place."""
        return self._mark is not None and mark(self.path) == self._mark

    async def close(self) -> None:
        """Take the file away, end all streams, and cut the connections."""
        if self.is_there:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._server.close()
        self._server.cut()
        self._socket.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._server.wait_closed()


class _Server(Server):
    """One that can also cut the connections that it has: a client may keep them for ever."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.add(protocol)
        return protocol

    def cut(self) -> None:
        for protocol in list(self._protocols):
            connection = getattr(protocol, "connection", None)  # there is none before the first byte
            if connection is not None:
                connection.close()


def _bound(path: Path) -> socket.socket:
    """A listening socket that only its owner may connect to. The kubelet is root."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(16)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made


def sweep(folder: Path) -> list[str]:
    """Remove sockets of our naming on which nobody listens: a killed process left them. Their names."""
    removed = []
    for path in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.lstat(path).st_mode) and not _is_served(path):
                path.unlink()
                removed.append(path.name)
    return removed


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # its queue is full, or it is not ours to ask
            return True
    return True
