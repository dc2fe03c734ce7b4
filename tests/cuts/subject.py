# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One emulated node on which changes are cut, one after the other."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import conftest  # noqa: F401  (makes the collection and the emulator importable)
from emulator.launch import Emulator, launch
from nodes import ACTIONS, BARE, KILL, Cut, Node, contradiction, knobs

from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError
from ansible_collections.confidential.gpu.plugins.module_utils._core.wait import Clock, poll
from ansible_collections.confidential.gpu.plugins.module_utils._gpu import report
from ansible_collections.confidential.gpu.plugins.module_utils._gpu.change import ModeChange, Request
from ansible_collections.confidential.gpu.plugins.module_utils._pci.vfio_user import VfioUserBus

TIMING = {"boot_s": 0.02, "flr_s": 0.002, "rpc_s": 0.0}
LONGEST_SLEEP_S = 0.002
CHILD_TIMEOUT_S = 60
# Exit statuses of a child.
DONE, REFUSED, CRASHED = 0, 1, 70


class ShortClock(Clock):
    """Real time, but waits that the specification makes long for hardware are as short as the emulator's reset."""

    def sleep(self, seconds: float) -> None:
        """Sleep, at most a little."""
        time.sleep(min(seconds, LONGEST_SLEEP_S))


@contextlib.contextmanager
def running(node: Node) -> Iterator[Subject]:
    """The node, for as long as it is used."""
    with launch(node.description(), **TIMING) as emulator:
        yield Subject(node, emulator)


class Subject:
    """A node, and what is done to it."""

    def __init__(self, node: Node, emulator: Emulator) -> None:
        self._node = node
        self._control = emulator.control
        self._sockets = emulator.sockets
        self._clock = ShortClock()
        self._bus = VfioUserBus(str(emulator.sockets), self._clock)

    def writes(self, start: str, desired: str) -> dict[str, int]:
        """Run a change undisturbed; how often it writes to each device."""
        self._put(start)
        self._change(desired)
        self._must_be(desired)
        return {address: state["counters"]["writes"] for address, state in self._control.state().items()}

    def run(self, cut: Cut) -> str:
        """Cut, look, run again, look again; what is wrong, or nothing."""
        self._put(cut.start)
        self._control.fault(device=cut.device, event="write", nth=cut.at, action=ACTIONS[cut.how])
        status = in_child(lambda: self._change(cut.desired))
        self._control.clear_faults()
        try:
            self._must_have_been_cut(cut, status)
            if status == DONE:
                self._must_be(cut.desired)
            self._change(cut.desired)
            self._must_be(cut.desired)
            self._must_be_told(cut.desired)
        except (AssertionError, ExplainedError) as error:
            return "%s: %s" % (type(error).__name__, error)
        return ""

    def _put(self, mode: str) -> None:
        """Everything as before the change, and nothing left of earlier runs: no note, no lock."""
        self._control.restore()
        for path in self._sockets.iterdir():
            if not path.is_socket():
                path.unlink()
        for address, wanted in self._node.expected(mode).items():
            self._control.set(address, mode=wanted)
        if mode in BARE:
            self._control.set(knobs={"BAR0_DECOUPLER": 0})
            self._control.power_cycle()
            poll(self._booted, CHILD_TIMEOUT_S, LONGEST_SLEEP_S)
        self._control.reset_counters()

    def _booted(self) -> bool:
        return all(state["booted"] for state in self._control.state().values())

    def _change(self, desired: str) -> None:
        ModeChange(Request(mode=desired), self._bus, clock=self._clock).run()

    def _must_have_been_cut(self, cut: Cut, status: int) -> None:
        _check(status != CRASHED, "the cut run crashed")
        if cut.how == KILL:
            _check(status == -signal.SIGKILL, "the cut run ended with status %d, not by the kill" % status)
        for address, state in self._control.state().items():
            count = state["counters"]["writes"]
            _check(address != cut.device or count == cut.at, "the cut came at write %d" % count)
            _check(state["mode"] != "invalid", "%s came up in an invalid mode" % address)
            wrong = contradiction(state["knobs"])
            _check(not wrong, "the next reset finds %s on %s" % (wrong, address))

    def _must_be(self, mode: str) -> None:
        """The emulator's own view: the active mode, the knobs, and the BAR0 filter, which no register shows."""
        for address, state in self._control.state().items():
            wanted = self._node.expected(mode)[address]
            _check(state["mode"] == wanted, "%s is in mode %s, not %s" % (address, state["mode"], wanted))
            for name, value in knobs(state["model"], wanted).items():
                found = state["knobs"][name]
                _check(found == value, "%s has knob %s = %d, not %d" % (address, name, found, value))
            filtered = knobs(state["model"], wanted)["BAR0_DECOUPLER"] == 2
            _check(state["active_bar0_filter"] == filtered, "%s: the BAR0 filter is not as it must be" % address)

    def _must_be_told(self, mode: str) -> None:
        """What the information module tells."""
        for entry in report.read(self._bus, clock=self._clock)["devices"]:
            seen = [entry["mode"], entry["pending_mode"], entry["problem"]]
            wanted = self._node.expected(mode)[entry["address"]]
            _check(seen == [wanted, wanted, None], "%s is told to be %s, not %s" % (entry["address"], seen, wanted))


def _check(good: bool, otherwise: str) -> None:
    if not good:
        raise AssertionError(otherwise)


def in_child(work: Callable[[], Any]) -> int:
    """Do the work in a forked process, which may be killed; its exit status, or the signal's number below zero."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(CHILD_TIMEOUT_S)
        status = CRASHED
        try:
            work()
            status = DONE
        except ExplainedError:
            status = REFUSED
        except BaseException:  # noqa: BLE001  (whatever it is, this process must not go on as its parent)
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
