# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Pages of a list put together, without trust in any of them.

The API pages by offset, so a record that comes or goes between two requests moves others over a page's edge: one is
seen twice, another not at all. A page may be shorter than asked for, and the total may change meanwhile. A list counts
as whole when as many different ids were seen in one walk as the newest page says there are.
"""

from __future__ import annotations

import json
from typing import Any, Callable, NamedTuple, Optional

from .answers import Reply
from .errors import BrokenAnswer, ListIncomplete

# What the API takes at most; its default is 20.
PAGE_SIZE = 100
# Walks before a list is given up. What the first one missed because the order changed, the next ones find.
MOST_WALKS = 8
MOST_PAGES = 10_000

Record = dict[str, Any]


class Page(NamedTuple):
    """Records, and how many the server says there are in all; None where it does not say."""

    records: list[Record]
    total: Optional[int]

    @classmethod
    def of(cls, call: str, reply: Reply) -> Page:
        """The page that a reply is. Raises ApiError."""
        data = reply.data
        if not isinstance(data, list) or not all(_is_record(one) for one in data):
            raise _broken(call, "the answer is no list of things with ids")
        total = _total(call, reply)
        if total is not None and total < len(data):
            raise _broken(call, "X-Pagination counts %d, and the page alone has %d" % (total, len(data)))
        return cls(data, total)


def whole(call: str, ask: Callable[[int, int], Page], one_page: bool = False) -> list[Record]:
    """Every record once, the newest of each id; ``ask(number, size)`` fetches a page. Raises ListIncomplete.

    ``one_page``: the server takes no page numbers, so all there is stands on the first page.
    """
    seen: dict[str, Record] = {}
    total: Optional[int] = None
    for _walk in range(1 if one_page else MOST_WALKS):
        walked, total = _walk_once(call, ask, one_page)
        seen.update(walked)
        if total is None or len(walked) >= total:
            return list(walked.values())
        if len(seen) >= total:
            return list(seen.values())
    if one_page:
        remedy = "Reach the API without the proxy that takes no query parameters: it gives one page only."
    else:
        remedy = "Try again when less is being created and deleted."
    raise ListIncomplete(
        "%s: of %d records the pages held %d." % (call, total or 0, len(seen)), remedy, seen=len(seen), total=total
    )


def _walk_once(call: str, ask: Callable[[int, int], Page], one_page: bool) -> tuple[dict[str, Record], Optional[int]]:
    walked: dict[str, Record] = {}
    largest = 0
    for number in range(1, MOST_PAGES + 1):
        page = ask(number, PAGE_SIZE)
        before, largest = len(walked), max(largest, len(page.records))
        walked.update((one["id"], one) for one in page.records)
        if one_page or not page.records:
            return walked, page.total
        if page.total is not None:
            if len(walked) >= page.total or number * largest >= page.total:
                return walked, page.total
        elif len(page.records) < PAGE_SIZE:
            return walked, None
        elif len(walked) == before:
            # Without a total, a server that knows no page numbers gives the same page for ever.
            raise _broken(call, "page %d holds nothing new, and no X-Pagination says how many there are" % number)
    raise _broken(call, "there is no end after %d pages" % MOST_PAGES)


def _is_record(data: Any) -> bool:
    return isinstance(data, dict) and isinstance(data.get("id"), str) and bool(data["id"])


def _total(call: str, reply: Reply) -> Optional[int]:
    header = reply.headers.get("x-pagination")
    if header is None:
        return None
    try:
        total = json.loads(header)["total"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _broken(call, "X-Pagination cannot be read") from None
    if not isinstance(total, int) or isinstance(total, bool) or total < 0:
        raise _broken(call, "X-Pagination has no total")
    return total


def _broken(call: str, what: str) -> BrokenAnswer:
    return BrokenAnswer("%s: %s." % (call, what), "Try again; if it stays, ask who runs the API.")
