# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Requests to the Kubernetes API.

The generated models of the official client cost 40 MiB in a process that has none of its own; what is read here is
metadata and pods, as plain JSON. Whatever answers: a request ends in a bounded time, with a bounded answer.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from .channel import ERRORS, Channel
from .connection import BadToken, Connection

# For a whole request: to connect, to send, and to read the last byte of the answer.
REQUEST_TIMEOUT_S = 10.0
LIST_TIMEOUT_S = 30.0  # all its pages
# After a stop was asked for; kubelet kills 30 s later.
HURRIED_TIMEOUT_S = 4.0
# The server sends a bookmark about once a minute: a watch that hears no whole event for longer is not believed.
SILENCE_S = 90.0
# A node has a few hundred pods, of 10 to 20 KiB each; etcd takes no object of more than 1.5 MiB.
LIST_LIMIT = 100
PAGES_MAX = 100
ANSWER_MAX_BYTES = 32 << 20
EVENT_MAX_BYTES = 4 << 20
PART_BYTES = 65536
# A server that asks for more patience than this is asked earlier.
RETRY_AFTER_MAX_S = 60.0
MESSAGE_MAX_CHARS = 500
IDLE_MAX = 4
# Who asks, for the server's log; a program gives its own name.
AGENT = "confidential-gpu"
# What code that takes an API object apart raises when something else answers: a proxy, a captive portal.
NOT_AN_OBJECT = (KeyError, TypeError, AttributeError, ValueError, IndexError)
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


Object = dict[str, Any]


def whole(found: Object) -> Object:
    """All of an object."""
    return found


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
        """The account lacks the right."""
        return self.status == 403

    @property
    def is_denied(self) -> bool:
        """The account lacks the right, or is not known: a token that has expired, a server that has just started."""
        return self.status in (401, 403)

    @property
    def is_conflict(self) -> bool:
        """The object has changed since it was read, or is there already."""
        return self.status == 409

    @property
    def is_gone(self) -> bool:
        """The resource version is too old: list again."""
        return self.status == 410


class Kube:
    """An API server. Threads may share it. ``agent``: the program's name."""

    def __init__(
        self,
        connection: Connection,
        timeout_s: float = REQUEST_TIMEOUT_S,
        silence_s: float = SILENCE_S,
        agent: str = AGENT,
    ) -> None:
        self._connection = connection
        self._agent = agent
        self._timeout_s = timeout_s
        self.silence_s = silence_s
        self._lock = threading.Lock()
        self._idle: list[Channel] = []
        self._keeps = True
        self._interruptible = False

    def close(self) -> None:
        """Let go of idle connections, now and from now on."""
        with self._lock:
            self._keeps = False
            idle, self._idle = self._idle, []
        for channel in idle:
            channel.close()

    def interrupt(self) -> None:
        """From a signal handler: end the main thread's request, if one is under way, and let none take long any more.

        Raises ApiError out of that request: whether it was carried out is not known.
        """
        self._timeout_s = min(self._timeout_s, HURRIED_TIMEOUT_S)
        if self._interruptible:
            self._interruptible = False
            raise ApiError(0, "the request was given up, because a stop was asked for")

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        accept: str = JSON,
        content_type: str = JSON,
        timeout_s: float = REQUEST_TIMEOUT_S,
    ) -> dict[str, Any]:
        """One request; the answer's JSON. Raises ApiError."""
        what = f"{method} {path}"
        with self._channel(what) as channel:
            channel.deadline.set(min(timeout_s, self._timeout_s))
            answer = self._send(channel, method, path, query, body, accept, content_type)
            data = _read(answer, what)
        try:
            found: dict[str, Any] = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ApiError(0, f"{what}: the answer is not JSON") from error
        return found

    def items(
        self,
        path: str,
        query: Mapping[str, str],
        accept: str = JSON,
        trim: Callable[[Object], Object] = whole,
        limit: int = LIST_LIMIT,
    ) -> tuple[list[Object], str]:
        """A whole list, read from where it is stored, page by page; its resource version. Raises ApiError.

        ``trim``: what of an object is kept; the rest is gone before the next page comes.
        """
        ends = time.monotonic() + LIST_TIMEOUT_S
        found: list[Object] = []
        page = {**query, "limit": str(limit)}
        for _number in range(PAGES_MAX):
            answer = self.request("GET", path, page, accept=accept, timeout_s=max(0.0, ends - time.monotonic()))
            try:
                found += map(trim, answer.get("items") or [])
                metadata = answer["metadata"]
                token, version = metadata.get("continue"), str(metadata.get("resourceVersion", ""))
            except NOT_AN_OBJECT as error:
                raise ApiError(0, f"GET {path}: the answer is no list") from error
            if not token:
                return found, version
            page["continue"] = str(token)
        raise ApiError(0, f"GET {path}: the list has no end")

    def stream(self, path: str, query: Mapping[str, str], accept: str) -> Stream:
        """A watch. Raises ApiError."""
        channel = Channel(self._connection)
        try:
            with _told(f"watch {path}"):
                channel.deadline.set(self._timeout_s)
                answer = self._send(channel, "GET", path, query, None, accept, JSON)
        except BaseException:
            channel.close()
            raise
        return Stream(path, channel, answer, self.silence_s)

    @contextlib.contextmanager
    def _channel(self, what: str) -> Iterator[Channel]:
        """A connection for one request; kept for the next one after a success."""
        channel = self._take()
        answered = False
        try:
            with _told(what), self._interrupted():
                yield channel
            answered = True
        except ApiError as error:
            answered = error.status > 0
            raise
        finally:
            self._give_back(channel, answered)

    @contextlib.contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Signals are the main thread's, and so is what they interrupt."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _take(self) -> Channel:
        with self._lock:
            channel = self._idle.pop() if self._idle else None
        if channel is not None and not channel.is_usable:
            channel.close()
            channel = None
        return channel or Channel(self._connection)

    def _give_back(self, channel: Channel, answered: bool) -> None:
        with self._lock:
            if self._keeps and answered and channel.is_usable and len(self._idle) < IDLE_MAX:
                self._idle.append(channel)
                return
        channel.close()

    def _send(
        self,
        channel: Channel,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        accept: str,
        content_type: str,
    ) -> http.client.HTTPResponse:
        headers = {"Accept": accept, "User-Agent": self._agent}
        if body is not None:
            headers["Content-Type"] = content_type
        if self._connection.token is not None:
            headers["Authorization"] = f"Bearer {self._connection.token()}"
        data = None if body is None else json.dumps(body).encode()
        answer = channel.send(method, path + (f"?{urlencode(query)}" if query else ""), headers, data)
        if answer.status >= 300:
            words = f"{method} {path}: {answer.status} {_message(_read(answer, path))}"
            raise ApiError(answer.status, words, _retry_after_s(answer.headers.get("Retry-After", "")))
        return answer


