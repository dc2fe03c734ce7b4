# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What must never be seen, looked for from the outside: in the API and at the devices, whose truth the emulator tells.

Pure: who looks brings what was seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .node import (
    CHANGING,
    COMPONENTS,
    CORDONED,
    JOURNAL,
    PAUSED,
    READY,
    STATE,
    Object,
    notes_of,
    owner_of,
)

MODES = ("off", "on", "devtools", "ppcie")
READY_MODES = ("on", "ppcie")
# What counts as a write that changes a device. A reading writes, too: a question to the security processor is a write.
COUNTED = ("resets", "knob_writes")
# A device that left its mode by itself is noticed by the next reading, which may have to wait for API and machine.
NOTICED_S = 90.0


class Broken(AssertionError):
    """Something was seen that must not be."""


class Watchman:
    """Looks again and again. ``now`` is in seconds, of any clock."""

    def __init__(self) -> None:
        self.looked = 0
        self.compared = 0  # times that a label named a mode, and the devices were asked
        self.guarded = 0  # times that devices in use were looked at
        self._harmed_at: float | None = None
        self._users: dict[str, dict[str, tuple[int, ...]]] = {}

    # --- what the soak itself does ------------------------------------------------------------------------------------

    def harmed(self, now: float) -> None:
        """A device was put out of its mode behind the CC manager's back: until that is noticed, a label may be old."""
        self._harmed_at = now

    def weather_fine(self, now: float) -> None:
        """What was harmed can be noticed from now on."""
        if self._harmed_at is not None:
            self._harmed_at = now

    def in_use(self, pod: str, devices: Mapping[str, Any]) -> None:
        """From now on a pod has devices: nobody may change them."""
        self._users[pod] = writes(devices)

    def free(self, pod: str) -> None:
        """It is about to go."""
        self._users.pop(pod, None)

    @property
    def users(self) -> Sequence[str]:
        """Pods that have devices."""
        return list(self._users)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def look(self, now: float, before: Object, devices: Mapping[str, Any], after: Object) -> None:
        """The node, the devices, and the node again. Raises Broken."""
        self.looked += 1
        self._check_users(devices)
        labels = before["metadata"]["labels"]
        state, ready = labels.get(STATE, ""), labels.get(READY, "")
        if ready == "true" and state not in READY_MODES:
            raise Broken(f"the node is ready, and its state is {state!r}")
        if state not in MODES:
            self._harmed_at = None
            return
        if after["metadata"]["labels"].get(STATE) != state:
            return  # it changed while the devices were looked at
        self.compared += 1
        wrong = lies(state, devices)
        if not wrong:
            self._harmed_at = None
        elif self._harmed_at is None or now > self._harmed_at + NOTICED_S:
            raise Broken(f"the state label says {state}; the devices: {wrong}")

    def _check_users(self, devices: Mapping[str, Any]) -> None:
        for pod, before in self._users.items():
            self.guarded += 1
            if (now := writes(devices)) != before:
                raise Broken(f"the pod {pod} has the devices, and they were changed: {COUNTED} {before} -> {now}")


def lies(state: str, devices: Mapping[str, Any]) -> dict[str, str]:
    """The devices that do not have a mode, with the one that they have."""
    return {address: str(one["mode"]) for address, one in devices.items() if one["mode"] != state}


def writes(devices: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """How often each device was changed."""
    return {address: tuple(one["counters"][key] for key in COUNTED) for address, one in devices.items()}


def unrest(node: Object, pods: Sequence[Object], devices: Mapping[str, Any], mode: str) -> list[str]:
    """What is not as it must be once a mode was asked for, nothing is wrong any more, and time has passed."""
    labels, found = node["metadata"]["labels"], notes_of(node)
    wrong = []
    if labels.get(STATE) != mode:
        wrong.append(f"the state is {labels.get(STATE)!r}, not {mode}")
    if bad := lies(mode, devices):
        wrong.append(f"devices are not in the mode {mode}: {bad}")
    wrong += [f"{key} is paused" for key, value in labels.items() if PAUSED in value]
    wrong += [f"the annotation {key} stands" for key in (CHANGING, JOURNAL, CORDONED) if key in found]
    if node["spec"].get("unschedulable"):
        wrong.append("the node is cordoned")
    running = [one for one in pods if owner_of(one) and "deletionTimestamp" not in one["metadata"]]
    if len(running) != len(COMPONENTS):
        wrong.append(f"{len(running)} of {len(COMPONENTS)} components run")
    return wrong
