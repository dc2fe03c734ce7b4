# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the token comes from: a value, a file, an OIDC server, or an NGC key.

A token that is asked for is fetched again a while before it expires, by one thread while the others wait.
"""

from __future__ import annotations

import base64
import json
import threading
from typing import Any, Optional
from urllib.parse import urlencode, urlsplit

from .._core.errors import InvalidRequest, errno_words
from .._core.wait import SYSTEM_CLOCK, Clock
from .answers import clean
from .errors import ApiError, NoToken, TokenServerFailed
from .secret import Secret, without
from .settings import check_url
from .transport import Answer, Request, Transport

# Renewed when this part of its life is left, but at the latest this many seconds before its end.
RENEW_PART = 0.2
RENEW_S = 30.0
# What RFC 6749 leaves open when there is no expires_in.
DEFAULT_LIFE_S = 300.0
TIMEOUT_S = 20.0
LARGEST_FILE = 64 * 1024
# A key of this kind is a bearer token itself.
BEARER_KEY = "nvapi-"


class TokenSource:
    """Gives the token. Threads share it."""

    def token(self) -> Secret:
        """The token to send. Raises NoToken."""
        raise NotImplementedError

    def rejected(self, token: Secret) -> bool:
        """The API did not take this token. Whether ``token`` may give another one now."""
        raise NotImplementedError

    def close(self) -> None:
        """Close connections."""


class StaticToken(TokenSource):
    """A token that stays as it is."""

    def __init__(self, token: Secret) -> None:
        _check_header(token, "token")
        self._token = token

    def token(self) -> Secret:
        return self._token

    def rejected(self, token: Secret) -> bool:
        return False


class FileToken(TokenSource):
    """A token in a file that somebody else keeps fresh: a mounted Secret, or an agent's. Read at each request."""

    def __init__(self, path: str) -> None:
        self._path = path

    def token(self) -> Secret:
        try:
            with open(self._path, encoding="ascii") as file:
                token = Secret(file.read(LARGEST_FILE).strip())
        except OSError as error:
            raise NoToken(
                "The token file %s cannot be read: %s." % (self._path, errno_words(error)),
                "Check the path and that this user may read it.",
                path=self._path,
            ) from error
        except ValueError:
            token = Secret("")
        try:
            _check_header(token, "token file")
        except InvalidRequest as error:
            raise NoToken("%s (%s)" % (error.cause, self._path), error.remedy, path=self._path) from None
        return token

    def rejected(self, token: Secret) -> bool:
        return self.token().reveal() != token.reveal()


