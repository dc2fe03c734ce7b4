# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Tokens: those of the user's file, and those that the token endpoint gives out for a while."""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote_plus

from .errors import ApiRefusal


@dataclass(frozen=True)
class OidcClient:
    """A client that gets tokens, each good for ``life_s`` seconds."""

    id: str
    secret: str
    life_s: float = 300.0


class Tokens:
    """Which tokens are good; threads share it."""

    def __init__(
        self, fixed: Sequence[str], clients: Sequence[OidcClient], keys: Sequence[str], key_life_s: float
    ) -> None:
        self._fixed = frozenset(fixed)
        self._clients = {client.id: client for client in clients}
        self._keys = frozenset(keys)
        self._key_life_s = key_life_s
        self._given: dict[str, float] = {}
        self._lock = threading.Lock()
        self.count = 0

    def check(self, authorization: str) -> None:
        """Raise the API's 401 unless the header holds a token that is good now."""
        kind, _, token = authorization.partition(" ")
        if kind != "Bearer" or not token:
            raise ApiRefusal(401, "Request is missing authorization header")
        with self._lock:
            good = token in self._fixed or self._given.get(token, 0.0) > time.monotonic()
        if not good:
            raise ApiRefusal(401, "Authorization token in request is invalid or expired")

    def expire(self) -> None:
        """Let all that were given out expire."""
        with self._lock:
            self._given = {}

    def by_client(self, authorization: str, body: bytes) -> tuple[int, dict[str, object]]:
        """Status and JSON of the token endpoint (RFC 6749)."""
        form = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        its_id, secret = _basic(authorization) or (form.get("client_id", ""), form.get("client_secret", ""))
        if form.get("grant_type") != "client_credentials":
            return 400, {"error": "unsupported_grant_type"}
        client = self._clients.get(its_id)
        if client is None or client.secret != secret:
            return 401, {"error": "invalid_client", "error_description": "client authentication failed"}
        return 200, {"access_token": self._give(client.life_s), "token_type": "Bearer", "expires_in": client.life_s}

    def by_key(self, authorization: str) -> tuple[int, dict[str, object]]:
        """Status and JSON of the endpoint that takes NGC keys."""
        kind, _, key = authorization.partition(" ")
        if kind != "ApiKey" or key not in self._keys:
            return 401, {"message": "Invalid API key"}
        return 200, {"token": self._give(self._key_life_s), "expires_in": self._key_life_s}

    def _give(self, life_s: float) -> str:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._given[token] = time.monotonic() + life_s
            self.count += 1
        return token


def _basic(authorization: str) -> tuple[str, str] | None:
    kind, _, encoded = authorization.partition(" ")
    if kind != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return unquote_plus(name), unquote_plus(secret)


def clients_of(raw: Sequence[Mapping[str, object]]) -> list[OidcClient]:
    """The clients of the user's file."""
    return [OidcClient(str(one["id"]), str(one["secret"]), float(str(one.get("life_s", 300.0)))) for one in raw]
