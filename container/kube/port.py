# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP port of a program with threads: neither threads nor memory grow, and the kubelet is answered, always."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .pages import CONNECTIONS_MAX, LIFE_S, Pages

# serve_forever wakes up so often to see whether it shall end; the process ends without asking it.
WAKE_S = 3600.0


class Server:
    """The port, on all addresses, IPv4 and IPv6 where there is IPv6. ``port`` 0 lets the kernel choose one."""

    def __init__(self, port: int, pages: Pages) -> None:
        class Handler(BaseHTTPRequestHandler):
            """Answers each request."""

            timeout = LIFE_S

            def do_GET(self) -> None:
                page = pages.get(self.path)
                self.send_response(page.status)
                self.send_header("Content-Type", page.kind)
                self.send_header("Content-Length", str(len(page.body)))
                self.end_headers()
                self.wfile.write(page.body)

            def log_message(self, *_arguments: object) -> None:
                """Probes are not worth a line."""

        self._server = _Bounded(("", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(WAKE_S,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve, in a thread, until the process ends."""
        self._thread.start()


class _Bounded(ThreadingHTTPServer):
    """A thread for each connection, and not too many of them."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}  # oldest first
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer asks the resolver for this host's name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Make room, then serve it in a thread."""
        with self._lock:
            now = time.monotonic()
            for one, since in list(self._open.items()):
                if now - since > LIFE_S or len(self._open) >= CONNECTIONS_MAX:
                    self._cut(one)
            self._open[request] = now
        super().process_request(request, client_address)

    def _cut(self, request: socket.socket) -> None:
        """Its thread ends by itself then."""
        del self._open[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not worth a trace."""
