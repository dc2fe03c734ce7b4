# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The PCI functions of this machine, whoever made them: what the kernel says of each, and which ones are meant."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest
from .bus import parse_address
from .errors import DeviceAbsent, NoDevices
from .sysfs import SysfsFunction

DEVICES = "sys/bus/pci/devices"

_ID = re.compile(r"^(?:0x)?([0-9a-fA-F]{4})$")
_CLASS = re.compile(r"^(?:0x)?((?:[0-9a-fA-F]{2}){1,3})$")


class PciFunction(SysfsFunction):
    """One folder of /sys/bus/pci/devices, with what decides about its driver."""

    def driver_override(self) -> Optional[str]:
        """The only driver that may bind; None when any may. The kernel writes '(null)' for none."""
        try:
            text = (self.path / "driver_override").read_text(errors="backslashreplace").strip()
        except OSError:
            return None
        return text if text not in ("", "(null)") else None

    @property
    def id(self) -> str:
        """'10de:2331'."""
        return "%04x:%04x" % (self.vendor_id, self.device_id)


class Match(NamedTuple):
    """Devices by what they are. An empty list does not restrict; a class may be shortened from the right ('03')."""

    vendor: str = "10de"
    devices: Sequence[str] = ()
    classes: Sequence[str] = ()

    def checked(self) -> Match:
        """The same in lower case without 0x. Raises InvalidRequest."""
        return Match(
            _hex(self.vendor, _ID, "a vendor id", "four hex digits, such as '10de'"),
            [_hex(one, _ID, "a device id", "four hex digits, such as '2331'") for one in self.devices],
            [_hex(one, _CLASS, "a PCI class", "two, four or six hex digits, such as '0302'") for one in self.classes],
        )

    def takes(self, function: PciFunction) -> bool:
        """Whether a function is meant."""
        return (
            "%04x" % function.vendor_id == self.vendor
            and (not self.devices or "%04x" % function.device_id in self.devices)
            and (not self.classes or ("%06x" % function.class_code).startswith(tuple(self.classes)))
        )


def _hex(text: str, pattern: re.Pattern[str], what: str, form: str) -> str:
    match = pattern.match(str(text).strip())
    if match is None:
        raise InvalidRequest(
            "%r is not %s." % (text, what), "Write it as %s; in YAML put it in quotes." % form, value=str(text)
        )
    return match.group(1).lower()


def find(root: Path) -> list[PciFunction]:
    """Every PCI function that the kernel lists, by address."""
    folder = root / DEVICES
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    return [PciFunction(folder / name, root) for name in names]


def choose(present: Sequence[PciFunction], addresses: Sequence[str], match: Optional[Match]) -> list[PciFunction]:
    """The functions at the addresses, or those that match. Raises InvalidRequest, DeviceAbsent, NoDevices."""
    if bool(addresses) == (match is not None):
        raise InvalidRequest("Neither or both of devices and match are given.", "Give one of them.")
    if match is not None:
        wanted = match.checked()
        chosen = [function for function in present if wanted.takes(function) and not function.is_bridge]
        if not chosen:
            raise NoDevices(
                "No PCI device matches vendor %s, devices %s, classes %s."
                % (wanted.vendor, ", ".join(wanted.devices) or "any", ", ".join(wanted.classes) or "any"),
                "See with lspci -nn what there is.",
            )
        return chosen
    by_address = {function.address: function for function in present}
    full = list(dict.fromkeys(parse_address(address) for address in addresses))
    missing = [address for address in full if address not in by_address]
    if missing:
        raise DeviceAbsent(
            "There is no PCI device at %s." % ", ".join(missing),
            "See with lspci -D which addresses there are; addresses can change when cards are moved.",
            missing=missing,
        )
    bridges = [address for address in full if by_address[address].is_bridge]
    if bridges:
        raise InvalidRequest(
            "%s is a bridge." % ", ".join(bridges),
            "Name the devices behind it: bridges keep their driver.",
            bridges=bridges,
        )
    return [by_address[address] for address in full]
