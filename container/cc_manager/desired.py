# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The request: what the user, or the default, asks of the node's devices. Nothing here touches anything."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from .names import MODE_LABEL, MODES, NONE, OFF, PPCIE, UNSUPPORTED, WANTED_ANNOTATION
from .node import Node
from .reading import NO, UNKNOWN, Device, Reading

# lspci leaves the domain out, nvidia-smi writes it with eight digits, Intel VMD's has five.
ADDRESS = re.compile(r"(?:([0-9a-fA-F]{1,8}):)?([0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7])")
DEFAULT = "the default mode"


class Refused(ValueError):
    """The request cannot be carried out; nothing was touched. The text says why and what to do."""


@dataclass(frozen=True)
class Desired:
    """A mode for all devices, and others for single ones. ``mode`` None: only for those."""

    mode: str | None
    devices: tuple[tuple[str, str], ...] = ()

    @property
    def words(self) -> str:
        """'on', 'on, 0000:17:00.0 devtools'."""
        return ", ".join([*([self.mode] if self.mode else []), *(f"{where} {mode}" for where, mode in self.devices)])


@dataclass(frozen=True)
class HostUnknown:
    """There is no request yet, because it is not known what the host can do."""

    reason: str


def of(node: Node, default: str, host_support: str) -> Desired | HostUnknown | None:
    """The request of a node; None when neither label nor annotation nor default asks for anything. Raises Refused.

    The default counts for a node without the label. On a host without confidential computing it is off; as long as it
    is not known what the host can do, nothing is done.
    """
    label = node.labels.get(MODE_LABEL)
    devices = _devices(node.annotations.get(WANTED_ANNOTATION))
    if label:
        return Desired(_mode(label, f"The label {MODE_LABEL}"), devices)
    if default:
        mode = _mode(default, DEFAULT[0].upper() + DEFAULT[1:])
        if host_support == NO:
            return Desired(OFF, devices)
        if host_support == UNKNOWN and mode != OFF:
            return HostUnknown(
                f"Whether {DEFAULT} {mode} applies is not known: neither kvm_intel nor kvm_amd is loaded, so the "
                f"host does not say whether it can do confidential computing. Load it, or set the label {MODE_LABEL}."
            )
        return Desired(mode, devices)
    return Desired(None, devices) if devices else None


def _mode(text: str, what: str) -> str:
    if text not in MODES:
        raise Refused(f"{what} is {text!r}, which is not a mode. Use one of {', '.join(MODES)}.")
    return text


def _devices(text: str | None) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    what = f"The annotation {WANTED_ANNOTATION}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{what} is not JSON: {error}. Give a mapping from PCI address to mode.") from error
    if not isinstance(found, dict):
        raise Refused(f"{what} is not a mapping. Give one from PCI address to mode.")
    devices: dict[str, str] = {}
    for key, mode in found.items():
        address = linux_address(key)
        if not address:
            raise Refused(f"{what} names {key!r}, which is not a PCI address. Write it as 0000:17:00.0.")
        if address in devices:
            raise Refused(f"{what} names {address} twice. Name each device once.")
        devices[address] = mode if mode == NONE else _mode(str(mode), f"{what} for {address}")
    return tuple(sorted(devices.items()))


def linux_address(text: str) -> str:
    """A PCI address as Linux writes it, from the ways in which people and programs do; empty if it is none."""
    match = ADDRESS.fullmatch(text.strip())
    return f"{int(match.group(1) or '0', 16):04x}:{match.group(2).lower()}" if match else ""


def wanted(desired: Desired, reading: Reading) -> dict[str, str]:
    """The mode that each device shall be in; devices of which nothing is asked are left out. Raises Refused.

    NVSwitches know no CC modes: beside GPUs that get one they are off. A GPU without CC is off as it is.
    """
    single = dict(desired.devices)
    present = {device.address for device in reading.devices}
    missing = sorted(address for address in single if address not in present and single[address] != NONE)
    if missing:
        raise Refused(
            f"The annotation {WANTED_ANNOTATION} names {', '.join(missing)}, where there is no NVIDIA GPU or NVSwitch. "
            f"Present: {', '.join(sorted(present)) or 'none'}."
        )
    gone = [address for address in reading.gone if single.get(address) != NONE]
    if desired.mode is not None and gone:
        raise Refused(
            f"{GONE.format(', '.join(gone))} A mode for all devices needs all of them. To go on without one, "
            f'give it the mode "{NONE}" in the annotation {WANTED_ANNOTATION}.'
        )
    modes = {}
    unable = []
    for device in reading.devices:
        mode = single.get(device.address, _general(desired.mode, device))
        if mode in (None, NONE) or (mode == OFF and device.mode == UNSUPPORTED):
            continue
        if device.mode is not None and not device.in_use and mode not in device.supported:
            does = ", ".join(device.supported) or "no mode"
            unable.append(f"{device.address} ({device.name or 'unknown'}) cannot do {mode}; it supports {does}")
        modes[device.address] = mode
    if unable:
        raise Refused(f"{'; '.join(unable)}. Choose a mode that every device supports, or update its firmware.")
    return modes


GONE = "No longer there: {}. Look for PCIe errors in the host's log; rescan the bus or power-cycle the host."


def _general(mode: str | None, device: Device) -> str | None:
    if device.is_gpu or mode in (None, PPCIE):
        return mode
    return OFF


def satisfied(desired: Desired, reading: Reading) -> bool:
    """True when every device is where the request wants it. Raises Refused."""
    modes = wanted(desired, reading)
    return all(device.is_in(modes[device.address]) for device in reading.devices if device.address in modes)


def counted(desired: Desired, reading: Reading) -> list[str]:
    """The devices whose modes make the node's state.

    All, when a mode was asked for all. When it was asked for single ones only, or a device was given the mode "none":
    those that were asked about, and of the others each that could be given to a confidential guest: one that knows CC
    modes and whose mode was read. That one may be in another mode, and then the node says so.
    """
    single = dict(desired.devices)
    if desired.mode is not None and NONE not in single.values():
        return reading.addresses
    others = [
        one.address
        for one in reading.devices
        if one.address not in single and (desired.mode is not None or _can_be_given(one))
    ]
    gone = [address for address in reading.gone if desired.mode is not None and address not in single]
    return sorted([address for address, mode in single.items() if mode != NONE] + others + gone)


def _can_be_given(device: Device) -> bool:
    return device.mode not in (None, UNSUPPORTED) and not device.in_use


def needs_naming(desired: Desired, reading: Reading) -> bool:
    """True when one mode for all devices does not say it: then each device's mode has to be given."""
    every = wanted(desired, reading)
    return bool(desired.devices) or len(every) < len(reading.devices)
