# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Label to verified mode, the whole way; kills, stops, holders."""

from __future__ import annotations

import signal
from typing import Any

from fake_api.daemon_sets import NODES

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.vfio_user import VfioUserBus

PAUSED = "paused-for-cc-mode-change"
JOURNAL = "nvidia.com/cc.mode.journal"


def test_a_node_follows_its_label(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.until(one.ready.exists)
    for mode, switches in (("on", "off"), ("ppcie", "ppcie"), ("off", "off")):
        one.wish(mode)
        one.until(lambda mode=mode: one.state == mode)
        assert one.modes() == {mode, switches}
        assert one.components() == {"true"}
        assert JOURNAL not in one.annotations
    one.wish("bogus")
    one.until(lambda: one.state == "failed")
    assert "not a mode" in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.end(signal.SIGTERM) == 0


def test_a_pod_that_is_killed_is_followed_by_one_that_finishes(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.wish("on")
    one.until(lambda: one.components() == {PAUSED})
    one.end(signal.SIGKILL)
    assert one.components() == {PAUSED}
    one.start()
    one.until(lambda: one.state == "on")
    assert one.components() == {"true"}
    assert one.modes() == {"on", "off"}


def test_a_pod_that_is_stopped_during_a_reset_finishes_first(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    one.wish("on")
    one.until(lambda: any(state["counters"]["resets"] for state in one.emulator.control.state().values()))
    assert one.end(signal.SIGTERM) == 0
    assert one.state == "on"
    assert one.components() == {"true"}


def test_a_device_that_somebody_uses_is_not_touched(installation: Any) -> None:
    one = installation
    one.start()
    one.until(lambda: one.state == "off")
    (held, *_others) = VfioUserBus(str(one.emulator.sockets)).find()
    held.open()
    one.wish("on")
    one.until(lambda: one.state == "failed")
    assert held.address in one.annotations["nvidia.com/cc.mode.reason"]
    assert one.components() == {"true"}
    assert one.modes() == {"off"}
    held.close()
    one.until(lambda: one.state == "on")


def test_of_two_operands_on_a_node_one_waits_for_the_end_of_the_other(installation: Any) -> None:
    """A node that was cut off, or a pod deleted by force: the old one still works when the new one starts."""
    one = installation
    at_restore: list[set[str]] = []

    def restored(change: Any) -> None:
        if change.collection == NODES:
            if seen[-1] == {PAUSED} and one.components() == {"true"}:
                at_restore.append(one.modes())
            seen.append(one.components())

    seen: list[set[str | None]] = [{"true"}]
    first = one.start()
    one.until(lambda: one.state == "off")
    second = one.start()
    one.until(lambda: "waiting for its end" in one.said(second))
    one.store.listeners.append(restored)
    one.wish("on")
    one.until(lambda: one.state == "on")
    assert at_restore == [{"on", "off"}]  # the GPUs' and the switches', and not before
    assert "waiting for its end" in one.said(second).splitlines()[-1]
    one.kill(first)
    one.wish("off")
    one.until(lambda: one.state == "off")
    assert one.components() == {"true"}
