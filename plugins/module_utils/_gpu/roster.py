# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which devices a run is for: those that are named, or all, among them those that were there in this boot of the host.

The kernel takes a device that has gone off its list, and with it the question what became of it. So the devices of this
boot are written down, and one that is missing is told. Who took a device out on purpose removes the file.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple, Sequence

from .._core.errors import ExplainedError, InvalidRequest
from .._core.files import read_json, replace_json
from .._core.wait import SYSTEM_CLOCK, Clock, poll
from .._pci.bus import Bus, Function
from .._pci.errors import DeviceGone, NoDevices
from .kind import is_identified, is_nvswitch, may_be_nvidia
from .mode import GPU, NVSWITCH

# The kernel removes the entry of a device in a few milliseconds.
SETTLE_S = 1.0
SETTLE_POLL_S = 0.01

BOOT_ID = "proc/sys/kernel/random/boot_id"


class Lost(NamedTuple):
    """A device that was there earlier in this boot of the host."""

    address: str
    kind: str
    problem: ExplainedError


class Roster:
    """The devices of one bus in this boot. ``note`` is for who holds the bus's lock."""

    def __init__(self, bus: Bus, root: str = "/", clock: Clock = SYSTEM_CLOCK) -> None:
        self._bus = bus
        self._path = bus.lock_path().rpartition(".lock")[0] + ".seen"
        self._boot = _text(Path(root) / BOOT_ID)
        self.present = _settled(bus, clock)

    def chosen(self, addresses: Sequence[str]) -> list[Function]:
        """The functions with these addresses, or all.

        Raises NoDevices, DeviceGone for one that was there, InvalidRequest naming what is not there.
        """
        lost = {one.address: one for one in self.lost()}
        if not self.present and not lost:
            raise none_found(self._bus.name)
        if not addresses:
            return list(self.present)
        by_address = {function.address: function for function in self.present}
        for address in addresses:
            if address in lost:
                raise lost[address].problem
        missing = [address for address in addresses if address not in by_address]
        if missing:
            raise self._not_there(missing)
        return [by_address[address] for address in dict.fromkeys(addresses)]

    def lost(self) -> list[Lost]:
        """The devices of this boot that are no longer listed."""
        here = {function.address for function in self.present}
        return [
            Lost(address, kind, self._gone(address)) for address, kind in self._seen().items() if address not in here
        ]

    def note(self) -> None:
        """Write down what is there. Raises NotPermitted."""
        if not self._bus.forgets:
            return
        here = {one.address: NVSWITCH if is_nvswitch(one) else GPU for one in self.present if is_identified(one)}
        seen = self._seen()
        if {**seen, **here} != seen:
            replace_json(self._path, {"boot": self._boot, "devices": {**seen, **here}}, "list of devices seen")

    def _seen(self) -> dict[str, str]:
        noted = read_json(self._path) if self._bus.forgets else None
        if not isinstance(noted, dict) or noted.get("boot") != self._boot or not isinstance(noted.get("devices"), dict):
            return {}
        return {str(address): str(kind) for address, kind in sorted(noted["devices"].items())}

    def _gone(self, address: str) -> ExplainedError:
        return DeviceGone(
            "%s: the device was there since the host's boot, and is not on the bus any more." % address,
            "Look for PCIe errors in the kernel's log, rescan the bus or power-cycle the host. If it was taken out on "
            "purpose, remove the file %s." % self._path,
            device=address,
            path=self._path,
        )

    def _not_there(self, missing: Sequence[str]) -> ExplainedError:
        virtual = {one.address for one in self._bus.find() if one.is_virtual and one.address in missing}
        if virtual:
            return virtual_function(sorted(virtual))
        present = sorted(function.address for function in self.present)
        return InvalidRequest(
            "There is no NVIDIA GPU or NVSwitch at %s." % ", ".join(missing),
            "Present on %s: %s." % (self._bus.name, ", ".join(present)),
            missing=list(missing),
            present=present,
        )


def none_found(where: str) -> ExplainedError:
    """The error for a bus without devices."""
    return NoDevices(
        "No NVIDIA GPU or NVSwitch was found on %s." % where,
        "Check with lspci -d 10de: that the host has one; in a container, that /sys is the host's.",
        bus=where,
    )


def virtual_function(addresses: Sequence[str]) -> ExplainedError:
    """The error for virtual functions that were named."""
    return InvalidRequest(
        "%s: a virtual function (SR-IOV) has no mode of its own." % ", ".join(addresses),
        "Name the physical function whose it is: its mode is that of all its virtual functions.",
        virtual=list(addresses),
    )


def check_named(addresses: Sequence[str], opened: Sequence[str]) -> None:
    """Raise InvalidRequest for what was named and turned out to be no device when it was opened."""
    strangers = sorted(set(addresses) - set(opened))
    if strangers:
        raise InvalidRequest(
            "There is no NVIDIA GPU or NVSwitch at %s." % ", ".join(strangers),
            "Leave it out of devices and modes; of a virtual function (SR-IOV), name the physical one.",
            missing=strangers,
        )


def _settled(bus: Bus, clock: Clock) -> list[Function]:
    """What is listed now. An entry that does not say what it is may be that of any device on its way out or in."""
    with contextlib.suppress(TimeoutError):
        poll(lambda: not bus.forgets or all(map(is_identified, bus.find())), SETTLE_S, SETTLE_POLL_S, clock)
    return bus.find(may_be_nvidia)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
