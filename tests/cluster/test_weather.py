# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Bad weather: the manager is contradicted, hears nothing, or is told of a past; nothing that is called broken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kube import workloads
from tests.cluster.kube.audit import Audit
from tests.cluster.kube.bed import DEVICES, JOURNAL, PAUSED, REASON, STATE, Bed, annotations_of, is_settled
from tests.cluster.kube.cluster import NODE_PATH
from tests.cluster.kube.weather import THROUGH_RELAY, USER, Relay, losing, putting_back, stripping

RETRY = "nvidia.com/cc.mode.retry"
# In this time a quarrel is over, or begins to be seen in the API server's load.
QUARREL_S = 30.0
# More than the few attempts of a quarrel that ends, and far less than one that goes on: one took 200 in a second.
PATCHES_MAX = 40


def begin(small: Bed, **environment: Any) -> None:
    """A node in the mode off, its components running."""
    small.start(CC_MANAGER_RETRY_DELAY="0", **environment)
    small.until(lambda found: is_settled(found, "off"))
    small.wait_for_components()


def patches(small: Bed) -> int:
    """How often the manager has patched the node."""
    return Audit(small.cluster).read(USER)["patch nodes"]


@contextlib.contextmanager
def quarrel(small: Bed, key: str) -> Iterator[None]:
    """What is done in it ends in a fight: few patches, a metric, a reason that names the key; the process lives."""
    before = patches(small)
    yield
    small.wait_until(lambda: small.metric("cc_manager_fights_total") > 0)
    time.sleep(QUARREL_S)  # that something does not happen has no event
    assert patches(small) - before < PATCHES_MAX
    assert small.manager()["status"]["containerStatuses"][0]["restartCount"] == 0
    if key != REASON:
        assert key in annotations_of(small.cluster.node()).get(REASON, "")


def retry(small: Bed) -> None:
    """The remedy that the reason, the alert and the documents name."""
    small.cluster.api.patch(NODE_PATH, {"metadata": {"annotations": {RETRY: str(time.time())}}})


@pytest.mark.parametrize(("kind", "key"), [("labels", STATE), ("annotations", DEVICES), ("annotations", JOURNAL)])
def test_a_key_that_is_stripped(small: Bed, kind: str, key: str) -> None:
    """What cannot be written cannot be taken back either: no change begins, and nothing stays paused."""
    begin(small)
    before, resets = small.wait_for_components(), small.resets()
    with stripping(small.cluster, kind, key), quarrel(small, key):
        small.want("on")
    assert PAUSED not in small.labels().values()
    assert small.wait_for_components() == before
    assert small.resets() == resets
    assert small.labels().get(STATE) != "on"
    retry(small)
    small.until(lambda found: is_settled(found, "on"))
    assert small.modes() == {"on"}
    small.wait_for_components()


def test_another_controller_that_puts_a_label_back(small: Bed) -> None:
    begin(small)
    with putting_back(small.cluster, STATE, "nonsense"), quarrel(small, STATE):
        pass
    retry(small)
    small.until(lambda found: is_settled(found, "off"))


def test_etcd_restored(small: Bed) -> None:
    """Resource versions go back: what is listed now is the truth, not what was seen to be newer once."""
    begin(small)
    backup = small.cluster.backup()
    small.change("on")
    for number in range(300):  # so that catching up takes long
        small.cluster.api.patch(NODE_PATH, {"metadata": {"annotations": {"example.org/number": str(number)}}})
    small.cluster.restore(backup)
    small.wait_until(lambda: small.modes() == {"off"}, 300)  # as the node asks, which asked for "on" a moment ago
    small.until(lambda found: is_settled(found, "off"))
    small.change("devtools")
    assert {small.labels()[workloads.deploy_label(one)] for one in workloads.KATA} == {"true"}
    small.wait_for_components()


def test_connections_that_lose_everything(small: Bed) -> None:
    """As through a router that forgot them: no reset, no answer."""
    begin(small)
    with losing(small.cluster, small.manager()["status"]["podIP"]):
        small.change("on", timeout_s=180)
    assert small.modes() == {"on"}


def test_a_watch_that_hears_nothing(small: Bed) -> None:
    """As through a proxy whose other side is gone: bytes are taken, and none come. Bookmarks come once a minute."""
    relay = Relay(small.cluster)
    try:
        begin(small, **THROUGH_RELAY)
        relay.mute()
        small.want("on")
        small.wait_until(lambda: small.metric("cc_manager_watch_silence_seconds") > 60, 120)
        small.until(lambda found: is_settled(found, "on"), 240)
        small.wait_until(lambda: small.metric("cc_manager_watch_silence_seconds") < 60)
    finally:
        relay.end()
