# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the GPUs and NVSwitches bring along: NVIDIA's tool, the devices, their drivers and modes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Mapping, Optional, Sequence

from .._core.errors import ExplainedError, InvalidRequest, raise_all
from .._core.wait import Clock
from .._gpu import admin_tools, report
from .._gpu.mode import NVSWITCH, OFF, PPCIE
from .._gpu.roster import Roster
from .._pci.bus import Bus, Function
from .._pci.use import VFIO_DRIVERS
from .requirement import MISSING, OK, UNKNOWN, Requirement

if TYPE_CHECKING:
    from .._core.answers import DeviceEntry

HOST_DRIVERS = ("nvidia", "nouveau")
# Platform drivers of firmware's framebuffer, and what their devices are called.
FRAMEBUFFERS = (("simple-framebuffer", "simple-framebuffer.*"), ("efi-framebuffer", "efi-framebuffer.*"))
BY_THE_ROLE = "Use the role confidential.gpu.vfio"


class Gpus:
    """The devices of one bus. Raises InvalidRequest for addresses at which there is none."""

    def __init__(
        self,
        bus: Bus,
        addresses: Sequence[str],
        tools_path: Optional[str],
        root: str,
        boot_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._addresses = addresses
        self._tools_path = tools_path
        self._root = root
        self._boot_timeout_s = boot_timeout_s
        self._clock = clock
        self._problem: Optional[ExplainedError] = None
        self._functions: Sequence[Function] = []
        roster = Roster(bus, root, clock)
        try:
            self._functions = roster.chosen(addresses)
            raise_all([] if addresses else [lost.problem for lost in roster.lost()])
        except InvalidRequest:
            raise
        except ExplainedError as error:
            self._problem = error
        self._tool = self._ask_tool()

    def requirements(self, wanted: Optional[str]) -> list[Requirement]:
        """All of this file; ``wanted`` is the mode that the devices should be in, None for any."""
        return [self._tool, self.devices(), self.host_driver(), self.binding(), self.modes(wanted)]

    def _ask_tool(self) -> Requirement:
        try:
            tools = admin_tools.load(self._tools_path)
        except ExplainedError as error:
            return Requirement("gpu_admin_tools", MISSING, error.cause.rstrip("."), error.remedy)
        return Requirement("gpu_admin_tools", OK, tools.version)

    def devices(self) -> Requirement:
        """At least one, and each that was there since the host's boot."""
        if self._problem is not None:
            return Requirement("devices", MISSING, self._problem.cause.rstrip("."), self._problem.remedy)
        return Requirement("devices", OK, ", ".join(function.address for function in self._functions))

    def host_driver(self) -> Requirement:
        """No driver of the host's own that has a device, or could take one."""
        bound = _by_driver([one for one in self._functions if one.driver() in HOST_DRIVERS])
        if bound:
            remedy = "%s with vfio_remove_host_driver: true, or unload and uninstall the driver." % BY_THE_ROLE
            return Requirement("host_driver", MISSING, _listed(bound), remedy)
        console = self._console()
        if console:
            remedy = (
                "Make another display the first one in the firmware's set-up, or boot with "
                "initcall_blacklist=sysfb_init: the firmware's framebuffer holds the device's memory."
            )
            return Requirement("host_driver", MISSING, "boot console: %s" % ", ".join(console), remedy)
        loaded = [name for name in HOST_DRIVERS if (Path(self._root) / "sys/module" / name).is_dir()]
        return Requirement("host_driver", OK, "%s: has no device" % ", ".join(loaded) if loaded else "none loaded")

    def _console(self) -> list[str]:
        """The devices on whose memory the kernel draws through the framebuffer that firmware left."""
        drivers = Path(self._root) / "sys/bus/platform/drivers"
        if not any(list((drivers / name).glob(device)) for name, device in FRAMEBUFFERS):
            return []
        return [one.address for one in self._functions if _text(one.sysfs_path(), "boot_vga") == "1"]

    def binding(self) -> Requirement:
        """Every device on a vfio driver."""
        here = [one for one in self._functions if one.sysfs_path() is not None]
        if not here:
            return Requirement(
                "binding", UNKNOWN, "no device that this host's kernel knows", "See the requirement devices."
            )
        others = [one for one in here if one.driver() not in VFIO_DRIVERS]
        if others:
            return Requirement("binding", MISSING, _listed(_by_driver(others)), "%s." % BY_THE_ROLE)
        return Requirement("binding", OK, _listed(_by_driver(here)))

    def modes(self, wanted: Optional[str]) -> Requirement:
        """Every device read, in a mode that is one, and in the wanted one."""
        if self._tool.state != OK or not self._functions:
            lacks = "devices" if self._tool.state == OK else "gpu_admin_tools"
            return Requirement("modes", UNKNOWN, "not read: without %s" % lacks, "See the requirement %s." % lacks)
        try:
            entries = report.read(
                self._bus,
                self._addresses,
                self._tools_path,
                self._root,
                boot_timeout_s=self._boot_timeout_s,
                clock=self._clock,
            )["devices"]
        except ExplainedError as error:
            return Requirement("modes", UNKNOWN, error.cause.rstrip("."), error.remedy)
        return judged(entries, wanted)


def judged(entries: Sequence[DeviceEntry], wanted: Optional[str]) -> Requirement:
    """The modes of the devices, as ``report.read`` gives them, beside the wanted one; None accepts any."""
    seen: dict[str, list[str]] = {}
    wrong, unread = [], []
    for entry in entries:
        mode = entry["mode"]
        problem = entry["problem"]
        pending = " (%s after a reset)" % entry["pending_mode"] if entry["reset_pending"] else ""
        seen.setdefault("%s%s" % (mode or "not read", pending), []).append(entry["address"])
        if mode is None or problem:
            unread.append(problem["remedy"] if problem else "")
        elif pending or mode not in entry["supported_modes"] or not _is_wanted(entry, wanted):
            wrong.append(entry["address"])
    words = "; ".join("%s: %s" % (mode, ", ".join(addresses)) for mode, addresses in sorted(seen.items()))
    if wrong:
        remedy = "Set a mode with confidential.gpu.cc_mode; leave devices out that cannot do it (%s)." % ", ".join(
            wrong
        )
        return Requirement("modes", MISSING, words, remedy)
    if unread:
        remedies = " ".join(dict.fromkeys(filter(None, unread)))
        return Requirement("modes", UNKNOWN, words, remedies or "See with confidential.gpu.cc_mode_info what they say.")
    return Requirement("modes", OK, words)


def _is_wanted(entry: DeviceEntry, wanted: Optional[str]) -> bool:
    # NVSwitches have no confidential computing: beside GPUs that have it they are off.
    mine = OFF if entry["kind"] == NVSWITCH and wanted not in (None, PPCIE) else wanted
    return mine is None or entry["mode"] == mine


def _by_driver(functions: Sequence[Function]) -> dict[str, list[str]]:
    drivers: dict[str, list[str]] = {}
    for function in functions:
        drivers.setdefault(function.driver() or "no driver", []).append(function.address)
    return drivers


def _listed(drivers: Mapping[str, Sequence[str]]) -> str:
    return "; ".join("%s: %s" % (driver, ", ".join(addresses)) for driver, addresses in sorted(drivers.items()))


def _text(folder: Optional[Path], name: str) -> str:
    try:
        return (folder / name).read_text(errors="backslashreplace").strip() if folder is not None else ""
    except OSError:
        return ""
