# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The note of settings that no register shows, and a run that is killed before the reset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.unproven import Unproven
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

GPU = "0000:01:00.0"


def test_what_is_noted_stays_until_it_is_struck_out(tmp_path: Path) -> None:
    lock = str(tmp_path / "confidential-gpu.lock")
    Unproven(lock).add({"a": "off", "b": "on"})
    Unproven(lock).add({"a": "on"})
    Unproven(lock).remove(["b", "c"])
    assert Unproven(lock).modes() == {"a": "on"}
    Unproven(lock).remove(["a"])
    assert Unproven(lock).modes() == {}


@pytest.mark.parametrize("text", ["", "[]", "nonsense"])
def test_a_note_that_cannot_be_read_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.unproven").write_text(text)
    assert Unproven(str(tmp_path / "x.lock")).modes() == {}


def test_a_filter_that_was_stored_without_a_reset_is_made_sure_of(emulated: Any) -> None:
    """The device is on, but its BAR0 filter is not in force: only a reset brings that about."""
    bus = VfioUserBus(str(emulated.sockets))
    ModeChange(Request(mode="on", devices=[GPU]), bus).run()
    emulated.control.set(GPU, knobs={"BAR0_DECOUPLER": 0})
    emulated.control.power_cycle(GPU)
    ModeChange(Request(mode="on", devices=[GPU], reset=False), bus).run()
    assert emulated.control.state(GPU)["active_bar0_filter"] is False
    run = ModeChange(Request(mode="on", devices=[GPU]), bus)
    run.run()
    assert [step["step"] for step in run.result()["plan"]] == ["reset", "verify"]
    assert emulated.control.state(GPU)["active_bar0_filter"] is True
    again = ModeChange(Request(mode="on", devices=[GPU]), bus)
    again.run()
    assert not again.is_change


def test_a_mode_that_came_about_proves_the_reset_whoever_did_it(emulated: Any) -> None:
    bus = VfioUserBus(str(emulated.sockets))
    ModeChange(Request(mode="on", devices=[GPU], reset=False), bus).run()
    assert Unproven(bus.lock_path()).modes() == {GPU: "off"}
    emulated.control.power_cycle(GPU)
    run = ModeChange(Request(mode="on", devices=[GPU]), bus)
    run.run()
    assert not run.is_change
