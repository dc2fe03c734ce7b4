# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""JSON patches (RFC 6902) as far as clients here send them: test, add and remove."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from .faults import Refusal


def applied(found: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The object after the patch. Raises 422 when a test fails or a place is not there."""
    made = copy.deepcopy(dict(found))
    for one in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
        try:
            at: Any = made
            for part in parts[:-1]:
                at = at[int(part)] if isinstance(at, list) else at[part]
            _apply(at, parts[-1], one)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Refusal(422, f"{one['op']} {one['path']}: there is no such place") from error
    return made


def _apply(at: Any, last: str, one: Mapping[str, Any]) -> None:
    if isinstance(at, list):
        place = len(at) if last == "-" else int(last)
        if one["op"] == "add":
            at.insert(place, copy.deepcopy(one["value"]))
        elif one["op"] == "remove":
            del at[place]
        elif at[place] != one["value"]:
            raise Refusal(422, f"testing path {one['path']} failed")
    elif one["op"] == "add":
        at[last] = copy.deepcopy(one["value"])
    elif one["op"] == "remove":
        del at[last]
    elif at[last] != one["value"]:
        raise Refusal(422, f"testing path {one['path']} failed")
