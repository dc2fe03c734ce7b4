# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP port: /metrics, /healthz (the process works), /readyz (the node tells what is known of its devices)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# serve_forever wakes up so often to see whether it shall end; the process ends without asking it.
WAKE_S = 3600.0
# One step of the main loop is a few requests; longer than this, and it hangs.
STUCK_S = 120.0


class Health:
    """What the probes ask for; written by the main loop, read by the server's threads."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._busy_since: float | None = None
        self.ready = False

    def busy(self) -> None:
        """The main loop works."""
        self._busy_since = self._now()

    def idle(self) -> None:
        """The main loop waits."""
        self._busy_since = None

    @property
    def healthy(self) -> bool:
        """False when the main loop hangs."""
        since = self._busy_since
        return since is None or self._now() - since < STUCK_S


class Server:
    """The port, on all addresses, IPv4 and IPv6 where there is IPv6. ``port`` 0 lets the kernel choose one."""

    def __init__(self, port: int, health: Health, registry: CollectorRegistry) -> None:
        class Handler(BaseHTTPRequestHandler):
            """The three paths."""

            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    self._say(health.healthy)
                elif self.path == "/readyz":
                    self._say(health.ready and health.healthy)
                else:
                    self._answer(404, b"not found\n", "text/plain")

            def _say(self, good: bool) -> None:
                self._answer(200 if good else 503, b"ok\n" if good else b"not ok\n", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                """Probes are not worth a line."""

        self._server = _DualStack(("", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(WAKE_S,), name="http", daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Serve, in a thread, until the process ends."""
        self._thread.start()


class _DualStack(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # HTTPServer asks the resolver for this host's name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "", self.server_address[1]
