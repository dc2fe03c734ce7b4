# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Who uses a PCI function: free, used (by whom) or unknown (why, and what would tell). Unknown counts as used.

The witnesses, all below an injected root:

- processes that have a file of the function open or mapped, as far as /proc shows them;
- the vfio group, which the kernel opens for one process at a time. It is opened here and kept (``Claims``), so that no
  virtual machine can start meanwhile. Where /dev has no file of it, through a node of our own;
- ``enable`` of a function at vfio: the kernel counts it up while a process has the device itself (drivers/pci/pci.c,
  drivers/vfio/pci/vfio_pci_core.c), through a group or not;
- what the host made of the function through another driver (``driver_use``).

A function is asked together with what a reset of it takes along: its virtual functions and the others of its slot.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Iterable, Mapping, NamedTuple, Optional, Sequence

from .._core.errors import ExplainedError, NotPermitted, errno_words, raise_all
from . import driver_use, vfio
from .bus import Function
from .errors import DeviceBusy
from .processes import Processes, Wanted, look

VFIO_DRIVERS = vfio.DRIVERS

FREE = "free"
USED = "used"
UNKNOWN = "unknown"


class Holder(NamedTuple):
    """A process (pid 0: not visible from here) and the file, or what else shows that it holds a function."""

    address: str
    pid: int
    command: str
    file: str

    def words(self) -> str:
        """For a message."""
        if self.pid:
            return "process %d (%s) has %s open" % (self.pid, self.command, self.file)
        return self.file


class Doubt(NamedTuple):
    """Why it is not known whether a function is used, and what would tell."""

    address: str
    why: str
    remedy: str
    errno: Optional[int] = None


