# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The store behind HTTP on loopback: enough of the API server for our client."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .faults import BYTES, DRIP, DRIP_HEADERS, EARLY, HANG, HUGE, PLAIN, SILENT, Refusal, Request
from .store import Object, Store, fits, labelled, metadata_only, selection

BOOKMARK_S = 0.5
DRIP_S = 0.05
HUGE_BYTES = 33 << 20
SUBRESOURCES = ("eviction",)
# What is answered and not kept.
REVIEWS = ("tokenreviews", "subjectaccessreviews")


class ApiServer:
    """A running server. ``stop`` and ``start`` end and begin it on the same port; clients lose their connections.

    ``tls``: a server's context; without, it speaks plain HTTP.
    """

    def __init__(self, store: Store, tls: ssl.SSLContext | None = None) -> None:
        self.store = store
        self._tls = tls
        self.port = 0
        self.connections = 0  # ever made
        self._server: _Server | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin."""
        self._server = _Server(("127.0.0.1", self.port), self.store, self._connected)
        self.port = self._server.server_address[1]
        if self._tls is not None:  # hands are shaken by the thread of the connection
            plain = self._server.socket
            self._server.socket = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def _connected(self) -> None:
        self.connections += 1

    def stop(self) -> None:
        """End, and break every connection."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()

    def cut(self) -> None:
        """Break every connection; the server goes on."""
        if self._server is not None:
            self._server.cut()


