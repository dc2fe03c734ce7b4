# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One HTTP connection to the API server, with a moment by which what is under way has to be done.

A time-out of a socket is one of each read: a peer that sends a byte now and then never meets it. Here each read and
write gets what is left until the deadline, in the status line, the headers, between chunks and in the body alike.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from .connection import Connection

# A peer that vanished is noticed by the kernel: after 30 s of silence three probes, 10 s apart.
OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
]
# What a connection raises: broken or late, not HTTP, or a header that HTTP does not allow.
ERRORS = (OSError, http.client.HTTPException, ValueError)


class Deadline:
    """A moment of the monotonic clock."""

    def __init__(self) -> None:
        self._at = 0.0

    def set(self, seconds: float) -> None:
        """So many seconds from now."""
        self._at = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds until then. Raises TimeoutError when there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for the whole answer is over")
        return left


class Channel:
    """A connection, for one thread at a time; ``cut`` may be called from any."""

    def __init__(self, connection: Connection) -> None:
        self.deadline = Deadline()
        self._http = _Http(connection, self.deadline)

    def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> http.client.HTTPResponse:
        """Send a request by the deadline; the answer, whose body is not read yet. Raises ERRORS."""
        self._http.request(method, self._http.prefix + path, body, dict(headers))
        return self._http.getresponse()

    @property
    def is_usable(self) -> bool:
        """False when the other side has ended it, or has said something unasked."""
        wire = self._http.wire
        return wire is not None and self._http.sock is not None and not wire.has_something

    def cut(self) -> None:
        """Let whatever waits for it fail."""
        wire = self._http.wire
        if wire is not None:
            wire.cut()

    def close(self) -> None:
        """End it."""
        self._http.close()


class _Http(http.client.HTTPConnection):
    """HTTP/1.1 whose socket is a wire."""

    def __init__(self, connection: Connection, deadline: Deadline) -> None:
        url = urlsplit(connection.server)
        self._tls = url.scheme == "https"
        super().__init__(url.hostname or "", url.port or (443 if self._tls else 80))
        self.prefix = url.path
        self.wire: _Wire | None = None
        self._connection = connection
        self._deadline = deadline

    def connect(self) -> None:
        """By the deadline."""
        found: socket.socket = socket.create_connection((self.host, self.port), self._deadline.left_s())
        try:
            for option in OPTIONS:
                found.setsockopt(*option)
            if self._tls:
                found.settimeout(self._deadline.left_s())
                found = _context(self._connection).wrap_socket(found, server_hostname=self.host)
        except BaseException:
            found.close()
            raise
        self.wire = _Wire(found, self._deadline)
        self.sock = cast(Any, self.wire)


def _context(connection: Connection) -> ssl.SSLContext:
    """Made for each connection: the files change while the process lives."""
    context = ssl.create_default_context(cafile=connection.ca_file)
    if not connection.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if connection.certificate_file:
        # An encrypted key fails instead of asking the terminal for a password.
        context.load_cert_chain(connection.certificate_file, connection.key_file, password=str)
    return context


class _Wire:
    """What http.client needs of a socket, each time with what is left until the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left_s())
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline))

    @property
    def has_something(self) -> bool:
        """True when a read would return at once."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def cut(self) -> None:
        with contextlib.suppress(OSError):  # it is over already
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # TLS' own would say goodbye first

    def close(self) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    """The bytes that come."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._deadline.left_s())
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
