# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit records of one run of cc_mode: one before its first write, one after its end.

A record that cannot be written is told (``problem``) and keeps nothing from being done.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence

from .._core.chain import Tail, Trail
from .change import ModeChange

if TYPE_CHECKING:
    from .._core.answers import AuditTail, ChangedDevice

TRAIL = "ansible"
BEGAN, CHANGE = "began", "change"
REASON_MAX_CHARS = 2000


class Audit:
    """The trail of Ansible's changes in a folder of the host. ``asked_by``: who asks, as the controller says."""

    def __init__(self, folder: str, asked_by: str, root: str = "/") -> None:
        self._trail = Trail(folder, TRAIL)
        self._root = root
        self._who = {"by": asked_by or os.environ.get("SUDO_USER") or "", "how": "Ansible, the module cc_mode"}
        self._has_begun = False
        self.tail: Optional[Tail] = None
        self.problem = ""

    def began(self, change: ModeChange) -> None:
        """The next thing to happen is a write to a device."""
        self._has_begun = True
        self._append(BEGAN, change, {})

    def ended(self, change: ModeChange, error: Optional[Exception] = None) -> None:
        """The run is over; nothing is said of one that did not get as far as to write."""
        if self._has_begun:
            reason = str(error or "")[:REASON_MAX_CHARS]
            self._append(CHANGE, change, {"result": "failed" if error else "done", "reason": reason})

    def result(self) -> AuditTail:
        """As the module returns it."""
        tail = self.tail
        return {"number": tail.number if tail else 0, "hash": tail.hash if tail else "", "problem": self.problem}

    def _append(self, event: str, change: ModeChange, more: Mapping[str, Any]) -> None:
        devices = _devices(change.result()["devices"], change.desired, with_after=event == CHANGE)
        who = {"host": os.uname().nodename, "boot": _boot(self._root), "asked": self._who, "writer": TRAIL}
        try:
            self.tail = self._trail.append(event, {**who, **more, "devices": devices})
        except (OSError, ValueError) as error:
            self.problem = str(error)


def _devices(entries: Sequence[ChangedDevice], desired: Mapping[str, str], with_after: bool) -> list[dict[str, Any]]:
    """Address, kind, name, the mode before, the desired one, and after a run the one that was read back."""
    return [
        {
            "address": one["address"],
            "kind": one["kind"],
            "name": one["name"],
            "before": one["mode_before"],
            "desired": desired.get(one["address"]),
            **({"after": one["mode_after"]} if with_after else {}),
        }
        for one in entries
    ]


def _boot(root: str) -> str:
    try:
        with open(os.path.join(root, "proc/sys/kernel/random/boot_id"), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
