# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The cloud config: a YAML file, mounted from a Secret, with environment variables over it.

Its keys are those of the seed's file (endpoint, orgName, token, siteId, tenantId) and those that say how a token is
come by. It is read again while the process runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from kube.settings import BadSetting

from ansible_collections.confidential.gpu.plugins.module_utils._bmm.client import Call, Client
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.credentials import ENVIRONMENT, token_source
from ansible_collections.confidential.gpu.plugins.module_utils._bmm.settings import Settings
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import InvalidRequest

from . import labels
from .provider_id import DEFAULT_FORM, FORMS, PART

# Key of the file to setting of the API's client.
KEYS = {
    "endpoint": "endpoint",
    "orgName": "org",
    "apiName": "api",
    "caFile": "ca_file",
    "token": "token",
    "tokenFile": "token_file",
    "tokenUrl": "token_url",
    "clientId": "client_id",
    "clientSecret": "client_secret",
    "scope": "scope",
    "username": "username",
    "password": "password",
    "ngcKey": "ngc_key",
}
OURS = ("siteId", "tenantId", "zone", "region", "providerIdForm", "plainHttp")
SITE, TENANT = "NVIDIA_BMM_SITE_ID", "NVIDIA_BMM_TENANT_ID"
# A round waits for the next one rather than for an API that does not answer.
TIMEOUT_S, DEADLINE_S = 10.0, 30.0


@dataclass(frozen=True)
class Config:
    """What is asked, for whom. ``given``: the settings of the client, secrets among them; never shown."""

    site: str
    tenant: str
    org: str
    zone: str
    region: str
    form: str
    plain_http: bool
    given: tuple[tuple[str, str], ...]

    def __repr__(self) -> str:
        return f"Config(org={self.org!r}, tenant={self.tenant!r}, site={self.site!r})"

    def client(self, observe: Any = lambda call: None, deadline_s: float = DEADLINE_S) -> Client:
        """A client of the API. Raises BadSetting."""
        given = dict(self.given)
        try:
            settings = Settings(
                endpoint=given.get("endpoint", "").rstrip("/"),
                org=self.org,
                api=given.get("api") or "nico",
                ca_file=given.get("ca_file", ""),
                plain_http=self.plain_http,
                timeout_s=min(TIMEOUT_S, deadline_s),
                deadline_s=deadline_s,
            ).checked()
            tokens = token_source(given, settings.ca_file, self.plain_http)
            return Client(settings, tokens, observe=observe)
        except InvalidRequest as error:
            raise BadSetting(f"cloud config: {error.cause} {error.remedy}") from None


def read(text: str, environment: Mapping[str, str]) -> Config:
    """The config of a file's text. Raises BadSetting, which shows no value."""
    found = _mapping(text)
    known = {*KEYS, *OURS}
    for key in found:
        if key not in known:
            raise BadSetting(f"cloud config: there is no key {key!r}. There are: {', '.join(sorted(known))}.")
    given = {}
    for key, setting in KEYS.items():
        value = environment.get(ENVIRONMENT[setting]) or _text(found, key)
        if value:
            given[setting] = value
    config = Config(
        site=_required(environment.get(SITE) or _text(found, "siteId"), "siteId", SITE),
        tenant=_required(environment.get(TENANT) or _text(found, "tenantId"), "tenantId", TENANT),
        org=_required(given.pop("org", ""), "orgName", ENVIRONMENT["org"]),
        zone=_label(found, "zone"),
        region=_label(found, "region"),
        form=_text(found, "providerIdForm") or DEFAULT_FORM,
        plain_http=found.get("plainHttp", False),
        given=tuple(sorted(given.items())),
    )
    if config.form not in FORMS:
        raise BadSetting(f"cloud config: providerIdForm is {config.form!r}. Give one of {', '.join(FORMS)}.")
    if not isinstance(config.plain_http, bool):
        raise BadSetting("cloud config: plainHttp is neither true nor false.")
    config.client().close()
    return config


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text) if text.strip() else {}
    except (yaml.YAMLError, RecursionError) as error:
        # Its own text shows lines of the file.
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        raise BadSetting(f"cloud config: it is no YAML{place}. Mend the file.") from None
    if not isinstance(found, dict):
        raise BadSetting("cloud config: it holds no keys and values. Give endpoint, orgName, token, siteId, tenantId.")
    return found


def _text(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadSetting(f"cloud config: {key} is a {type(value).__name__}. Give a text, in quotes.")
    return value.strip()


def _required(value: str, key: str, variable: str) -> str:
    if not PART.fullmatch(value):
        raise BadSetting(
            f"cloud config: {key} {f'is {value!r}' if value else 'is not there'}. Give it there or in {variable}: "
            "letters, digits, '.', '_' and '-'."
        )
    return value


def _label(found: Mapping[str, Any], key: str) -> str:
    value = _text(found, key)
    if not labels.is_value(value):
        raise BadSetting(f"cloud config: {key} is {value!r}, which can be no label value (63 of A-Z a-z 0-9 . _ -).")
    return value


__all__ = ["Call", "Client", "Config", "read"]
