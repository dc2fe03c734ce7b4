# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the modules of the bare-metal manager share: options, the client, errors as failures."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ._bmm.client import Client
from ._bmm.credentials import ENVIRONMENT, token_source
from ._bmm.errors import NotAllowed
from ._bmm.pages import Record
from ._bmm.settings import API_NAMES, Settings
from ._core.errors import ExplainedError
from ._module import fail


def _argument(name: str, **spec: Any) -> dict[str, Any]:
    """An option that may come from the environment."""
    return {"type": "str", "fallback": (env_fallback, [ENVIRONMENT[name]]), **spec}


ARGUMENTS: dict[str, Any] = {
    "endpoint": _argument("endpoint", required=True),
    "org": _argument("org", required=True),
    "api": _argument("api", choices=list(API_NAMES), default="nico"),
    "ca_file": _argument("ca_file", type="path"),
    "plain_http": {"type": "bool", "default": False},
    "token": _argument("token", no_log=True),
    "token_file": _argument("token_file", type="path", no_log=False),
    "token_url": _argument("token_url", no_log=False),
    "client_id": _argument("client_id"),
    "client_secret": _argument("client_secret", no_log=True),
    "scope": _argument("scope"),
    "username": _argument("username"),
    "password": _argument("password", no_log=True),
    "ngc_key": _argument("ngc_key", no_log=True),
    "timeout": {"type": "float", "default": 60},
    "deadline": {"type": "float", "default": 120},
}


def run(module: AnsibleModule, work: Callable[[Client, Mapping[str, Any]], dict[str, Any]]) -> None:
    """End the module with what ``work`` returns, or with the error that it raises."""
    given = module.params
    try:
        settings = Settings(
            endpoint=given["endpoint"].rstrip("/"),
            org=given["org"],
            api=given["api"],
            ca_file=given["ca_file"] or "",
            plain_http=given["plain_http"],
            timeout_s=given["timeout"],
            deadline_s=given["deadline"],
        ).checked()
        client = Client(settings, token_source(given, settings.ca_file, settings.plain_http))
        try:
            result = work(client, given)
        finally:
            client.close()
    except ExplainedError as error:
        fail(module, error)
    module.exit_json(**result)


def sites(client: Client, records: Sequence[Record]) -> dict[str, Record]:
    """Id to site of the instances; empty where the token's owner may not list sites. Raises ApiError."""
    if not records:
        return {}
    try:
        return {site["id"]: site for site in client.sites()}
    except NotAllowed:
        return {}
