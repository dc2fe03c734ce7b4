# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to the Kubernetes API: the few that the operand makes, on urllib3.

The generated models of the official client cost 40 MiB in a process that has none of its own; what is read here is
metadata and pods, as plain JSON.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from .connection import Connection

REQUEST_TIMEOUT_S = 10.0
# The server sends a bookmark about once a minute: silence means that nobody is there.
SILENCE_S = 200.0
# A server that asks for more patience than this is asked earlier.
RETRY_AFTER_MAX_S = 60.0
# What code that takes an API object apart raises when something else answers: a proxy, a captive portal.
NOT_AN_OBJECT = (KeyError, TypeError, AttributeError, ValueError, IndexError)
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
# A peer that vanished is noticed by the kernel: after 30 s of silence three probes, 10 s apart.
KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
]


class ApiError(Exception):
    """The API did not do what was asked.

    ``status``: HTTP status, 0 when there was no answer, or one that is not the API's. ``retry_after_s``: what the
    server asks for.
    """

    def __init__(self, status: int, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_forbidden(self) -> bool:
        """The account lacks the right, or is not known."""
        return self.status in (401, 403)

    @property
    def is_conflict(self) -> bool:
        """The object has changed since it was read."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """The resource version is too old: list again."""
        return self.status == 410

    @property
    def is_refusal(self) -> bool:
        """An eviction that a disruption budget does not allow now."""
        return self.status == 429


class Kube:
    """An API server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._pool = urllib3.PoolManager(
            num_pools=2,
            maxsize=4,
            retries=False,
            timeout=REQUEST_TIMEOUT_S,
            ca_certs=connection.ca_file,
            cert_reqs="CERT_REQUIRED" if connection.verify else "CERT_NONE",
            cert_file=connection.certificate_file,
            key_file=connection.key_file,
            socket_options=[*HTTPConnection.default_socket_options, *KEEP_ALIVE],
        )

    def close(self) -> None:
        """Let go of idle connections."""
        self._pool.clear()

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = JSON,
        content_type: str = JSON,
    ) -> dict[str, Any]:
        """One request; the answer's JSON. Raises ApiError."""
        answer = self._send(method, path, query, body, accept, content_type, stream=False)
        try:
            found: dict[str, Any] = json.loads(answer.data)
        except (ValueError, RecursionError) as error:
            raise ApiError(0, f"{method} {path}: the answer is not JSON") from error
        except HTTPError as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        return found

    def stream(self, path: str, query: Mapping[str, str], accept: str) -> Stream:
        """A watch. Raises ApiError."""
        return Stream(path, self._send("GET", path, query, None, accept, JSON, stream=True))

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        accept: str,
        content_type: str,
        stream: bool,
    ) -> urllib3.BaseHTTPResponse:
        url = self._connection.server + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": accept, "User-Agent": "k8s-cc-manager"}
        if body is not None:
            headers["Content-Type"] = content_type
        silence = SILENCE_S if stream else REQUEST_TIMEOUT_S
        try:
            if self._connection.token is not None:
                headers["Authorization"] = f"Bearer {self._connection.token()}"
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                preload_content=not stream,
                timeout=Timeout(connect=REQUEST_TIMEOUT_S, read=silence),
            )
            if answer.status >= 300:
                words = f"{method} {path}: {answer.status} {_message(answer.data)}"
                raise ApiError(answer.status, words, _retry_after_s(answer.headers.get("Retry-After", "")))
        except (HTTPError, OSError) as error:
            raise ApiError(0, f"{method} {path}: {error}") from error
        return answer


class Stream:
    """The events of a watch, as they come."""

    def __init__(self, path: str, answer: urllib3.BaseHTTPResponse) -> None:
        self._path = path
        self._answer = answer

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event's JSON, until the server ends the watch. Raises ApiError."""
        rest = b""
        try:
            for part in self._answer.stream(65536):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield json.loads(line)
        except (HTTPError, OSError, ValueError, RecursionError) as error:
            raise ApiError(0, f"watch {self._path}: {error}") from error
        finally:
            self._answer.close()

    def close(self) -> None:
        """Read no further."""
        self._answer.close()

    def end(self) -> None:
        """Let ``events`` end, from another thread."""
        try:
            self._answer.shutdown()
        except (HTTPError, OSError, ValueError, RuntimeError):
            self._answer.close()  # it is over already


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode(errors="replace")


def _retry_after_s(text: str) -> float:
    """The header's seconds; the API server sends no dates."""
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdecimal() else 0.0
