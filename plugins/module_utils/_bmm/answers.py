# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What an answer says: its data, or which error it is."""

from __future__ import annotations

import json
import re
from typing import Any, Mapping, NamedTuple, Optional

from .errors import (
    ApiError,
    BrokenAnswer,
    NoSuchRoute,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    NotTheApi,
    RateLimited,
    Refused,
    ServerFailed,
)
from .settings import API_NAMES
from .transport import Answer

# What the API's router says of a path that it does not know, in the same envelope, before it looks at the token.
NO_ROUTE = "the requested path could not be found"
LONGEST_WORDS = 300


class Reply(NamedTuple):
    """An answer that is a success: headers by their lower-case names, JSON."""

    headers: Mapping[str, str]
    data: Any


def reply_of(call: str, answer: Answer) -> Reply:
    """The data of an answer. Raises the ApiError that the answer is; ``call`` names the request: 'GET /v2/...'."""
    if not 200 <= answer.status < 300:
        raise error_of(call, answer)
    if _is_html(answer):
        raise _not_the_api(call, answer)
    try:
        return Reply(answer.headers, json.loads(answer.body))
    except (ValueError, RecursionError) as error:
        raise BrokenAnswer(
            "%s: the answer is no JSON." % call,
            "Try again; if it stays, look at what stands between here and the API.",
            status=answer.status,
        ) from error


def error_of(call: str, answer: Answer) -> ApiError:
    """The error that an answer is."""
    status = answer.status
    message = envelope_message(answer)
    words = "%s: %d%s" % (call, status, " (%s)" % message if message else "")
    kind: type[ApiError]
    if status == 401:
        kind, cause = NotAuthenticated, "%s: the API does not accept the token." % words
        remedy = "Give a token that has not expired, of this org; the API also says so while its user database is away."
    elif status == 403:
        kind, cause = NotAllowed, "%s: the token's owner may not do this." % words
        remedy = "Check the org, the role (TENANT_ADMIN), and that site and instance are the tenant's."
    elif status == 404 and message is not None and message.lower().rstrip(".") != NO_ROUTE:
        kind, cause, remedy = NotFound, "%s: there is no such thing." % words, "Check the id."
    elif status == 404:
        kind, cause = NoSuchRoute, "%s: there is no such path." % words
        remedy = "Check the endpoint and the API name: carbide up to version 1.4, nico from 1.5, forge behind a proxy."
    elif status == 429:
        kind, cause = RateLimited, "%s: too many requests." % words
        remedy = "Wait, and ask less often."
    elif status >= 500:
        kind, cause = ServerFailed, "%s: the API failed." % words
        remedy = "Try again; if it stays, ask who runs the API."
    elif _is_html(answer) or 300 <= status < 400 or message is None:
        return _not_the_api(call, answer)
    else:
        kind, cause = Refused, "%s: the API refuses the request." % words
        remedy = "Change what its message names."
    seen: dict[str, Any] = {"status": status, "message": message or ""}
    if re.fullmatch(r"[0-9]{1,6}", answer.headers.get("retry-after", "")):
        seen["retry_after_s"] = int(answer.headers["retry-after"])
    return kind(cause, remedy, **seen)


def envelope_message(answer: Answer) -> Optional[str]:
    """The message of an error in the API's own envelope {source, message, data}; None if it is in no such envelope."""
    if _is_html(answer):
        return None
    try:
        content = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("source") not in API_NAMES:
        return None
    message = content.get("message")
    return clean(message) if isinstance(message, str) and message else None


def clean(text: str) -> str:
    """Text of a server for a message: one line, of bounded length, without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()[:LONGEST_WORDS]


def _is_html(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "").lower() or answer.body[:64].lstrip()[:1] == b"<"


def _not_the_api(call: str, answer: Answer) -> NotTheApi:
    if 300 <= answer.status < 400:
        what = "a redirection"
    else:
        what = "a web page" if _is_html(answer) else "an answer that is not the API's"
    return NotTheApi(
        "%s: %s came back (status %d)." % (call, what, answer.status),
        "Check the endpoint: a login page, a proxy or another service answers there.",
        status=answer.status,
    )
