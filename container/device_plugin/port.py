# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP port in the event loop: an answer says that the loop works. kube.port's would be more threads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

from kube.pages import CONNECTIONS_MAX, LIFE_S, METRICS, Page, Pages

REQUEST_MAX = 16 << 10


class Server:
    """The port, on all addresses, IPv4 and IPv6 where there is IPv6. ``port`` 0 lets the kernel choose one.

    ``refresh`` is awaited before the metrics are read. Raises OSError.
    """

    def __init__(self, port: int, pages: Pages, refresh: Callable[[], Awaitable[None]]) -> None:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self._socket = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        self._pages = pages
        self._refresh = refresh
        self._open: dict[asyncio.Task[None], None] = {}  # oldest first
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._socket.getsockname()[1])

    async def start(self) -> None:
        """Serve until it is closed."""
        self._server = await asyncio.start_server(self._connected, sock=self._socket, limit=REQUEST_MAX)

    async def close(self) -> None:
        """Close the port and all connections."""
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            next(iter(self._open)).cancel()
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open[task] = None
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                async with asyncio.timeout(LIFE_S):
                    request = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(request))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split()
        if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
            return _response(Page(405, b"method not allowed\n"))
        path = words[1].decode("ascii", "replace")
        if path.partition("?")[0] == METRICS:
            await self._refresh()
        return _response(self._pages.get(path))


def _response(page: Page) -> bytes:
    head = f"HTTP/1.1 {page.status} {'OK' if page.status == 200 else 'no'}\r\nContent-Type: {page.kind}\r\n"
    return f"{head}Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n".encode() + page.body