class Stream:
    """The events of a watch, as they come."""

    def __init__(self, path: str, channel: Channel, answer: http.client.HTTPResponse, silence_s: float) -> None:
        self._path = path
        self._channel = channel
        self._answer = answer
        self._silence_s = silence_s

    def events(self) -> Iterator[dict[str, Any]]:
        """Each event's JSON, until the server ends the watch. Raises ApiError: also when no whole one comes in time."""
        rest = b""
        try:
            with _told(f"watch {self._path}"):
                self._channel.deadline.set(self._silence_s)
                while part := self._answer.read1(PART_BYTES):
                    *lines, rest = (rest + part).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield json.loads(line)
                            self._channel.deadline.set(self._silence_s)
                    if len(rest) > EVENT_MAX_BYTES:
                        raise ApiError(0, f"watch {self._path}: an event of more than {EVENT_MAX_BYTES} bytes")
        finally:
            self.close()

    def close(self) -> None:
        """Read no further."""
        self._answer.close()
        self._channel.close()

    def end(self) -> None:
        """Let ``events`` end, from another thread."""
        self._channel.cut()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of a connection as ApiError. A header that HTTP does not allow is not repeated: it may hold the token."""
    try:
        yield
    except BadToken as error:
        raise ApiError(0, f"{what}: {error}") from None
    except TimeoutError as error:
        raise ApiError(0, f"{what}: no answer in time ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise ApiError(0, f"{what}: {type(error).__name__} {str(error)[:MESSAGE_MAX_CHARS]}") from error
    except (*ERRORS, RecursionError) as error:
        raise ApiError(0, f"{what}: {type(error).__name__}") from None


def _read(answer: http.client.HTTPResponse, what: str) -> bytes:
    """The whole body, within bounds."""
    parts: list[bytes] = []
    size = 0
    while part := answer.read1(PART_BYTES):
        parts.append(part)
        size += len(part)
        if size > ANSWER_MAX_BYTES:
            answer.close()
            raise ApiError(0, f"{what}: the answer has more than {ANSWER_MAX_BYTES} bytes")
    ends_early = bool(answer.length)  # http.client says nothing of it
    answer.close()
    if ends_early:
        raise ApiError(0, f"{what}: the answer ends early")
    return b"".join(parts)


def _message(data: bytes) -> str:
    try:
        return str(json.loads(data)["message"])[:MESSAGE_MAX_CHARS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return data[:200].decode(errors="replace")


def _retry_after_s(text: str) -> float:
    """The header's seconds; the API server sends no dates."""
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdecimal() else 0.0