class Use(NamedTuple):
    """The answer for one function and all that is lost with its reset."""

    address: str
    holders: tuple[Holder, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def state(self) -> str:
        """FREE, USED or UNKNOWN."""
        if self.holders:
            return USED
        return UNKNOWN if self.doubts else FREE

    def error(self) -> Optional[ExplainedError]:
        """DeviceBusy, NotPermitted, or None for one that is free."""
        if self.holders:
            return busy(self.holders)
        return _unknown(self.doubts) if self.doubts else None


def refuse_unless_free(uses: Mapping[str, Use]) -> None:
    """Raise DeviceBusy for those that are used, as one, and NotPermitted for those of which it is not known."""
    held = sorted({holder for use in uses.values() for holder in use.holders})
    doubts = sorted({doubt for use in uses.values() if not use.holders for doubt in use.doubts})
    raise_all([*([busy(held)] if held else []), *([_unknown(doubts)] if doubts else [])])


def busy(holders: Iterable[Holder]) -> ExplainedError:
    """The error that names who holds what."""
    listed = list(holders)
    return DeviceBusy(
        "In use: %s." % "; ".join("%s: %s" % (holder.address, holder.words()) for holder in listed),
        "Stop what uses the device (shut the virtual machine down, unload the driver), or wait for it with busy: wait.",
        device=listed[0].address,
        holders=[holder._asdict() for holder in listed],
    )


def _unknown(doubts: Iterable[Doubt]) -> ExplainedError:
    listed = list(doubts)
    return NotPermitted(
        "Whether it is in use is not known. %s." % "; ".join("%s: %s" % (one.address, one.why) for one in listed),
        " ".join(dict.fromkeys(one.remedy for one in listed)),
        device=listed[0].address,
        doubts=[one._asdict() for one in listed],
        errno=listed[0].errno,
    )


class Claims:
    """Asks who uses functions, and keeps the vfio groups of those that are free open until it is closed.

    ``slot``: whether the other functions of a slot are asked too, which a reset takes along and a driver does not.
    """

    def __init__(self, root: str = "/", slot: bool = True, opener: Optional[vfio.Opener] = None) -> None:
        self._root = Path(root)
        self._slot = slot
        self._opener = opener or vfio.Opener()
        self._groups: dict[tuple[Optional[int], Optional[int]], int] = {}  # IOMMU group and device number to descriptor

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.release()

    def release(self) -> None:
        """Let go of all groups."""
        for descriptor in self._groups.values():
            os.close(descriptor)
        self._groups.clear()

    def take(self, functions: Iterable[Function]) -> dict[str, Use]:
        """The use of each function as it is now, by address; the groups of free ones are open after it.

        May be asked again: groups that are held already do not count against us.
        """
        parts = {function.address: self._parts(function) for function in functions}
        every = {part.address: part for found in parts.values() for part in found}
        processes = _processes_with(list(every.values()), self._root)
        single = {address: self._ask(part, processes) for address, part in every.items()}
        return {
            address: _together(address, [single[part.address] for part in found]) for address, found in parts.items()
        }

    def _parts(self, function: Function) -> Sequence[Function]:
        return [function, *function.virtual_functions(), *(function.siblings() if self._slot else ())]

    def _ask(self, function: Function, processes: Processes) -> Use:
        driver = function.driver()
        holders = [
            Holder(function.address, one.pid, one.command, one.key[1])
            for one in processes.opened
            if one.key[0] == function.address
        ]
        doubts: list[Doubt] = []
        if driver is None:
            doubts += _enabled_without_driver(function)
        elif driver in VFIO_DRIVERS:
            count = _enable_count(function)
            if count is None:
                doubts.append(_uncounted(function))
            elif count:
                holders.append(Holder(function.address, 0, "", "its vfio device is open"))
            if not holders:
                self._try_group(function, processes.blind, holders, doubts)
        else:
            holders += [Holder(function.address, 0, "", words) for words in driver_use.users(function, self._root)]
            why = driver_use.doubt(function, self._root, processes.blind)
            doubts += [Doubt(function.address, why, _stop_driver(driver))] if why else []
        return Use(function.address, tuple(sorted(set(holders))), tuple(doubts))

    def _try_group(self, function: Function, blind: str, holders: list[Holder], doubts: list[Doubt]) -> None:
        """Open the function's vfio group, unless it is open already."""
        number = function.iommu_group()
        group = vfio.group(self._root, number) if number is not None else None
        key = number, group.number if group else None
        if key in self._groups:
            return
        refusal: Optional[OSError] = None
        if group is not None:
            try:
                self._groups[key] = vfio.open_group(group, self._opener)
                return
            except OSError as error:
                if error.errno == errno.EBUSY:
                    holders.append(Holder(function.address, 0, "", "vfio group %s is open" % group.name))
                    return
                refusal = error
        # Not claimed, but free where everybody who could hold it was seen.
        seen_all = not blind and (group is not None or _character_devices(function))
        if not seen_all:
            doubts.append(_unseen(function, group, refusal, blind))


def _processes_with(functions: Sequence[Function], root: Path) -> Processes:
    """The processes that have files of these functions open."""
    wanted = Wanted()
    for function in functions:
        _add_files(function, root, wanted)
    known = any(one.sysfs_path() is not None or one.iommu_group() is not None for one in functions)
    return look(root, wanted) if known else Processes()


def _add_files(function: Function, root: Path, wanted: Wanted) -> None:
    """The files through which a process can hold a function."""
    iommu_group = function.iommu_group()
    group = vfio.group(root, iommu_group) if iommu_group is not None else None
    if group is not None:
        key = function.address, "/dev/vfio/%s" % group.name
        wanted.add_file(group.path, key)
        if group.number is not None:
            wanted.add_device(group.number, key)
    device = function.sysfs_path()
    if device is None:
        return
    real = Path(os.path.realpath(device))
    for name in ("config", *("resource%d%s" % (number, kind) for number in range(6) for kind in ("", "_wc"))):
        wanted.add_file(real / name, (function.address, "/" + os.path.relpath(real / name, os.path.realpath(root))))
    for name, number in vfio.character_devices(real).items():
        wanted.add_device(number, (function.address, "/dev/vfio/devices/%s" % name))
    if function.driver() not in (None, *VFIO_DRIVERS):
        driver_use.add_files(function, root, wanted)


def _together(address: str, uses: Sequence[Use]) -> Use:
    return Use(
        address,
        tuple(holder for use in uses for holder in use.holders),
        tuple(doubt for use in uses for doubt in use.doubts),
    )


def _enable_count(function: Function) -> Optional[int]:
    """How often the function was enabled by who uses it; None where the kernel does not say."""
    path = function.sysfs_path()
    try:
        return int((path / "enable").read_text()) if path is not None else None
    except (OSError, ValueError):
        return None


def _character_devices(function: Function) -> dict[str, int]:
    path = function.sysfs_path()
    return vfio.character_devices(path) if path is not None else {}


def _uncounted(function: Function) -> Doubt:
    """A process can close the group's file and keep the device: then only the kernel's count tells."""
    return Doubt(
        function.address,
        "the kernel does not say whether its vfio device is open (the file enable in sysfs)",
        "Run where /sys is the host's.",
    )


def _enabled_without_driver(function: Function) -> list[Doubt]:
    if not _enable_count(function):
        return []
    return [
        Doubt(
            function.address,
            "it is enabled, though no driver is bound to it",
            "A program may use it through sysfs. If none does, write 0 to the file enable of the device in sysfs.",
        )
    ]


def _unseen(function: Function, group: Optional[vfio.Group], refusal: Optional[OSError], blind: str) -> Doubt:
    if group is None:
        why = "no vfio group of it that could be opened is known"
    else:
        why = "the vfio group %s cannot be opened%s" % (group.name, ": %s" % errno_words(refusal) if refusal else "")
    return Doubt(
        function.address,
        "%s%s" % (why, ", and %s" % blind if blind else ""),
        "Run as root (become: true); in a container with the host's process IDs (hostPID), or privileged, so that vfio "
        "groups can be opened.",
        refusal.errno if refusal else None,
    )


def _stop_driver(driver: str) -> str:
    return (
        "Stop what uses the driver %s and unload it, or give the device to vfio-pci (role confidential.gpu.vfio)."
        % driver
    )
