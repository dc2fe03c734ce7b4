# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Events are counted, not repeated."""

from __future__ import annotations

import pytest
from fake_api.store import Store
from kube.client import ApiError, Kube
from kube.events import Events, Subject
from kube_tools import NODE

EVENTS = "/api/v1/namespaces/default/events"
ABOUT = Subject.node(NODE)


def test_what_is_said_again_is_counted_also_by_the_next_process(kube: Kube, store: Store) -> None:
    for _process in range(2):
        events = Events(kube, "tests", NODE)
        events.tell(ABOUT, "Warning", "CCModeFailed", "words")
        events.tell(ABOUT, "Warning", "CCModeFailed", "other words")
    events.tell(ABOUT, "Warning", "CCModeFailed", "words")
    found = {one["message"]: one for one in store.list(EVENTS, {})[0]}
    assert {message: one["count"] for message, one in found.items()} == {"words": 3, "other words": 2}


def test_a_message_is_cut_where_a_character_ends(kube: Kube, store: Store) -> None:
    Events(kube, "tests", NODE).tell(ABOUT, "Normal", "CCModeSet", "x" + "\u00e4" * 1000)
    (event,) = store.list(EVENTS, {})[0]
    assert event["message"] == "x" + "\u00e4" * 511


@pytest.mark.parametrize("status", [403, 404])
def test_an_event_that_cannot_be_counted_was_said_already(kube: Kube, store: Store, status: int) -> None:
    events = Events(kube, "tests", NODE)
    events.tell(ABOUT, "Normal", "CCModeSet", "words")
    store.faults.refuse("patch", "/events", status)
    events.tell(ABOUT, "Normal", "CCModeSet", "words")
    store.faults.refuse("create", "/events", 500)
    with pytest.raises(ApiError):
        events.tell(ABOUT, "Normal", "CCModeSet", "words")
