# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The CC manager's way to the API server: it counts what is asked, and does not always do what it should.

Plain HTTP on loopback towards the CC manager, TLS towards the server. A request is passed on as it is, with its token.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

# What can be wrong with a request. LOST: it is carried out, and the answer does not come. HELD: the answer comes when
# the weather is fine again. AWAY: the connection is closed at once.
LOST, HELD, AWAY = "lost", "held", "away"
REFUSALS = (409, 429, 500, 503)
HELD_MAX_S = 30.0
TIMEOUT_S = 60.0
# Of one connection, and of a stretch of it: not to be passed on.
OWN_HEADERS = {"connection", "transfer-encoding", "content-length", "keep-alive", "host"}


class Relay:
    """A running one. ``seed``: of the requests that the weather is bad for."""

    def __init__(self, port: int, authority: Path, seed: int) -> None:
        self.upstream = port
        self.context = ssl.create_default_context(cafile=str(authority))
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()
        self._way, self._share = "", 0.0
        self.muted_before = 0  # connections with a lower number hear nothing more of their watches
        self.connections = 0
        self._clients: set[socket.socket] = set()
        self.fine = threading.Event()
        self.fine.set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.relay = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="relay", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def counted(self) -> Counter[str]:
        """Requests by verb and resource so far; a watch counts when it begins."""
        with self._lock:
            return self._counted.copy()

    # --- the weather --------------------------------------------------------------------------------------------------

    def spoil(self, way: str, share: float) -> None:
        """From now on this share of the requests meets it: LOST, HELD, AWAY, or the number of a refusal."""
        self.fine.clear()
        with self._lock:
            self._way, self._share = way, share

    def clear(self) -> None:
        """All is well from now on; watches that were muted stay so until they are begun again."""
        with self._lock:
            self._way, self._share = "", 0.0
        self.fine.set()

    def mute(self) -> None:
        """The watches that there are hear nothing more, and their connections stay."""
        with self._lock:
            self.muted_before = self.connections + 1

    def cut(self) -> None:
        """Break every connection."""
        with self._lock:
            clients = list(self._clients)
        for one in clients:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Serve no more."""
        self.clear()
        self._server.shutdown()
        self._server.server_close()
        self.cut()

    # --- what the connections ask -------------------------------------------------------------------------------------

    def came(self, client: socket.socket) -> int:
        """The number of a new connection."""
        with self._lock:
            self.connections += 1
            self._clients.add(client)
            return self.connections

    def left(self, client: socket.socket) -> None:
        """A connection is over."""
        with self._lock:
            self._clients.discard(client)

    def way(self, about: str) -> str:
        """Count a request; what is wrong with it, or nothing."""
        with self._lock:
            self._counted[about] += 1
            return self._way if self._way and self._random.random() < self._share else ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    relay: Relay

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this is about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def setup(self) -> None:
        super().setup()
        self._number = self.server.relay.came(self.connection)
        self._upstream: http.client.HTTPSConnection | None = None

    def finish(self) -> None:
        self.server.relay.left(self.connection)
        if self._upstream is not None:
            self._upstream.close()
        super().finish()

    def do_GET(self) -> None:
        self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    def do_PUT(self) -> None:
        self._pass_on()

    def do_PATCH(self) -> None:
        self._pass_on()

    def do_DELETE(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        relay = self.server.relay
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else None
        way = relay.way(about(self.command, self.path))
        if way == AWAY:
            self.close_connection = True
            return
        if way.isdecimal():
            self._answer(int(way), _refusal(int(way)), {"Content-Type": "application/json", "Retry-After": "1"})
            return
        response = self._asked(body)
        if way == LOST:
            response.read()
            self.close_connection = True
        elif _is_watch(self.path) and response.status == 200:
            self._stream(response)
        else:
            data = response.read()
            if way == HELD:
                relay.fine.wait(HELD_MAX_S)
            self._answer(response.status, data, dict(response.getheaders()))

    def _asked(self, body: bytes | None) -> http.client.HTTPResponse:
        relay = self.server.relay
        if self._upstream is None:
            self._upstream = http.client.HTTPSConnection(
                "127.0.0.1", relay.upstream, context=relay.context, timeout=TIMEOUT_S
            )
        headers = {key: value for key, value in self.headers.items() if key.lower() not in OWN_HEADERS}
        self._upstream.request(self.command, self.path, body, headers)
        return self._upstream.getresponse()

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in OWN_HEADERS:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, response: http.client.HTTPResponse) -> None:
        """A watch, chunk by chunk. One that is muted takes what comes and says nothing."""
        assert self._upstream is not None
        assert self._upstream.sock is not None
        self._upstream.sock.settimeout(None)
        self.send_response(200)
        self.send_header("Content-Type", response.getheader("Content-Type", "application/json"))
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.close_connection = True
        leaver = threading.Thread(target=self._wait_for_leave, args=(self._upstream.sock,), daemon=True)
        leaver.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            while data := response.read1(1 << 16):
                if self._number >= self.server.relay.muted_before:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def _wait_for_leave(self, upstream: socket.socket) -> None:
        """When the client of a watch goes, so does its watch."""
        with contextlib.suppress(OSError):
            while self.connection.recv(1 << 12):
                pass
        with contextlib.suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)


def about(method: str, path: str) -> str:
    """'patch nodes' for PATCH /api/v1/nodes/x; a list and a watch are told from a get."""
    parts = urlsplit(path).path.strip("/").split("/")
    parts = parts[2 if parts[0] == "api" else 3 :]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    verb = {"GET": "get", "POST": "create", "PUT": "update"}.get(method, method.lower())
    if verb == "get" and len(parts) == 1:
        verb = "watch" if _is_watch(path) else "list"
    return " ".join([verb, "/".join([*parts[:1], *parts[2:]])])


def _is_watch(path: str) -> bool:
    return dict(parse_qsl(urlsplit(path).query)).get("watch", "") in ("1", "true")


def _refusal(status: int) -> bytes:
    found = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "bad weather"}
    return json.dumps(found).encode()