class _Fetched(TokenSource):
    """A token that a server gives out for a while."""

    def __init__(self, url: str, ca_file: str, clock: Clock, plain_http: bool) -> None:
        check_url("token URL", url, plain_http)
        self._url = url
        self._transport = Transport(url, ca_file)
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Optional[Secret] = None
        self._renew_at = 0.0
        self._expires_at = 0.0

    def token(self) -> Secret:
        with self._lock:
            if self._token is not None and self._clock.now() < self._renew_at:
                return self._token
            try:
                return self._renew()
            except TokenServerFailed:
                # While it is good, the old one does.
                if self._token is not None and self._clock.now() < self._expires_at:
                    return self._token
                raise

    def rejected(self, token: Secret) -> bool:
        with self._lock:
            if self._token is not None and self._token.reveal() == token.reveal():
                self._token = None
        return True

    def close(self) -> None:
        self._transport.close()

    def _request(self) -> Request:
        raise NotImplementedError

    def _secrets(self) -> list[Secret]:
        raise NotImplementedError

    def _renew(self) -> Secret:
        began = self._clock.now()
        try:
            answer = self._transport.send(self._request(), TIMEOUT_S)
        except ApiError as error:
            raise TokenServerFailed("No token: %s" % error.cause, error.remedy) from None
        content = self._content(answer)
        token, life = content.get("access_token", content.get("token")), content.get("expires_in", DEFAULT_LIFE_S)
        try:
            self._token = _check_header(Secret(token if isinstance(token, str) else ""), "token that came")
            life_s = float(life)
        except (InvalidRequest, TypeError, ValueError):
            raise TokenServerFailed(
                "No token: the answer of %s holds none." % self._transport.server, "Check the token URL."
            ) from None
        self._expires_at = began + life_s
        # A life shorter than the margin is used to its half.
        self._renew_at = self._expires_at - min(max(RENEW_S, life_s * RENEW_PART), life_s / 2)
        return self._token

    def _content(self, answer: Answer) -> dict[str, Any]:
        try:
            content = json.loads(answer.body)
        except (ValueError, RecursionError):
            content = None
        if answer.status == 200 and isinstance(content, dict):
            return content
        server = self._transport.server
        said = ""
        if isinstance(content, dict):
            words = [content.get(key) for key in ("error", "error_description", "message")]
            said = clean(without(self._secrets(), " ".join(word for word in words if isinstance(word, str))))
        if 400 <= answer.status < 500 and answer.status not in (408, 429):
            raise NoToken(
                "No token: %s refuses the credentials (%d%s)." % (server, answer.status, said and " " + said),
                "Check the client's id and secret, or the key, and the token URL.",
                status=answer.status,
            )
        raise TokenServerFailed(
            "No token: %s answered %d and no token." % (server, answer.status),
            "Check the token URL; try again if the server is being repaired.",
            status=answer.status,
        )


class OidcToken(_Fetched):
    """A token by OAuth 2.0 client credentials (RFC 6749, 4.4), or by a user's password where one is given (4.3)."""

    def __init__(
        self,
        url: str,
        client_id: str,
        client_secret: Secret,
        scope: str = "",
        username: str = "",
        password: Optional[Secret] = None,
        ca_file: str = "",
        clock: Clock = SYSTEM_CLOCK,
        plain_http: bool = False,
    ) -> None:
        super().__init__(url, ca_file, clock, plain_http)
        self._client_id = client_id
        self._client_secret = client_secret
        self._username = username
        self._password = password or Secret("")
        self._scope = scope

    def _request(self) -> Request:
        form = {"grant_type": "password" if self._username else "client_credentials"}
        if self._username:
            form.update(username=self._username, password=self._password.reveal())
        if self._scope:
            form["scope"] = self._scope
        # RFC 6749, 2.3.1: each part is form-encoded first.
        pair = "%s:%s" % (_encoded(self._client_id), _encoded(self._client_secret.reveal()))
        headers = {
            "Authorization": "Basic " + base64.b64encode(pair.encode()).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
        }
        return Request("POST", _target(self._url), headers, urlencode(form).encode())

    def _secrets(self) -> list[Secret]:
        return [self._client_secret, self._password]


class NgcKeyToken(_Fetched):
    """A token that NGC's authentication service gives for a key."""

    def __init__(
        self, key: Secret, url: str, ca_file: str = "", clock: Clock = SYSTEM_CLOCK, plain_http: bool = False
    ) -> None:
        super().__init__(url, ca_file, clock, plain_http)
        self._key = _check_header(key, "NGC key")

    def _request(self) -> Request:
        headers = {"Authorization": "ApiKey " + self._key.reveal(), "Accept": "application/json"}
        return Request("GET", _target(self._url), headers)

    def _secrets(self) -> list[Secret]:
        return [self._key]


def _target(url: str) -> str:
    return urlsplit(url).path or "/"


def _encoded(text: str) -> str:
    return urlencode({"": text})[1:]


def _check_header(secret: Secret, what: str) -> Secret:
    """The secret, if it can stand in a header. Raises InvalidRequest."""
    text = secret.reveal()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("The %s is empty or no token." % what, "Give the token alone, as one line of ASCII.")
    return secret
