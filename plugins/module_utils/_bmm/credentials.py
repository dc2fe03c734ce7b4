# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which source of tokens the user's settings ask for."""

from __future__ import annotations

from typing import Mapping, Optional

from .._core.errors import InvalidRequest
from .._core.wait import SYSTEM_CLOCK, Clock
from .secret import Secret
from .tokens import BEARER_KEY, FileToken, NgcKeyToken, OidcToken, StaticToken, TokenSource

# Setting to environment variable, the same for the inventory, the modules and the controller.
ENVIRONMENT = {
    "endpoint": "NVIDIA_BMM_ENDPOINT",
    "org": "NVIDIA_BMM_ORG_NAME",
    "api": "NVIDIA_BMM_API_NAME",
    "ca_file": "NVIDIA_BMM_CA_FILE",
    "token": "NVIDIA_BMM_TOKEN",
    "token_file": "NVIDIA_BMM_TOKEN_FILE",
    "token_url": "NVIDIA_BMM_TOKEN_URL",
    "client_id": "NVIDIA_BMM_CLIENT_ID",
    "client_secret": "NVIDIA_BMM_CLIENT_SECRET",
    "scope": "NVIDIA_BMM_SCOPE",
    "username": "NVIDIA_BMM_USERNAME",
    "password": "NVIDIA_BMM_PASSWORD",
    "ngc_key": "NVIDIA_BMM_NGC_KEY",
}
# The settings that say how a token is come by; each excludes the others.
WAYS = ("token", "token_file", "client_secret", "ngc_key")


def token_source(
    given: Mapping[str, Optional[str]], ca_file: str = "", plain_http: bool = False, clock: Clock = SYSTEM_CLOCK
) -> TokenSource:
    """The one source that the settings (keys of ENVIRONMENT) describe. Raises InvalidRequest."""
    values = {name: value or "" for name, value in given.items()}
    ways = [way for way in WAYS if values.get(way)]
    if len(ways) != 1:
        raise InvalidRequest(
            "No way to a token is given." if not ways else "Several ways to a token are given: %s." % ", ".join(ways),
            "Give one of %s; client_secret goes with client_id and token_url."
            % ", ".join("%s (%s)" % (way, ENVIRONMENT[way]) for way in WAYS),
        )
    if ways == ["token"]:
        return StaticToken(Secret(values["token"].strip()))
    if ways == ["token_file"]:
        return FileToken(values["token_file"])
    url = values.get("token_url", "")
    if ways == ["ngc_key"]:
        key = Secret(values["ngc_key"].strip())
        if not url and key.reveal().startswith(BEARER_KEY):
            return StaticToken(key)
        _need(values, "token_url", "ngc_key")
        return NgcKeyToken(key, url, ca_file, clock, plain_http)
    _need(values, "token_url", "client_secret")
    _need(values, "client_id", "client_secret")
    if bool(values.get("username")) != bool(values.get("password")):
        raise InvalidRequest("Of username and password only one is given.", "Give both or neither.")
    return OidcToken(
        url,
        values["client_id"],
        Secret(values["client_secret"]),
        scope=values.get("scope", ""),
        username=values.get("username", ""),
        password=Secret(values.get("password", "")),
        ca_file=ca_file,
        clock=clock,
        plain_http=plain_http,
    )


def _need(values: Mapping[str, str], name: str, way: str) -> None:
    if not values.get(name):
        raise InvalidRequest("%s is given without %s." % (way, name), "Give %s (%s)." % (name, ENVIRONMENT[name]))
