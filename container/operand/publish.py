# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says about itself: the patch that tells it. A mode is told only as it was read from the devices."""

from __future__ import annotations

from dataclasses import dataclass

from . import components, journal
from .names import (
    CHANGING_ANNOTATION,
    DEVICES_ANNOTATION,
    FAILED,
    INVALID,
    JOURNAL_ANNOTATION,
    MODES,
    OFF,
    ON,
    PPCIE,
    READY_LABEL,
    REASON_ANNOTATION,
    STATE_LABEL,
)
from .node import Node, Patch
from .reading import Reading, is_of_another_boot

READY = {ON: "true", PPCIE: "true", OFF: "false"}
REASON_MAX_CHARS = 4096


@dataclass(frozen=True)
class Status:
    """What is to be told. ``state`` is a mode, 'mixed' or 'failed'; ``reason`` says why it is not as it should be."""

    state: str
    reason: str = ""
    reading: Reading | None = None

    @property
    def ready(self) -> str:
        """Kata's word: 'true' for protected, 'false' for off, '' for anything else."""
        return READY.get(self.state, "")

    @property
    def is_failure(self) -> bool:
        """True when the wish, or a device, is not in order."""
        return self.state == FAILED


def as_read(reading: Reading, reason: str = "") -> Status:
    """The status of devices as they are."""
    if not reading.devices:
        return Status(FAILED, "No NVIDIA GPU or NVSwitch was found. Check with lspci -d 10de: on the host.", reading)
    if reading.problems:
        return Status(FAILED, " ".join(reading.problems), reading)
    unknown = [device.address for device in reading.devices if device.mode is None]
    if unknown:
        return Status(
            FAILED,
            f"The mode of {', '.join(unknown)} is not known, because something uses it: {_uses(reading)}",
            reading,
        )
    invalid = [device.address for device in reading.devices if device.mode == INVALID]
    if invalid:
        return Status(FAILED, f"{', '.join(invalid)} came up in an invalid mode. Ask for a mode to repair it.", reading)
    shared = reading.shared_mode()
    if shared == PPCIE and any(device.mode != PPCIE for device in reading.devices):
        shared = "mixed"
    if shared is None:
        return Status(FAILED, "There is no GPU, only NVSwitches.", reading)
    return Status(shared, " ".join(part for part in (reason, _gone(reading)) if part), reading)


def _gone(reading: Reading) -> str:
    if not reading.gone:
        return ""
    names = ", ".join(reading.gone)
    return f"No longer there: {names}. Look for PCIe errors in the host's log; rescan the bus or power-cycle the host."


def _uses(reading: Reading) -> str:
    return " ".join(device.problem for device in reading.devices if device.mode is None)


def outdated(node: Node, boot: str) -> Patch:
    """What has to be taken back before the devices are read for the first time: modes from before the host booted."""
    if not is_of_another_boot(node.annotations, boot):
        return Patch()
    return Patch({label: "" for label in (READY_LABEL, STATE_LABEL) if label in node.labels}).beyond(node)


def changing(node: Node, words: str, with_components: bool) -> Patch:
    """Not ready, on the way to the wish, and what the component labels were: what must stand before any is paused."""
    annotations: dict[str, str | None] = {CHANGING_ANNOTATION: words}
    if with_components:
        taken = components.taken_down(node.labels, journal.read(node.annotations))
        annotations[JOURNAL_ANNOTATION] = taken.text()
    return Patch({READY_LABEL: "", STATE_LABEL: ""}, annotations).beyond(node)


def settled(node: Node, status: Status) -> Patch:
    """The status told, components put back, the journal and the mark of the change taken away: all in one patch."""
    labels: dict[str, str | None] = {STATE_LABEL: status.state, READY_LABEL: status.ready}
    labels.update(components.restored(node.labels, journal.read(node.annotations)))
    annotations: dict[str, str | None] = {
        CHANGING_ANNOTATION: None,
        JOURNAL_ANNOTATION: None,
        REASON_ANNOTATION: status.reason[:REASON_MAX_CHARS] or None,
    }
    if status.reading is not None:
        annotations[DEVICES_ANNOTATION] = status.reading.text()
    return Patch(labels, annotations).beyond(node)


def is_mode(state: str) -> bool:
    """True for the name of a mode that all devices share."""
    return state in MODES
