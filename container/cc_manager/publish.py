# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the node says about itself: the patch that tells it. A mode is told only as it was read from the devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from . import components, journal
from . import desired as desired_modes
from . import reading as readings
from .desired import Desired
from .names import (
    AUDIT_ANNOTATION,
    CHANGING_ANNOTATION,
    CORDONED_ANNOTATION,
    DEVICES_ANNOTATION,
    FAILED,
    INVALID,
    JOURNAL_ANNOTATION,
    OFF,
    ON,
    PPCIE,
    READY_LABEL,
    REASON_ANNOTATION,
    RETRIED_ANNOTATION,
    STATE_LABEL,
)
from .node import Node, Patch
from .reading import Reading

READY = {ON: "true", PPCIE: "true", OFF: "false"}
REASON_MAX_BYTES = 4096
# A longer value of the retry annotation is carried out, and not repeated.
RETRIED_MAX = 256
# Of all annotations of an object, keys and values: the API server's TotalAnnotationSizeLimitB.
ANNOTATIONS_MAX_BYTES = 256 << 10


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
        """True when the request, or a device, is not in order."""
        return self.state == FAILED

    def and_also(self, more: str) -> Status:
        """The same with more to say."""
        return Status(self.state, " ".join(part for part in (self.reason, more) if part), self.reading)


def as_read(reading: Reading, reason: str = "", desired: Desired | None = None) -> Status:
    """The status of devices as they are: of those that count for the request."""
    if not reading.devices:
        return Status(FAILED, "No NVIDIA GPU or NVSwitch was found. Check with lspci -d 10de: on the host.", reading)
    counted = reading if desired is None else reading.only(desired_modes.counted(desired, reading))
    state, why = _state(counted)
    told = why if state == FAILED else reason
    return Status(state, " ".join(part for part in (told, _others(counted, reading)) if part), reading)


def _state(counted: Reading) -> tuple[str, str]:
    """The state of devices, and why if it is no mode."""
    if counted.problems:
        return FAILED, " ".join(counted.problems)
    unknown = [device for device in counted.devices if device.mode is None]
    if unknown:
        names, uses = ", ".join(one.address for one in unknown), " ".join(one.problem for one in unknown)
        return FAILED, f"The mode of {names} is not known, because something uses it: {uses}"
    invalid = [device.address for device in counted.devices if device.mode == INVALID]
    if invalid:
        return FAILED, f"{', '.join(invalid)} came up in an invalid mode. Ask for a mode to repair it."
    if counted.gone:
        return FAILED, desired_modes.GONE.format(", ".join(counted.gone))
    return counted.shared_mode() or FAILED, "There is no GPU, only NVSwitches."


def _others(counted: Reading, reading: Reading) -> str:
    """The devices that do not count, by name and mode: nobody shall take the state for theirs."""
    known = set(counted.addresses)
    modes = {one.address: one.mode or "not known" for one in reading.devices}
    others = [f"{one} ({modes.get(one, 'no longer there')})" for one in reading.addresses if one not in known]
    return f"The state is not that of {', '.join(sorted(others))}: no mode was asked for there." if others else ""


# --- the patches ------------------------------------------------------------------------------------------------------


def outdated(node: Node, boot: str) -> Patch:
    """What has to be taken back before the devices are read for the first time.

    That is what was read before the host booted, or before a change that was cut off, and what nobody has read.
    """
    if readings.published_modes(node.annotations, boot):
        return Patch()
    labels = {key: node.labels.get(key, "") for key in (READY_LABEL, STATE_LABEL)}
    claims: dict[str, str | None] = {key: "" for key, value in labels.items() if value not in ("", FAILED)}
    annotations: dict[str, str | None] = {}
    if readings.names_modes(node.annotations):
        annotations[DEVICES_ANNOTATION] = readings.without_modes(node.annotations, boot)
    return Patch(claims, annotations).beyond(node)


def changing(node: Node, known: Reading, words: str, with_components: bool) -> Patch:
    """Not ready, on the way to the request, no mode of any device any more, and what the component labels were.

    All of it must stand before a component is paused.
    """
    annotations: dict[str, str | None] = {CHANGING_ANNOTATION: words}
    annotations[DEVICES_ANNOTATION] = readings.without_modes({DEVICES_ANNOTATION: known.text()}, known.boot)
    if with_components:
        taken = components.taken_down(node.labels, journal.read(node.annotations))
        annotations[JOURNAL_ANNOTATION] = taken.text()
    return Patch({READY_LABEL: "", STATE_LABEL: ""}, annotations).beyond(node)


def restored(node: Node) -> Patch:
    """Components put back, and nothing else: whatever the API refuses of the rest, they come back."""
    return Patch(components.restored(node.labels, journal.read(node.annotations)))


def cordoned() -> Patch:
    """No new pods, and the note of who did that: one patch, so that no kill comes between."""
    return Patch({}, {CORDONED_ANNOTATION: "true"}, True)


def uncordoned(node: Node) -> Patch:
    """New pods again, where the CC manager has cordoned the node."""
    return Patch({}, {CORDONED_ANNOTATION: None}, False) if CORDONED_ANNOTATION in node.annotations else Patch()


def told(node: Node, status: Status, labels_only: bool = False, audited: str = "", answered: str = "") -> Patch:
    """The status; with its annotations the mark of the change and the journal are taken away.

    ``audited``: the last audit record, which others can hold the host's records against. ``answered``: the retry
    annotation that stood before the devices were last read: who has set it knows that this is no older reading.
    """
    labels: dict[str, str | None] = {STATE_LABEL: status.state, READY_LABEL: status.ready}
    if labels_only:
        return Patch(labels).beyond(node)
    annotations: dict[str, str | None] = {CHANGING_ANNOTATION: None}
    if not components.paused(node.labels):
        annotations[JOURNAL_ANNOTATION] = None
    if status.reading is not None:
        annotations[DEVICES_ANNOTATION] = status.reading.text()
    annotations[REASON_ANNOTATION] = status.reason or None
    annotations[RETRIED_ANNOTATION] = answered if 0 < len(answered) <= RETRIED_MAX else None
    if audited:
        annotations[AUDIT_ANNOTATION] = audited
    return Patch(labels, _fitting(node, annotations)).beyond(node)


def _fitting(node: Node, annotations: Mapping[str, str | None]) -> dict[str, str | None]:
    """The annotations, cut to what the API takes beside those of others; one that does not fit at all is removed."""
    room = ANNOTATIONS_MAX_BYTES - sum(
        len(key.encode()) + len(value.encode()) for key, value in node.annotations.items() if key not in annotations
    )
    fitting: dict[str, str | None] = {}
    for key, value in annotations.items():
        left = room - len(key.encode())
        text = _cut(value, min(left, REASON_MAX_BYTES)) if value and key == REASON_ANNOTATION else value
        fits = bool(text) and len((text or "").encode()) <= left
        fitting[key] = text if fits else None
        room -= len(key.encode()) + len((text or "").encode()) if fits else 0
    return fitting


def _cut(text: str, limit_bytes: int) -> str:
    """The text, or as much of its beginning as fits, with an end that says so."""
    if len(text.encode()) <= limit_bytes:
        return text
    end = " ..."
    return text.encode()[: max(0, limit_bytes - len(end))].decode(errors="ignore") + end if limit_bytes > 8 else ""
