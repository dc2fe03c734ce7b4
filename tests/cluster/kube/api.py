# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Requests to the API server, from outside the namespaces, through kubectl proxy's socket file."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Object = dict[str, Any]
MERGE = "application/merge-patch+json"


class ApiError(RuntimeError):
    """A request was refused, or what was waited for did not come."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _Connection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)

    def connect(self) -> None:
        """Open the file instead of a TCP connection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Api:
    """The API server, as its administrator."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """One request; the answer's object, or its text if it is none. Raises ApiError with the status."""
        connection = _Connection(self._path, 60)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": kind, "Accept": "application/json"})
            response = connection.getresponse()
            text = response.read().decode()
        except OSError as error:
            raise ApiError(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if response.status >= 400:
            raise ApiError(f"{method} {path}: {response.status}: {text[:1000]}", response.status)
        try:
            return json.loads(text)
        except ValueError:
            return text

    def get(self, path: str) -> Any:
        """Read."""
        return self.request("GET", path)

    def patch(self, path: str, change: object) -> Any:
        """Merge."""
        return self.request("PATCH", path, change, MERGE)

    def delete(self, path: str) -> Any:
        """Delete; what is not there is no error."""
        try:
            return self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def watch(self, path: str, timeout_s: float) -> Iterator[Object]:
        """Objects of a collection as they come to be what they are, the present state first.

        A broken watch is begun again, so an object may come twice. Raises ApiError when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                yield from self._watch_once(path, left)
            except (OSError, http.client.HTTPException, ApiError) as error:
                last = error
                time.sleep(min(0.2, max(0.0, left)))  # the API server is away: nothing to wait on but itself
            else:
                last = ApiError("the watch ended")
        raise ApiError(f"{path}: not seen in {timeout_s:.0f} s ({last})")

    def until(self, path: str, good: Callable[[Object], bool], timeout_s: float) -> Object:
        """The first state of one object in a collection that satisfies. Raises ApiError."""
        seen: Object = {}
        try:
            for seen in self.watch(path, timeout_s):
                if good(seen):
                    return seen
        except ApiError as error:
            raise ApiError(f"{error}; last seen: {_short(seen)}") from error
        raise ApiError(f"{path}: nothing seen")

    def _watch_once(self, path: str, left_s: float) -> Iterator[Object]:
        connection = _Connection(self._path, left_s + 1)
        try:
            mark = "&" if "?" in path else "?"
            connection.request("GET", f"{path}{mark}watch=true&timeoutSeconds={int(left_s) + 1}")
            response = connection.getresponse()
            if response.status >= 400:
                raise ApiError(response.read().decode()[:1000], response.status)
            for line in response:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(str(event["object"].get("message")))
                yield {**event["object"], "deleted": event["type"] == "DELETED"}
        finally:
            connection.close()


def _short(seen: Object) -> str:
    """An object without what fills a screen."""
    metadata = {
        key: value for key, value in seen.get("metadata", {}).items() if key in ("name", "labels", "annotations")
    }
    return json.dumps({"metadata": metadata, "status": seen.get("status", {}).get("containerStatuses")})
