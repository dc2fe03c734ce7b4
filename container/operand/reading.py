# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What is known of the devices, from the modules' answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .names import DEVICES_ANNOTATION, INVALID, MIXED, MODES, OFF, ON, PPCIE, UNSUPPORTED

GPU = "gpu"
YES, NO, UNKNOWN = "yes", "no", "unknown"
READ_MODES = (*MODES, UNSUPPORTED, INVALID)


@dataclass(frozen=True)
class Device:
    """One GPU or NVSwitch. ``mode`` None: not known; ``in_use``: the mode is the one read before it was in use."""

    address: str
    kind: str = GPU
    name: str = ""
    supported: tuple[str, ...] = ()
    mode: str | None = None
    pending: str | None = None
    in_use: bool = False
    unproven: bool = False
    problem: str = ""

    @property
    def is_gpu(self) -> bool:
        """False for an NVSwitch."""
        return self.kind == GPU

    def is_in(self, wanted: str) -> bool:
        """True when the device is in the mode and stays in it over a reset."""
        if self.mode != wanted or self.pending not in (None, wanted):
            return False
        return not (self.unproven and wanted in (ON, PPCIE))


@dataclass(frozen=True)
class Reading:
    """All devices of the node, and the boot of the host in which they were read (Linux's boot ID).

    ``host_support``: whether the host can do confidential computing (yes, no, unknown). ``gone``: the devices that this
    process has seen before and that are not there any more.
    """

    devices: tuple[Device, ...] = ()
    host_support: str = UNKNOWN
    boot: str = ""
    gone: tuple[str, ...] = ()

    @property
    def problems(self) -> list[str]:
        """Why modes could not be read; use by somebody is none."""
        return [device.problem for device in self.devices if device.problem and not device.in_use]

    def shared_mode(self) -> str | None:
        """The mode of all GPUs, 'mixed' if they differ, None if one is not known. A GPU without CC is off."""
        modes = {OFF if one.mode == UNSUPPORTED else one.mode for one in self.devices if one.is_gpu}
        if not modes or None in modes:
            return None
        return modes.pop() if len(modes) == 1 else MIXED

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

    def after(self, before: Reading) -> Reading:
        """The same, beside what was there before."""
        present = {one.address for one in self.devices}
        known = {*before.gone, *(one.address for one in before.devices)}
        return replace(self, gone=tuple(sorted(known - present)))

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
        return json.dumps(entries, sort_keys=True)


def is_of_another_boot(annotations: Mapping[str, str], boot: str) -> bool:
    """True when what the node says was read before the host booted."""
    try:
        entries = json.loads(annotations.get(DEVICES_ANNOTATION, "{}")).values()
        return any(entry["boot"] != boot for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def published_modes(annotations: Mapping[str, str], boot: str) -> dict[str, str]:
    """Address to mode as an earlier process has published them in this boot of the host.

    What was read before the host booted says nothing: a power cycle resets devices, and knobs may have changed.
    """
    try:
        found = json.loads(annotations.get(DEVICES_ANNOTATION, "{}"))
        known = {str(address): entry["mode"] for address, entry in found.items() if entry["boot"] == boot}
        return {address: mode for address, mode in known.items() if isinstance(mode, str) and mode in READ_MODES}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def read(result: Mapping[str, Any], boot: str = "") -> Reading:
    """The reading in an answer of cc_mode_info, in this boot of the host."""
    return Reading(tuple(_device(one) for one in result["devices"]), _host_support(result["host"]), boot)


def _device(entry: Mapping[str, Any]) -> Device:
    problem = entry["problem"]
    return Device(
        entry["address"],
        entry["kind"],
        entry["name"],
        tuple(entry["supported_modes"]),
        entry["mode"],
        entry["pending_mode"],
        entry["in_use"],
        entry["settings_unproven"],
        f"{problem['cause']} {problem['remedy']}" if problem else "",
    )


def _host_support(host: Mapping[str, Mapping[str, str]]) -> str:
    """One processor has one vendor: the other's module is never loaded, so one clear answer is enough."""
    values = [host[name]["value"] for name in ("tdx", "sev_snp")]
    return YES if YES in values else NO if NO in values else UNKNOWN


def changed(before: Reading, entries: Iterable[Mapping[str, Any]], done: bool) -> Reading:
    """The reading after a run of cc_mode, from the devices in its answer: what it read back, None where it did not.

    A run that is done leaves nothing pending and nothing unproven.
    """
    devices = {one.address: one for one in before.devices}
    for entry in entries:
        address, mode = entry["address"], entry["mode_after"]
        known = devices.get(address, Device(address, entry["kind"], entry["name"], tuple(entry["supported_modes"])))
        touched = entry["staged"] or entry["reset"] or mode != entry["mode_before"]
        if mode is None and not touched:
            devices[address] = known  # the run could not read it either, and changed nothing
            continue
        problem = "" if mode is not None else f"{address}: the mode could not be read back after the change."
        pending = None if done or touched else known.pending
        unproven = known.unproven and not done and not entry["reset"]
        supported = tuple(entry["supported_modes"]) or known.supported
        devices[address] = replace(
            known, supported=supported, mode=mode, pending=pending, in_use=False, unproven=unproven, problem=problem
        )
    return replace(before, devices=tuple(devices[address] for address in sorted(devices)))
