# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""HTTP: connections, the faults that strike them, the token endpoints, and the way to steer the emulator.

/oidc/token             tokens for client credentials
/ngc/token              tokens for NGC keys
/emulator/faults        POST a list of rules, DELETE them all
/emulator/requests      GET what was asked since the last DELETE
/emulator/instance      POST one more entry of the file's ``instances``
/emulator/instance/{}   GET it by id or name, PATCH properties ({"status": ..., "message": ...}), DELETE it traceless
/emulator/machine/{}    PATCH properties
/emulator/site/{}       PATCH properties
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .api import Api, Reply
from .errors import ApiRefusal, DataError
from .faults import Fault, Faults, parse_faults
from .tokens import Tokens
from .world import World

PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>"


class Emulator:
    """A running emulator; ``url`` is where. Its methods steer it from the same process."""

    def __init__(
        self,
        world: World,
        host: str = "127.0.0.1",
        port: int = 0,
        log: Path | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """``tls`` holds the certificate's file and the key's. Raises DataError, OSError."""
        self.world = world
        self._tokens = Tokens(world.tokens, world.clients, world.ngc_keys, world.key_life_s)
        self._faults = Faults()
        self._api = Api(world, self._tokens, self._faults)
        self._requests: list[dict[str, object]] = []
        self._lock = threading.Lock()
        self._log = log
        self.stopped = threading.Event()
        self.add_faults(world.faults)
        emulator = self

        class Handler(_Handler):
            owner = emulator

        self._server = _Server((host, port), Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'http' if tls is None else 'https'}://{shown}:{self._server.server_address[1]}"

    def run(self) -> None:
        """Serve until ``stop``."""
        self._server.serve_forever(poll_interval=0.05)
        self._server.server_close()

    def stop(self) -> None:
        """End ``run``, from another thread."""
        self.stopped.set()
        self._server.shutdown()

    # --- steering --------------------------------------------------------------------------------------------------

    def add_faults(self, raw: object) -> None:
        """Put rules in force. Raises DataError."""
        rules = parse_faults(raw)
        for rule in rules:
            if rule.action == "stale":
                with self._api.store.lock:
                    rule.kept = self._api.store.lists()
        self._faults.add(rules)

    def clear_faults(self) -> None:
        """Drop every rule."""
        self._faults.clear()

    @property
    def requests(self) -> list[dict[str, object]]:
        """What was asked: {method, path, query, status}, in order; status 0 for what was not answered."""
        with self._lock:
            return list(self._requests)

    def forget_requests(self) -> None:
        """Begin to count again."""
        with self._lock:
            self._requests = []

    @property
    def tokens_given(self) -> int:
        """How many tokens the token endpoints gave out."""
        return self._tokens.count

    def instance(self, name_or_id: str) -> dict[str, Any]:
        """A copy of an instance as it is now. Raises DataError."""
        with self._api.store.lock:
            self._api.store.settle()
            return dict(self._api.store.named("instance", name_or_id))

    def add_instance(self, raw: object) -> list[dict[str, Any]]:
        """One more entry of ``instances``. Raises DataError."""
        with self._api.store.lock:
            return [dict(one) for one in self._api.store.add(raw)]

    def alter(self, kind: str, name_or_id: str, fields: Mapping[str, Any]) -> None:
        """Set properties of an 'instance', a 'machine' or a 'site'. Raises DataError."""
        with self._api.store.lock:
            self._api.store.alter(self._api.store.named(kind, name_or_id), fields)

    def remove_instance(self, name_or_id: str) -> None:
        """Take an instance away. Raises DataError."""
        with self._api.store.lock:
            self._api.store.remove(self._api.store.named("instance", name_or_id))

    def on_power_cycle(self, act: Callable[[dict[str, Any]], None]) -> None:
        """Call this, which must not wait, with an instance whose machine is switched off and on."""
        self._api.store.power_cycled = act

    # --- requests --------------------------------------------------------------------------------------------------

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        """The answer; None for a connection that is to be reset."""
        path, _, query = target.partition("?")
        if path.startswith("/emulator/"):
            return self._steer(method, path[len("/emulator/") :], body)
        if path == "/oidc/token":
            struck = self._faults.strike(method, "oidc/token")
            return self._faulty(struck) or self._token(self._tokens.by_client(headers.get("authorization", ""), body))
        if path == "/ngc/token":
            struck = self._faults.strike(method, "ngc/token")
            return self._faulty(struck) or self._token(self._tokens.by_key(headers.get("authorization", "")))
        below = self._api.path_of(target)
        known = below if below is not None else path
        entry = self._note({"method": method, "path": known, "query": query, "status": 0})
        try:
            reply = self._struck(method, target, known, headers, body)
            entry["status"] = reply.status if reply else 0
        finally:
            self._write(entry)
        return reply

    def _struck(self, method: str, target: str, known: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        struck = self._faults.strike(method, known)
        if "expire_tokens" in struck:
            self._tokens.expire()
        if "delay" in struck:
            self.stopped.wait(struck["delay"].seconds)
        if "hang" in struck:
            self.stopped.wait(struck["hang"].seconds)
        if "reset" in struck or "hang" in struck:
            return None
        return self._faulty(struck) or self._api.answer(method, target, headers, body, struck)

    def _faulty(self, struck: dict[str, Fault]) -> Reply | None:
        if "html" in struck:
            return Reply(struck["html"].status, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        if "rate_limit" in struck:
            after = struck["rate_limit"].seconds
            return self._api.refusal(ApiRefusal(429, "Too many requests", None if after is None else int(after)))
        if "status" in struck:
            rule = struck["status"]
            if rule.envelope:
                return self._api.refusal(ApiRefusal(rule.status, rule.message))
            return Reply(rule.status, rule.message.encode(), {"Content-Type": "text/plain"})
        return None

    def _token(self, answer: tuple[int, dict[str, object]]) -> Reply:
        return Reply(answer[0], json.dumps(answer[1]).encode())

    def _note(self, entry: dict[str, object]) -> dict[str, object]:
        with self._lock:
            self._requests.append(entry)
        return entry

    def _write(self, entry: dict[str, object]) -> None:
        if self._log is None:
            return
        with self._lock, self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **entry}) + "\n")

    def _steer(self, method: str, path: str, body: bytes) -> Reply:
        kind, _, name = path.partition("/")
        name = unquote(name)
        try:
            data: Any = json.loads(body) if body else None
            match (method, kind, bool(name)):
                case ("POST", "faults", False):
                    self.add_faults(data)
                case ("DELETE", "faults", False):
                    self.clear_faults()
                case ("GET", "requests", False):
                    return Reply(200, json.dumps(self.requests).encode())
                case ("DELETE", "requests", False):
                    self.forget_requests()
                case ("POST", "instance", False):
                    return Reply(200, json.dumps(self.add_instance(data)).encode())
                case ("GET", "instance", True):
                    return Reply(200, json.dumps(self.instance(name)).encode())
                case ("PATCH", "instance" | "machine" | "site", True):
                    self.alter(kind, name, data)
                case ("DELETE", "instance", True):
                    self.remove_instance(name)
                case _:
                    raise DataError(f"{method} {path} steers nothing")
        except (ValueError, AttributeError, TypeError) as error:
            return Reply(400, json.dumps({"error": str(error)}).encode())
        return Reply(200, b"{}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error of the emulator."""


class _Handler(BaseHTTPRequestHandler):
    owner: Emulator
    protocol_version = "HTTP/1.1"
    # One write for head and body: two would wait for each other (Nagle and delayed acknowledgements).
    wbufsize = -1

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.owner.answer(self.command, self.path, headers, body)
        if reply is None:
            self._reset()
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.cut:
            self.wfile.write(reply.body[: len(reply.body) // 2])
            self.close_connection = True
            return
        self.wfile.write(reply.body)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _handle  # noqa: N815

    def _reset(self) -> None:
        """Close with RST: what the client sent is thrown away with the connection."""
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Requests go to --log."""
