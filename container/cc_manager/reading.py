# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices, from the modules' answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from .names import CHANGING_ANNOTATION, DEVICES_ANNOTATION, INVALID, MIXED, MODES, OFF, ON, PPCIE, UNSUPPORTED

if TYPE_CHECKING:
    from .answers import ChangedDevice, DeviceEntry, HostFacts, InfoAnswer

GPU = "gpu"
YES, NO, UNKNOWN = "yes", "no", "unknown"
FREE, USED = "free", "used"  # or unknown
READ_MODES = (*MODES, UNSUPPORTED, INVALID)


class BadAnswer(ValueError):
    """A module's answer does not have the form of one; the text says what is missing."""


@dataclass(frozen=True)
class Device:
    """One GPU or NVSwitch. ``mode`` None: not known. ``use``: free, used or unknown.

    The mode of a used device is the one read before it was used.
    """

    address: str
    kind: str = GPU
    name: str = ""
    supported: tuple[str, ...] = ()
    mode: str | None = None
    pending: str | None = None
    use: str = FREE
    unproven: bool = False
    problem: str = ""

    @property
    def is_gpu(self) -> bool:
        """False for an NVSwitch."""
        return self.kind == GPU

    @property
    def in_use(self) -> bool:
        """True when somebody uses it."""
        return self.use == USED

    @property
    def is_unread(self) -> bool:
        """True when a change left the mode unknown: another reading tells."""
        return self.mode is None and self.problem == UNREAD

    def is_in(self, wanted: str) -> bool:
        """True when the device is in the mode and stays in it over a reset."""
        if self.mode != wanted or self.pending not in (None, wanted):
            return False
        return not (self.unproven and wanted in (ON, PPCIE))


@dataclass(frozen=True)
class Reading:
    """All devices of the node, and the boot of the host in which they were read (Linux's boot ID).

    ``host_support``: whether the host can do confidential computing (yes, no, unknown). ``gone``: the devices that were
    there before, in this boot, and are not there any more.
    """

    devices: tuple[Device, ...] = ()
    host_support: str = UNKNOWN
    boot: str = ""
    gone: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Why modes could not be read; use by somebody is none."""
        unread = [device.address for device in self.devices if device.is_unread]
        others = [device.problem for device in self.devices if device.problem not in ("", UNREAD) and not device.in_use]
        return [*others, f"{', '.join(unread)}: {UNREAD}"] if unread else others

    @property
    def is_unread(self) -> bool:
        """True when a change left modes unknown."""
        return any(device.is_unread for device in self.devices)

    def only(self, addresses: Iterable[str]) -> Reading:
        """The same, of some of the devices."""
        chosen = set(addresses)
        devices = tuple(one for one in self.devices if one.address in chosen)
        return replace(self, devices=devices, gone=tuple(one for one in self.gone if one in chosen))

    def shared_mode(self) -> str | None:
        """The mode of all GPUs, 'mixed' if they differ, None if one is not known. A GPU without CC is off."""
        modes = {OFF if one.mode == UNSUPPORTED else one.mode for one in self.devices if one.is_gpu}
        if not modes or None in modes:
            return None
        shared = modes.pop() if len(modes) == 1 else MIXED
        # NVSwitches take part in PPCIe.
        return MIXED if shared == PPCIE and any(one.mode != PPCIE for one in self.devices) else shared

    def knowing(self, known: Mapping[str, str]) -> Reading:
        """The same, with modes that are known from before for devices that are in use and were not touched.

        A mode changes at resets only, and nobody resets a device under its user.
        """
        return replace(
            self,
            devices=tuple(
                replace(one, mode=known[one.address])
                if one.in_use and one.mode is None and one.address in known
                else one
                for one in self.devices
            ),
        )

    def after(self, before: Iterable[str]) -> Reading:
        """The same, beside the addresses that were there before."""
        present = {one.address for one in self.devices}
        return replace(self, gone=tuple(sorted(set(before) - present)))

    @property
    def addresses(self) -> list[str]:
        """Of all devices, those that are gone too."""
        return [*(one.address for one in self.devices), *self.gone]

    def modes(self) -> dict[str, str]:
        """Address to mode where it is known."""
        return {one.address: one.mode for one in self.devices if one.mode is not None}

    def text(self) -> str:
        """The annotation's value."""
        entries: dict[str, dict[str, Any]] = {}
        for one in self.devices:
            entry: dict[str, Any] = {"kind": one.kind, "mode": one.mode, "name": one.name, "boot": self.boot}
            if one.pending not in (None, one.mode):
                entry["pending"] = one.pending
            if one.in_use:
                entry["in_use"] = True
            if one.problem and not one.in_use:
                entry["problem"] = one.problem
            entries[one.address] = entry
        for address in self.gone:
            entries[address] = {"mode": None, "boot": self.boot, "gone": True}
        return json.dumps(entries, sort_keys=True)

    def unread(self, addresses: Iterable[str]) -> Reading:
        """The same, with the modes of these devices unknown."""
        chosen = set(addresses)
        devices = tuple(
            replace(one, mode=None, pending=None, problem=UNREAD) if one.address in chosen else one
            for one in self.devices
        )
        return replace(self, devices=devices)


