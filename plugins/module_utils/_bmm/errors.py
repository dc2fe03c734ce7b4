# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What can keep an answer of the bare-metal manager's API from being had, each told apart from the others.

``NotFound`` alone says that something is not there. Every other error says nothing about what exists: who deletes
because of one, deletes because a proxy was restarted.
"""

from __future__ import annotations

from .._core.errors import ExplainedError


class ApiError(ExplainedError):
    """The API gave no answer that can be used. ``status`` is the HTTP status, 0 where there was none."""

    @property
    def status(self) -> int:
        return int(self.seen.get("status", 0))

    @property
    def message(self) -> str:
        """What the API said, empty if it said nothing."""
        return str(self.seen.get("message", ""))


class NotAuthenticated(ApiError):
    """401: no token, an expired or an unknown one; also what the API answers while its database of users is away."""


class NotAllowed(ApiError):
    """403: the token is good, and its owner may not do this."""


class NotFound(ApiError):
    """404 in the API's own envelope, about a thing and not about a path."""


class NoSuchRoute(ApiError):
    """404 of a router or a proxy: the path leads nowhere, which says nothing about what exists."""


class Refused(ApiError):
    """400, 409 and the like: the API understood the request and does not carry it out."""


class RateLimited(ApiError):
    """429: too many requests."""

    retryable = True


class ServerFailed(ApiError):
    """5xx: the API or a proxy before it failed."""

    retryable = True


class TimedOut(ApiError):
    """There was no whole answer in time."""

    retryable = True


class Unreachable(ApiError):
    """No connection, or one that broke. ``sent`` in ``seen`` says whether the request may have reached the API."""

    retryable = True


class NotTheApi(ApiError):
    """Something else answered: HTML, or a redirection."""


class BrokenAnswer(ApiError):
    """The answer is not what the API's document promises: broken JSON, or other data than asked for."""

    retryable = True


class ListIncomplete(ApiError):
    """The pages of a list do not add up to the list."""

    retryable = True


class NoToken(ApiError):
    """The token that the API wants could not be had."""


class TokenServerFailed(NoToken):
    """The server that gives out tokens did not answer as it should; later it may."""

    retryable = True


class NotReady(ExplainedError):
    """The instance is in a state in which it is not rebooted."""

    retryable = True


class RebootFailed(ExplainedError):
    """The instance did not come back from its reboot."""
