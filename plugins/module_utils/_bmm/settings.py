# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Where the API is and how long to wait for it, checked before anything is sent."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from .._core.errors import InvalidRequest

# The segment of the path is a setting of the server: carbide up to version 1.4 of the API, nico from 1.5, forge
# behind one proxy.
API_NAMES = ("nico", "carbide", "forge")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Settings(NamedTuple):
    """``endpoint`` without the path; ``timeout_s`` of one request, ``deadline_s`` of a call with all its retries."""

    endpoint: str
    org: str
    api: str = "nico"
    ca_file: str = ""
    plain_http: bool = False
    timeout_s: float = 60.0
    deadline_s: float = 120.0

    @property
    def base(self) -> str:
        """Path of the API: '/v2/org/acme/nico'."""
        return "%s/v2/org/%s/%s" % (urlsplit(self.endpoint).path.rstrip("/"), self.org, self.api)

    @property
    def queries(self) -> bool:
        """Whether the API takes query parameters. The proxy that is called forge rejects them: one page, no filters."""
        return self.api != "forge"

    def checked(self) -> Settings:
        """These settings. Raises InvalidRequest, which names the setting and what it may be."""
        check_url("endpoint", self.endpoint, self.plain_http)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.org):
            raise InvalidRequest(
                "The org %r is no name of an organisation." % self.org,
                "Give the org's name as the API's address has it: letters, digits, '.', '_' and '-'.",
            )
        if self.api not in API_NAMES:
            raise InvalidRequest(
                "The API name %r is unknown." % self.api,
                "Use %s: what follows the org in the API's address." % ", ".join(API_NAMES),
            )
        if self.ca_file and not os.path.isfile(self.ca_file):
            raise InvalidRequest("The CA file %r is not there." % self.ca_file, "Give a file of PEM certificates.")
        for name, value in (("timeout", self.timeout_s), ("deadline", self.deadline_s)):
            if not 0 < value <= 86400:
                raise InvalidRequest("The %s %r is no time." % (name, value), "Give seconds, more than 0.")
        return self


def check_url(name: str, url: str, plain_http: bool = False) -> None:
    """Raise InvalidRequest unless this is an address to which a secret may be sent."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise InvalidRequest(
            "The %s is no address of a server." % name,
            "Give https://, the host, and a path if the server has one.",
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidRequest(
            "The %s holds a user, a query or a fragment." % name,
            "Give https://, the host and the path alone; credentials have settings of their own.",
        )
    if parts.scheme == "http" and host not in LOOPBACK and not plain_http:
        raise InvalidRequest(
            "The %s %s would carry the token in clear text." % (name, url),
            "Use https://, or allow http:// with plain_http where the network is trusted.",
        )