UNREAD = "the mode is not known, because a change of it did not end with an answer."
NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


def _published(annotations: Mapping[str, str], boot: str) -> dict[str, Any]:
    """Address to mode, as published in this boot of the host. Nothing of an annotation that is not ours counts.

    What was read before the host booted says nothing: a power cycle resets devices, and knobs may have changed.
    """
    try:
        found = json.loads(annotations.get(DEVICES_ANNOTATION, "{}"))
        return {str(address): entry["mode"] for address, entry in found.items() if entry["boot"] == boot}
    except NOT_OURS:
        return {}


def published_addresses(annotations: Mapping[str, str], boot: str) -> list[str]:
    """The devices that an earlier process has seen in this boot of the host."""
    return list(_published(annotations, boot))


def published_modes(annotations: Mapping[str, str], boot: str) -> dict[str, str]:
    """Address to mode as an earlier process has published them in this boot, unless it was ended during a change."""
    if CHANGING_ANNOTATION in annotations:
        return {}
    known = _published(annotations, boot)
    return {address: mode for address, mode in known.items() if isinstance(mode, str) and mode in READ_MODES}


def names_modes(annotations: Mapping[str, str]) -> bool:
    """True when the annotation gives a device a mode, whoever wrote it, and when."""
    try:
        return any(entry.get("mode") for entry in json.loads(annotations.get(DEVICES_ANNOTATION, "{}")).values())
    except NOT_OURS:
        return False


def without_modes(annotations: Mapping[str, str], boot: str) -> str | None:
    """The annotation's value that names the same devices and no mode; None if there is nothing to name."""
    entries = {address: {"mode": None, "boot": boot} for address in _published(annotations, boot)}
    return json.dumps(entries, sort_keys=True) if entries else None


def read(result: Mapping[str, Any], boot: str = "") -> Reading:
    """The reading in an answer of cc_mode_info, in this boot of the host. Raises BadAnswer."""
    answer = cast("InfoAnswer", result)  # what has another form raises one of NOT_OURS
    try:
        return Reading(tuple(_device(one) for one in answer["devices"]), _host_support(answer["host"]), boot)
    except NOT_OURS as error:
        raise BadAnswer(f"The answer about the devices is none: {type(error).__name__} {error}.") from error


def _device(entry: DeviceEntry) -> Device:
    problem = entry["problem"]
    use = entry.get("use") or (USED if entry["in_use"] else FREE)
    return Device(
        entry["address"],
        entry["kind"],
        entry["name"],
        tuple(entry["supported_modes"]),
        entry["mode"] if entry["mode"] in READ_MODES else None,
        entry["pending_mode"],
        use if use in (FREE, USED) else UNKNOWN,
        entry["settings_unproven"],
        f"{problem['cause']} {problem['remedy']}" if problem else "",
    )


def _host_support(host: HostFacts) -> str:
    """One processor has one vendor: the other's module is never loaded, so one clear answer is enough."""
    values = [host["tdx"]["value"], host["sev_snp"]["value"]]
    return YES if YES in values else NO if NO in values else UNKNOWN


def changed(
    before: Reading, entries: Iterable[ChangedDevice], asked: Iterable[str], opened: bool, done: bool
) -> Reading:
    """The reading after a run of cc_mode that was asked to change some devices, from its answer.

    What the run read back counts. Once its gate was open, a device without such an answer is unread, whatever was known
    before. A run that is done leaves nothing pending and nothing unproven.
    """
    devices = {one.address: one for one in before.devices}
    for entry in entries:
        one = _after_run(entry, devices, done)
        if one is not None:
            devices[one.address] = one
    found = replace(before, devices=tuple(devices[address] for address in sorted(devices)))
    if not opened:
        return found
    answered = set(answers(entries))
    return found.unread(address for address in asked if address not in answered)


def answers(entries: Iterable[ChangedDevice]) -> dict[str, str]:
    """Address to mode as a run of cc_mode has read it back."""
    found = {str(one.get("address")): one.get("mode_after") for one in entries}
    return {address: mode for address, mode in found.items() if mode in READ_MODES}


def entries_of(result: Mapping[str, Any]) -> list[ChangedDevice]:
    """The devices in an answer of cc_mode, those that are some."""
    found = result.get("devices")
    return [cast("ChangedDevice", one) for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _after_run(entry: ChangedDevice, devices: Mapping[str, Device], done: bool) -> Device | None:
    """What an entry says of its device; None when it says nothing that can be understood, or nothing new."""
    try:
        address, mode = entry["address"], entry["mode_after"]
        known = devices.get(address, Device(address, entry["kind"], entry["name"]))
        touched = entry["staged"] or entry["reset"] or mode != entry["mode_before"]
        supported = tuple(entry["supported_modes"]) or known.supported
        was_reset = entry["reset"]
    except NOT_OURS:
        return None
    if mode not in READ_MODES:
        # Not read by a run that touched nothing: what was known stays.
        return replace(known, mode=None, pending=None, use=FREE, problem=UNREAD) if touched else known
    pending = None if done or touched else known.pending
    unproven = known.unproven and not done and not was_reset
    return replace(known, supported=supported, mode=mode, pending=pending, use=FREE, unproven=unproven, problem="")
