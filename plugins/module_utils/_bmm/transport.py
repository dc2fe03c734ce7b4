# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One request and its answer over a connection that is kept: nothing of the API, nothing of tokens.

Threads may share a transport; each request has a connection of its own meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from typing import Iterator, Mapping, NamedTuple, Optional, Union
from urllib.parse import urlsplit

from .._core.errors import InvalidRequest
from .errors import BrokenAnswer, TimedOut, Unreachable

# A page of a hundred instances, each with its 32 KiB of user data, has 5 MiB.
LARGEST_BODY = 64 * 1024 * 1024
# Servers and load balancers close what is idle for a minute.
IDLE_S = 30.0
MOST_IDLE = 8

Connection = Union[http.client.HTTPConnection, http.client.HTTPSConnection]


class Answer(NamedTuple):
    """Status, headers by their lower-case names, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Request(NamedTuple):
    """``target`` is the path with the query. ``repeatable``: sent twice it does what it does sent once."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: Optional[bytes] = None
    repeatable: bool = True


class _Idle(NamedTuple):
    connection: Connection
    since: float


class Transport:
    """Connections to one server. Redirections are not followed: they would take the token to another server."""

    def __init__(self, url: str, ca_file: str = "") -> None:
        """``url`` is one that ``settings.check_url`` lets pass. Raises InvalidRequest."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._tls: Optional[ssl.SSLContext] = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file or None)
            except (ssl.SSLError, OSError) as error:
                raise InvalidRequest(
                    "The CA file %r cannot be used: %s." % (ca_file, error),
                    "Give a file of PEM certificates that this user may read.",
                ) from error
        self._idle: list[_Idle] = []
        self._lock = threading.Lock()

    @property
    def server(self) -> str:
        """'host:port' for messages."""
        return self._host if self._port is None else "%s:%d" % (self._host, self._port)

    def send(self, request: Request, timeout_s: float) -> Answer:
        """The answer, whole. Raises TimedOut, Unreachable, BrokenAnswer."""
        ends = time.monotonic() + timeout_s
        # What cannot be repeated goes over a new connection: one that is kept may be dead already.
        connection = self._kept() if request.repeatable else None
        if connection is not None:
            try:
                return self._exchange(connection, request, ends)
            except Unreachable:
                # The server closed it while it was idle. A new one tells.
                pass
        return self._exchange(self._connected(ends, timeout_s), request, ends)

    def close(self) -> None:
        """Close what is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for kept in idle:
            kept.connection.close()

    def _kept(self) -> Optional[Connection]:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                kept = self._idle.pop()
            if time.monotonic() - kept.since < IDLE_S:
                return kept.connection
            kept.connection.close()

    def _connected(self, ends: float, timeout_s: float) -> Connection:
        connection: Connection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        else:
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        connection.timeout = max(ends - time.monotonic(), 0.001)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise Unreachable(
                "TLS with %s failed: %s." % (self.server, error.reason or error),
                "Check the address and the certificate; give the CA file where the CA is your own.",
                sent=False,
            ) from error
        except (TimeoutError, socket.timeout) as error:
            raise self._timed_out("no connection", sent=False) from error
        except OSError as error:
            raise Unreachable(
                "%s cannot be reached: %s." % (self.server, error.strerror or error),
                "Check the endpoint, name resolution and the network.",
                errno=error.errno,
                sent=False,
            ) from error
        return connection

    def _exchange(self, connection: Connection, request: Request, ends: float) -> Answer:
        keep = False
        try:
            with _limited(connection, ends):
                connection.request(request.method, request.target, request.body, dict(request.headers))
                response = connection.getresponse()
                body = response.read(LARGEST_BODY + 1)
                if response.length and len(body) <= LARGEST_BODY:
                    raise http.client.IncompleteRead(body, response.length)
                # What http.client makes of Connection and of the version.
                keep = not response.will_close and response.isclosed()
                headers = {name.lower(): value for name, value in response.getheaders()}
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, (TimeoutError, socket.timeout)) or time.monotonic() >= ends:
                raise self._timed_out("no whole answer to %s" % _name(request), sent=True) from error
            raise Unreachable(
                "The connection to %s broke at %s: %s." % (self.server, _name(request), _words(error)),
                "Try again; if it stays, look at the API's server and at what stands before it.",
                sent=True,
            ) from error
        finally:
            if keep:
                self._keep(connection)
            else:
                connection.close()
        if len(body) > LARGEST_BODY:
            raise BrokenAnswer(
                "The answer to %s is larger than %d MiB." % (_name(request), LARGEST_BODY >> 20),
                "Check that the endpoint is the API's.",
                status=response.status,
            )
        return Answer(response.status, headers, body)

    def _keep(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < MOST_IDLE:
                self._idle.append(_Idle(connection, time.monotonic()))
                return
        connection.close()

    def _timed_out(self, what: str, sent: bool) -> TimedOut:
        return TimedOut(
            "%s: %s in time." % (self.server, what),
            "Try again; give more time where the API is slow, and check the network where it never answers.",
            sent=sent,
        )


@contextlib.contextmanager
def _limited(connection: Connection, ends: float) -> Iterator[None]:
    """End the exchange at its deadline: a socket's own timeout begins again with each byte."""
    left = max(ends - time.monotonic(), 0.001)
    sock = connection.sock
    sock.settimeout(left)
    timer = threading.Timer(left, _shut, [sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(sock: socket.socket) -> None:
    # Not SSLSocket's own shutdown, which takes the TLS state away from the thread that reads.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _name(request: Request) -> str:
    return "%s %s" % (request.method, request.target.partition("?")[0])


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "%s (%s)" % (error, type(error).__name__) if str(error) else type(error).__name__
