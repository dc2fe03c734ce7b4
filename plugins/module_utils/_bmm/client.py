# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The bare-metal manager's API: one call with its retries, and lists that are whole or an error.

Threads share a client. A call waits at most ``Settings.deadline_s``, retries included.
"""

from __future__ import annotations

import json
import random
from typing import Any, Callable, Iterable, Mapping, NamedTuple, Optional, Sequence
from urllib.parse import quote, urlencode

from .._core.errors import InvalidRequest
from .._core.wait import SYSTEM_CLOCK, Clock
from .answers import Reply, reply_of
from .errors import ApiError, BrokenAnswer, NotAuthenticated, RateLimited, TimedOut, TokenServerFailed
from .pages import Page, Record, whole
from .secret import Secret, without
from .settings import Settings
from .tokens import TokenSource
from .transport import Request, Transport

# The pause before the n-th retry is a random part of FIRST * 2^n, never more than LONGEST.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 20.0

Query = Sequence[tuple[str, str]]


class Call(NamedTuple):
    """One request as an observer sees it: 'GET', 'instance', HTTP status or 0, seconds."""

    method: str
    resource: str
    status: int
    seconds: float


class Client:
    """Reads, and the two writes that destroy nothing."""

    def __init__(
        self,
        settings: Settings,
        tokens: TokenSource,
        clock: Clock = SYSTEM_CLOCK,
        rng: Optional[random.Random] = None,
        observe: Callable[[Call], None] = lambda call: None,
    ) -> None:
        """``observe`` is told of each request, retries too, in the thread that made it. Raises InvalidRequest."""
        self.settings = settings.checked()
        self._tokens = tokens
        self._clock = clock
        self._rng = rng or random.Random()
        self._observe = observe
        self._transport = Transport(settings.endpoint, settings.ca_file)

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()
        self._tokens.close()

    # --- what there is ---------------------------------------------------------------------------------------------

    def instances(self, query: Query = (), relations: Iterable[str] = ()) -> list[Record]:
        """All instances for which the API answers, in the order of their names and ids.

        ``query`` holds filters as the API names them: [('siteId', ...), ('status', 'Ready')]. Raises ApiError.
        """
        asked = [*query, *(("includeRelation", name) for name in relations)]
        return sorted(self.collect("instance", asked, "NAME_ASC"), key=lambda one: (str(one.get("name")), one["id"]))

    def instance(self, instance_id: str, relations: Iterable[str] = ()) -> Record:
        """One instance. Raises NotFound if there is none, another ApiError if that cannot be told."""
        return self._one("instance", instance_id, [("includeRelation", name) for name in relations])

    def machines(self, query: Query = ()) -> list[Record]:
        """The machines that this tenant or provider may list. Raises ApiError: NotAllowed for most tenants."""
        return self.collect("machine", query, "ID_ASC")

    def machine(self, machine_id: str) -> Record:
        """One machine; a tenant sees those that its instances run on. Raises ApiError."""
        return self._one("machine", machine_id)

    def sites(self) -> list[Record]:
        """All sites. Raises ApiError."""
        return self.collect("site", (), "NAME_ASC")

    def site(self, site_id: str) -> Record:
        """One site. Raises ApiError."""
        return self._one("site", site_id)

    def tenant(self) -> Record:
        """The tenant that the token belongs to. Raises ApiError."""
        return _record(self.get("tenant/current"), "tenant/current")

    def metadata(self) -> Record:
        """The server's version. Raises ApiError."""
        return _record(self.get("metadata"), "metadata")

    # --- writes ----------------------------------------------------------------------------------------------------

    def set_labels(self, instance_id: str, labels: Mapping[str, str]) -> Record:
        """Replace the whole map of labels. Returns the instance. Raises ApiError."""
        return self._update(instance_id, {"labels": dict(labels)}, repeatable=True)

    def reboot(self, instance_id: str) -> Record:
        """Ask for a power cycle of the instance's machine. Returns the instance. Raises ApiError."""
        return self._update(instance_id, {"triggerReboot": True}, repeatable=False)

    def _update(self, instance_id: str, change: Record, repeatable: bool) -> Record:
        path = "instance/%s" % segment(instance_id)
        reply = self._call("PATCH", path, body=json.dumps(change).encode(), repeatable=repeatable)
        return _record(reply.data, path)

    # --- calls -----------------------------------------------------------------------------------------------------

    def get(self, path: str, query: Query = ()) -> Any:
        """JSON of a path below the API's name. Raises ApiError."""
        return self._call("GET", path, query).data

    def collect(self, path: str, query: Query = (), order: str = "") -> list[Record]:
        """Every record of a list, each once. Raises ApiError: ListIncomplete if the pages do not add up."""
        ends = self._clock.now() + self.settings.deadline_s

        def page(number: int, size: int) -> Page:
            paging = [("pageNumber", str(number)), ("pageSize", str(size))]
            asked = [*query, *paging, *([("orderBy", order)] if order else [])]
            return Page.of(self._name("GET", path), self._call("GET", path, asked, ends=ends))

        return whole(self._name("GET", path), page, one_page=not self.settings.queries)

    def _one(self, kind: str, its_id: str, query: Query = ()) -> Record:
        path = "%s/%s" % (kind, segment(its_id))
        found = _record(self.get(path, query), path)
        if found.get("id") != its_id:
            raise BrokenAnswer("%s: the answer is about another id." % self._name("GET", path), "Ask who runs the API.")
        return found

    def _name(self, method: str, path: str) -> str:
        return "%s %s/%s" % (method, self.settings.base, path)

    def _call(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Optional[bytes] = None,
        repeatable: bool = True,
        ends: Optional[float] = None,
    ) -> Reply:
        """The first answer that is a success. Raises the last ApiError when the time is over or a retry is no use."""
        if ends is None:
            ends = self._clock.now() + self.settings.deadline_s
        tries, renewed = 0, False
        while True:
            tries += 1
            try:
                token = self._tokens.token()
                return self._try(method, path, query, body, repeatable, token, ends)
            except NotAuthenticated:
                # Once: a new token that is not taken either is not renewed without end.
                if renewed or not self._tokens.rejected(token):
                    raise
                renewed = True
                continue
            except ApiError as error:
                pause = self._pause(error, tries)
                if not _again(error, repeatable) or self._clock.now() + pause >= ends:
                    raise _after(error, tries) from None
            self._clock.sleep(pause)

    def _try(
        self,
        method: str,
        path: str,
        query: Query,
        body: Optional[bytes],
        repeatable: bool,
        token: Secret,
        ends: float,
    ) -> Reply:
        target = "%s/%s" % (self.settings.base, path)
        if query and self.settings.queries:
            target += "?" + urlencode(query)
        headers = {"Authorization": "Bearer " + token.reveal(), "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        began, status = self._clock.now(), 0
        try:
            left = ends - began
            if left <= 0:
                raise TimedOut("%s: the time is over." % self._name(method, path), "Give more time.", sent=False)
            request = Request(method, target, headers, body, repeatable)
            answer = self._transport.send(request, min(self.settings.timeout_s, left))
            status = answer.status
            return reply_of(self._name(method, path), answer._replace(body=_hidden(token, answer.body)))
        finally:
            self._observe(Call(method, path.partition("/")[0], status, self._clock.now() - began))

    def _pause(self, error: ApiError, tries: int) -> float:
        asked = error.seen.get("retry_after_s")
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**tries)
        pause = self._rng.uniform(FIRST_PAUSE_S / 2, longest)
        return max(pause, float(asked)) if asked is not None else pause


def segment(its_id: str) -> str:
    """An id as a segment of a path. Raises InvalidRequest for what would make another path of it."""
    if not its_id or its_id in (".", "..") or not its_id.isprintable():
        raise InvalidRequest("%r is no id." % its_id, "Give the id as the API shows it.")
    return quote(its_id, safe="")


def _again(error: ApiError, repeatable: bool) -> bool:
    """Whether a retry may help and cannot do the thing twice."""
    if not error.retryable:
        return False
    return repeatable or isinstance(error, (RateLimited, TokenServerFailed)) or error.seen.get("sent") is False


def _after(error: ApiError, tries: int) -> ApiError:
    if tries > 1:
        error.cause = "%s (%d tries)" % (error.cause, tries)
    return error


def _record(data: Any, path: str) -> Record:
    if not isinstance(data, dict):
        raise BrokenAnswer("%s: the answer is no object." % path, "Check that the endpoint is the API's.")
    return data


def _hidden(token: Secret, body: bytes) -> bytes:
    """The body for messages: a server that answers with what it was sent does not make us tell the token."""
    secret = token.reveal().encode()
    return without([token], body.decode("utf-8", "replace")).encode() if secret in body else body