@contextlib.contextmanager
def serving(store: Store, tls: ssl.SSLContext | None = None) -> Iterator[ApiServer]:
    """A server for as long as it is used."""
    server = ApiServer(store, tls)
    try:
        yield server
    finally:
        server.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], store: Store, connected: Callable[[], None]) -> None:
        self.store = store
        self._connected = connected
        self.clients: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.clients.add(request)
        self._connected()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.clients.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what tests are about."""

    def cut(self) -> None:
        for client in list(self.clients):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve(self._get)

    def do_PATCH(self) -> None:
        self._serve(self._patch)

    def do_POST(self) -> None:
        self._serve(self._post)

    def do_PUT(self) -> None:
        self._serve(self._put)

    def do_DELETE(self) -> None:
        self._serve(self._delete)

    def _serve(self, work: Any) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self._way = ""
        try:
            work(parts.path, query, body)
        except Refusal as refusal:
            self._answer(refusal.status, _status(refusal), refusal.retry_after_s)

    def _get(self, path: str, query: dict[str, str], _body: Any) -> None:
        store = self.server.store
        field = selection(query.get("fieldSelector", ""))
        selector = query.get("labelSelector", "")
        if query.get("watch"):
            self._asked("watch", path)
            self._watch(path, field, selector, query.get("resourceVersion"), float(query["timeoutSeconds"]))
        elif _is_collection(path):
            self._asked("list", path)
            found, version = store.list(path, field)
            if selector:
                found = [one for one in found if labelled(one, selector)]
            page, metadata = _page(found, version, query)
            self._answer(200, {"items": [self._shaped(one) for one in page], "metadata": metadata})
        else:
            self._asked("get", path)
            collection, _slash, name = path.rpartition("/")
            self._answer(200, self._shaped(store.get(collection, name)))

    def _patch(self, path: str, _query: dict[str, str], body: Any) -> None:
        kind = self.headers["Content-Type"]
        if kind not in ("application/merge-patch+json", "application/json-patch+json"):
            raise Refusal(415, "merge patches and JSON patches only")
        self._asked("patch", path, body)
        is_status = path.endswith("/status")
        collection, _slash, name = path.removesuffix("/status").rpartition("/")
        if kind == "application/json-patch+json":
            found = self.server.store.json_patch(collection, name, body)
        else:
            found = self.server.store.patch(collection, name, _part(body, is_status))
        self._answer(200, self._shaped(found))

    def _delete(self, path: str, _query: dict[str, str], body: Any) -> None:
        self._asked("delete", path, body)
        collection, _slash, name = path.rpartition("/")
        self.server.store.delete(collection, name, (body or {}).get("preconditions") or {})
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _put(self, path: str, _query: dict[str, str], body: Any) -> None:
        self._asked("update", path, body)
        collection, _slash, name = path.rpartition("/")
        self._answer(200, self.server.store.replace(collection, name, body))

    def _post(self, path: str, _query: dict[str, str], body: Any) -> None:
        store = self.server.store
        self._asked("create", path, body)
        collection, _slash, name = path.rpartition("/")
        if name in REVIEWS:
            self._answer(201, {**body, "status": getattr(self, f"_{name}")(body["spec"])})
        elif name in SUBRESOURCES:
            collection, _slash, name = collection.rpartition("/")
            _check_eviction(store.get(collection, name), body)
            store.patch(collection, name, {"metadata": {"deletionTimestamp": "now"}})
            self._answer(201, {"kind": "Status", "status": "Success"})
        else:
            self._answer(201, store.create(path, body))

    def _tokenreviews(self, spec: Any) -> Object:
        name = self.server.store.people.get(spec["token"])
        return {"authenticated": True, "user": {"username": name, "groups": ["people"]}} if name else {"error": "no"}

    def _subjectaccessreviews(self, spec: Any) -> Object:
        return {"allowed": spec["user"] in self.server.store.readers}

    def _asked(self, verb: str, path: str, body: Any = None) -> None:
        self.server.store.asked(verb, path, body)
        self._way = self.server.store.faults.way(Request(verb, path, body))

    def _shaped(self, found: Object) -> Object:
        return metadata_only(found) if "PartialObjectMetadata" in self.headers.get("Accept", "") else found

    def _watch(self, path: str, field: dict[str, str], selector: str, given: str | None, timeout_s: float) -> None:
        """Without a version it begins with what there is. What a selector does not select any more is DELETED."""
        store = self.server.store
        there, version = store.list(path, field) if given is None else ([], int(given))
        store.since(path, version)  # an expired version is refused before the first event
        self._begin(200, () if self._way == PLAIN else (("Transfer-Encoding", "chunked"),))
        if self._way in (SILENT, BYTES, HUGE):
            self._say_nothing()
            return
        for one in there:
            if labelled(one, selector):
                self._event("ADDED", self._shaped(one))
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            with store.changed:
                try:
                    changes = store.since(path, version)
                    if not changes:
                        store.changed.wait(min(left, BOOKMARK_S))
                        changes = store.since(path, version)
                except Refusal as refusal:
                    self._event("ERROR", {"code": refusal.status, "message": refusal.message})
                    break
                version = max([version, store.version])
            for change in changes:
                if fits(change.found, field):
                    kind = change.kind if labelled(change.found, selector) else "DELETED"
                    self._event(kind, self._shaped(change.found))
            if not changes:
                self._event("BOOKMARK", {"metadata": {"resourceVersion": str(store.version)}})
            if self._way == EARLY:
                break
        if self._way != PLAIN:
            self.wfile.write(b"0\r\n\r\n")

    def _event(self, kind: str, about: Object) -> None:
        line = json.dumps({"type": kind, "object": about}).encode() + b"\n"
        self._write(line)

    def _write(self, data: bytes) -> None:
        self.wfile.write(data if self._way == PLAIN else b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _say_nothing(self) -> None:
        """Of a watch: until the client leaves, or the server ends."""
        while self._way == HUGE:
            self._write(b" " * (1 << 20))
        while True:
            if self._way == BYTES:
                self._write(b" ")
            elif self._client_left():
                return
            time.sleep(DRIP_S)

    def _client_left(self) -> bool:
        """It has said all that it had to say: what comes now is the end."""
        return bool(select.select([self.connection], [], [], 0)[0])

    def _begin(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in headers:
            self.send_header(name, value)
        if self._way == PLAIN:
            self.send_header("Connection", "close")
        self.end_headers()

    def _answer(self, status: int, content: Any, retry_after_s: float = 0.0) -> None:
        self.server.store.after()
        data = json.dumps(content).encode()
        if self._way == HANG:
            while not self._client_left():
                time.sleep(DRIP_S)
            return
        if self._way == DRIP_HEADERS:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Nothing: ")
        if self._way in (DRIP, DRIP_HEADERS):
            if self._way == DRIP:
                self._begin(status, (("Content-Length", str(1 << 20)),))
            while True:
                self.wfile.write(b" ")
                time.sleep(DRIP_S)
        if self._way == HUGE:
            data = b" " * HUGE_BYTES + data
        headers = [] if self._way == PLAIN else [("Content-Length", str(len(data)))]
        if retry_after_s:
            headers.append(("Retry-After", f"{retry_after_s:.0f}"))
        self._begin(status, headers)
        self.wfile.write(data)


def _is_collection(path: str) -> bool:
    """/api/v1/nodes, /api/v1/namespaces/x/pods, /apis/group/version/namespaces/x/things."""
    parts = path.strip("/").split("/")
    return len(parts[2 if parts[0] == "api" else 3 :]) in (1, 3)


def _part(body: Any, is_status: bool) -> Any:
    """What a patch of the status may change, beside the preconditions."""
    if not is_status:
        return body
    given = body.get("metadata") or {}
    return {
        "metadata": {key: given[key] for key in ("uid", "resourceVersion") if key in given},
        "status": body.get("status") or {},
    }


def _status(refusal: Refusal) -> Object:
    return {"kind": "Status", "code": refusal.status, "message": refusal.message}


def _page(found: list[Object], version: int, query: dict[str, str]) -> tuple[list[Object], Object]:
    """As many as are asked for, from where the last page ended; and what the list says of itself."""
    begin = int(query.get("continue", "0"))
    end = begin + int(query.get("limit", len(found)))
    metadata = {"resourceVersion": str(version)}
    return found[begin:end], metadata if end >= len(found) else {**metadata, "continue": str(end)}


def _check_eviction(pod: Object, eviction: Object) -> None:
    wanted = (eviction.get("deleteOptions") or {}).get("preconditions", {}).get("uid")
    if wanted not in (None, pod["metadata"].get("uid")):
        raise Refusal(409, f"the pod's uid is {pod['metadata'].get('uid')}, not {wanted}")
