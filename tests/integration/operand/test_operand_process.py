# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Label to verified mode, the whole way; kills, stops, holders."""

from __future__ import annotations

import signal
from typing import Any

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
