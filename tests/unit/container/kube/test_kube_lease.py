# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Leader election: one leads, the next one takes over, and none leads on when it cannot know that it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fake_api import faults
from fake_api.store import Refusal, Store
from fake_api.waiting import eventually
from kube.client import Kube
from kube.lease import GROUP, Elector, Lost, Times

LEASES = f"/apis/{GROUP}/namespaces/place/leases"
QUICK = Times(duration_s=1.2, deadline_s=0.8, retry_s=0.1)
PATIENT = Times(duration_s=60.0, deadline_s=40.0, retry_s=0.1)


class Candidate:
    """Somebody who stands, and what it was told."""

    def __init__(self, kube: Kube, identity: str, times: Times, now: Callable[[], float] | None = None) -> None:
        self.told: list[str] = []
        more = {} if now is None else {"now": now}
        self.elector = Elector(
            kube,
            "place",
            "it",
            identity,
            lambda: self.told.append("began"),
            lambda: self.told.append("ended"),
            times,
            **more,
        )
        self.elector.start()

    @property
    def leads(self) -> bool:
        return self.elector.is_leading


Stand = Callable[..., Candidate]


@pytest.fixture
def stand(kube: Kube) -> Iterator[Stand]:
    made: list[Candidate] = []

    def begin(identity: str, times: Times = QUICK, **more: Any) -> Candidate:
        made.append(Candidate(kube, identity, times, **more))
        return made[-1]

    yield begin
    for one in made:
        one.elector.end()


def lease(store: Store) -> dict[str, Any]:
    return dict(store.get(LEASES, "it")["spec"])


def test_the_first_leads_and_keeps_it(stand: Stand, store: Store) -> None:
    first = stand("first")
    eventually(lambda: first.leads)
    second = stand("second")
    renewed = lease(store)
    eventually(lambda: sum(one.verb == "update" for one in store.requests) > 3)
    assert (first.leads, second.leads, second.told) == (True, False, [])
    found = lease(store)
    assert (found["holderIdentity"], found["leaseTransitions"]) == ("first", 0)
    assert found["acquireTime"] == renewed["acquireTime"]
    assert first.told == ["began"]
    assert second.elector.holder == "first"


def test_a_lease_that_is_given_back_is_taken_at_once(stand: Stand, store: Store) -> None:
    first = stand("first", PATIENT)
    eventually(lambda: first.leads)
    second = stand("second", PATIENT)
    eventually(lambda: second.elector.holder == "first")
    first.elector.end()
    assert not first.leads
    eventually(lambda: second.leads, 2.0)  # of the minute for which it would hold
    assert lease(store)["leaseTransitions"] == 1
    assert first.told == ["began"]  # it was asked to end, and knows it


def test_a_lease_of_one_that_died_runs_out(stand: Stand, store: Store) -> None:
    spec = {"holderIdentity": "dead", "leaseDurationSeconds": 1, "leaseTransitions": 4, "renewTime": "long ago"}
    store.create(LEASES, {"metadata": {"name": "it", "namespace": "place"}, "spec": spec})
    now = [1000.0]
    other = stand("other", QUICK, now=lambda: now[0])
    eventually(lambda: sum(one.verb == "get" for one in store.requests) > 3)
    assert not other.leads  # what its clock says is of no account: it may be ahead, or behind
    now[0] += 1.1
    eventually(lambda: other.leads)
    assert (lease(store)["holderIdentity"], lease(store)["leaseTransitions"]) == ("other", 5)


def test_without_an_answer_nobody_leads_on(stand: Stand, store: Store) -> None:
    now = [1000.0]
    first = stand("first", QUICK, now=lambda: now[0])
    eventually(lambda: first.leads)
    assert first.elector.check() <= QUICK.duration_s
    store.faults.refuse("get", "/leases", 500)
    eventually(lambda: store.requests[-1].verb == "get")
    now[0] += QUICK.deadline_s  # before the lease has run out
    assert not first.leads
    with pytest.raises(Lost):
        first.elector.check()
    eventually(lambda: first.told == ["began", "ended"])
    store.faults.clear()
    assert not first.leads  # it does not stand again by itself


def test_an_answer_that_does_not_come_ends_it_in_time(stand: Stand, store: Store) -> None:
    first = stand("first")
    eventually(lambda: first.leads)
    store.faults.send(faults.HANG, "update", "/leases")
    eventually(lambda: not first.leads, 2.0)
    eventually(lambda: first.told == ["began", "ended"], 2.0)


def test_a_lease_that_somebody_else_has_is_not_kept(stand: Stand, store: Store) -> None:
    first = stand("first", PATIENT)
    eventually(lambda: first.leads)
    store.patch(LEASES, "it", {"spec": {"holderIdentity": "thief"}})
    eventually(lambda: first.told == ["began", "ended"])
    assert not first.leads
    first.elector.end()
    assert lease(store)["holderIdentity"] == "thief"  # what is not ours is not given back


def test_somebody_who_touches_the_lease_does_not_end_it(stand: Stand, store: Store) -> None:
    first = stand("first", PATIENT)
    eventually(lambda: first.leads)
    store.faults.refuse("update", "/leases", 409, times=2)
    eventually(lambda: sum(one.verb == "update" for one in store.requests) > 4)
    assert first.leads


def test_of_two_that_make_it_at_once_one_leads(stand: Stand, store: Store) -> None:
    both = threading.Barrier(2)

    def together(request: Any) -> None:
        if request.verb == "create" and both.n_waiting + 1 <= both.parties and not both.broken:
            both.wait(5)
            both.abort()

    store.before = together
    candidates = [stand(name, PATIENT) for name in ("a", "b")]
    eventually(lambda: any(one.leads for one in candidates))
    eventually(lambda: all(one.elector.holder for one in candidates))
    assert sum(one.leads for one in candidates) == 1


def test_a_right_that_is_missing_is_waited_for(stand: Stand, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    def forbid(request: Any) -> None:
        if "/leases" in request.path:
            raise Refusal(403, "leases is forbidden")

    store.before = forbid
    first = stand("first")
    eventually(lambda: len(store.requests) > 4)
    assert not first.leads
    assert caplog.text.count("leases is forbidden") == 1
    store.before = lambda _request: None
    eventually(lambda: first.leads)


@pytest.mark.parametrize("body", [{}, {"spec": None}, {"spec": {"holderIdentity": "x", "leaseDurationSeconds": "y"}}])
def test_a_lease_that_is_none_is_survived(stand: Stand, store: Store, body: dict[str, Any]) -> None:
    store.create(LEASES, {"metadata": {"name": "it", "namespace": "place"}, **body})
    first = stand("first")
    eventually(lambda: len(store.requests) > 3)
    store.patch(LEASES, "it", {"spec": {"holderIdentity": None, "leaseDurationSeconds": None}})
    eventually(lambda: first.leads)


@pytest.mark.parametrize("times", [(15, 15, 2), (15, 10, 10), (0.5, 0.2, 0.1), (15, 10, 0)])
def test_times_that_would_let_two_lead(times: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="not retry < deadline < duration"):
        Times(*times)
