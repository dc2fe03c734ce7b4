# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The audit trail of one node: who asked for a change, what was desired, and what was read back, of each device.

There is a record before a run may write, and one when it has ended: a kill in between leaves the first, and the next
process records what it reads. All methods give the tail of the trail, for the node's annotation; all raise OSError and
ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .chain import Trail
from .names import MODE_LABEL
from .node import Node
from .reading import Device, Reading
from .seen import Run, Seen

TRAIL = "operand"
BEGAN, CHANGE, READ, DRIFT = "began", "change", "read", "drift"
DONE, FAILED = "done", "failed"
REASON_MAX_CHARS = 2000
# More devices than these have no room in a record; no host has as many.
DEVICES_MAX = 128


class Audit:
    """Records in a folder of the host."""

    def __init__(self, folder: str, node_name: str, boot: str) -> None:
        self._trail = Trail(folder, TRAIL)
        self._about = {"writer": TRAIL, "host": node_name, "boot": boot}

    def start(self) -> str:
        """Repair what a kill has left."""
        tail = self._trail.repair()
        return tail.text if tail.number else ""

    def read(self, reading: Reading) -> str:
        """The first reading of this process."""
        return self._append(READ, [_entry(one, after=one.mode) for one in reading.devices])

    def began(self, run: Run, seen: Seen) -> str:
        """The run may write from now on."""
        devices = _entries(run, seen.reading)
        return self._append(BEGAN, devices, asked=_asked(run, seen))

    def ended(self, run: Run, before: Reading | None, seen: Seen, reason: str) -> str:
        """The run has an answer, or there will be none; ``seen`` is what is known now."""
        after = seen.reading.modes() if seen.reading is not None else {}
        devices = [{**one, "after": after.get(one["address"])} for one in _entries(run, before)]
        is_done = not reason and all(one["after"] == one["desired"] for one in devices)
        result = {"result": DONE if is_done else FAILED, "reason": reason[:REASON_MAX_CHARS]}
        return self._append(CHANGE, devices, asked=_asked(run, seen), **result)

    def drifted(self, before: Mapping[str, str], moved: Iterable[Device], gone: Iterable[str]) -> str:
        """Devices are in another mode than they were left in, or no longer there. Nobody is known to have asked."""
        devices = [_entry(one, before=before.get(one.address), after=one.mode) for one in moved]
        devices += [{"address": one, "before": before.get(one), "after": None, "gone": True} for one in gone]
        return self._append(DRIFT, devices)

    def _append(self, event: str, devices: list[dict[str, Any]], **more: Any) -> str:
        return self._trail.append(event, {**self._about, **more, "devices": devices[:DEVICES_MAX]}).text


def _entry(device: Device, **more: str | None) -> dict[str, Any]:
    return {"address": device.address, "kind": device.kind, "name": device.name[:80], **more}


def _entries(run: Run, before: Reading | None) -> list[dict[str, Any]]:
    known = {one.address: one for one in before.devices} if before is not None else {}
    entries = []
    for address, mode in run.asked:
        device = known.get(address, Device(address))
        entries.append(_entry(device, before=device.mode, desired=mode))
    return entries


def _asked(run: Run, seen: Seen) -> dict[str, str]:
    """Who set what this run carries out: the newest of label and annotation, as the API server has kept it."""
    desired = run.desired.words if run.desired is not None else ""
    return {"desired": desired, **asked_by(seen.node)}


def asked_by(node: Node | None) -> dict[str, str]:
    """``by``, ``at`` and ``how``. Managers name themselves: this is no proof of who it was."""
    writers = sorted(node.writers, key=lambda one: one.at) if node is not None else []
    if writers:
        newest = writers[-1]
        return {"by": newest.by, "at": newest.at, "how": f"managed fields of {newest.key}"}
    if node is not None and MODE_LABEL not in node.labels:
        return {"by": "", "at": "", "how": "the default mode"}
    return {"by": "", "at": "", "how": "not known: the node has no managed fields"}
