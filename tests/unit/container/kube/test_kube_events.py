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


def test_without_the_right_to_patch_nothing_is_counted(kube: Kube, store: Store) -> None:
    events = Events(kube, "tests", NODE, counts=False)
    for _time in range(2):
        events.tell(ABOUT, "Normal", "CCModeSet", "words")
    (event,) = store.list(EVENTS, {})[0]
    assert event["count"] == 1
    assert {one.verb for one in store.requests} == {"create"}


def test_an_event_lies_beside_what_it_is_about(kube: Kube, store: Store) -> None:
    about = Subject("Pod", "p", "uid-1", "place")
    Events(kube, "tests", NODE).tell(about, "Normal", "Why", "words")
    (event,) = store.list("/api/v1/namespaces/place/events", {})[0]
    assert event["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "uid": "uid-1",
        "namespace": "place",
    }
