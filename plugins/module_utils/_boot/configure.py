# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Which boot loader this host has, and a request carried out with it."""

from __future__ import annotations

from typing import Any, Callable, Optional, Sequence, Union

from . import refusals
from .cmdline import Desired, join, split
from .entry import default
from .errors import NOTHING_CHANGED, UnknownLoader
from .host import Host
from .loader import Loader
from .makers import (
    BOOTC,
    FLATCAR,
    GRUB_DEFAULTS,
    GRUB_DROPIN,
    GRUBBY,
    KERNEL_INSTALL,
    KERNELSTUB,
    PROXMOX,
    PROXMOX_GRUB,
    RPM_OSTREE,
    SDBOOTUTIL,
    TRANSACTIONAL_UPDATE,
    Maker,
)
from .plan import MARKER, Done, Plan, unfinished
from .refusals import Refusal

AUTO = "auto"

# Who makes what boots. The first that is found is the one: those that only one kind of system has come first, and
# before a loader comes what looks like one of its hosts and is not.
Row = Union[Maker, Refusal]
ROWS: tuple[Row, ...] = (
    FLATCAR,
    RPM_OSTREE,
    BOOTC,
    *refusals.LOADERS,
    PROXMOX,
    PROXMOX_GRUB,
    SDBOOTUTIL,
    TRANSACTIONAL_UPDATE,
    KERNELSTUB,
    *refusals.IMAGES,
    KERNEL_INSTALL,
    *refusals.GRUB,
    GRUBBY,
    GRUB_DROPIN,
    GRUB_DEFAULTS,
)
MAKERS: tuple[Maker, ...] = tuple(row for row in ROWS if isinstance(row, Maker))

NAMES = tuple(dict.fromkeys(maker.name for maker in MAKERS))


def choose(host: Host, name: str = AUTO) -> Loader:
    """The boot loader of that name, or the one that is found; either way its program makes what boots here.

    Raises UnknownLoader with what was looked for, or with what this host boots with instead.
    """
    for row in ROWS:
        if isinstance(row, Refusal):
            _refuse(row, host)
        elif name in (AUTO, row.name) and row.may_be(host):
            loader = row.load()(host)
            if loader.found():
                return loader
    looked_for = "; ".join(maker.looked_for for maker in MAKERS if name in (AUTO, maker.name))
    distribution = _distribution(host)
    if name != AUTO:
        raise UnknownLoader(
            "%s does not make what boots on this host (%s); looked for: %s."
            % (name, distribution or "no /etc/os-release", looked_for),
            "Leave the option loader out, so that the boot loader is found.",
            distribution=distribution,
        )
    raise UnknownLoader(
        "No boot loader that is known was found on this host (%s); looked for: %s."
        % (distribution or "no /etc/os-release", looked_for),
        "Set the command line by hand.",
        distribution=distribution,
    )


def _refuse(row: Refusal, host: Host) -> None:
    seen = row.seen(host)
    if seen:
        raise UnknownLoader(
            "%s makes what boots on this host, and is not supported: %s." % (row.program, seen),
            row.remedy,
            program=row.program,
        )


def _distribution(host: Host) -> str:
    release = host.text("/etc/os-release") or ""
    names = [line.partition("=")[2].strip('"') for line in release.splitlines() if line.startswith("PRETTY_NAME=")]
    return names[0] if names else ""


# From what boots by default and what is running to the request for both.
Chooser = Callable[[Sequence[str], Sequence[str]], Desired]


class Configuration:
    """One request for one host's kernel command line; ``run`` once, then ``result``, also after an error.

    ``chooser``: makes the request of what is read, where it depends on that; until then ``desired`` stands for it.
    """

    def __init__(self, host: Host, desired: Desired, name: str = AUTO, chooser: Optional[Chooser] = None) -> None:
        self.host = host
        self.asked = self.desired = desired
        self.chooser = chooser
        self.name = name
        self.loader: Optional[Loader] = None
        self.planned: Optional[Plan] = None
        self.done = Done()
        self.after: Optional[Sequence[str]] = None

    def run(self, only_plan: bool = False, keep_backups: bool = True) -> None:
        """Find the loader, plan, and unless ``only_plan``, write."""
        try:
            self._run(only_plan, keep_backups)
        except OSError as error:  # writing explains its own: this is what could not be read for the plan
            from .change import explained  # noqa: PLC0415 - of no use where all can be read

            raise explained(error, NOTHING_CHANGED) from error

    def _run(self, only_plan: bool, keep_backups: bool) -> None:
        self.loader = choose(self.host, self.name)
        self.planned = self._plan(self.loader)
        if self.planned.is_change and not only_plan:
            from . import lock  # noqa: PLC0415 - of no use where nothing changes

            with lock.held(self.host):
                # Anew: another run may have ended between the first plan and the lock.
                self.planned = self._plan(self.loader)
                if self.planned.is_change:
                    self.done = self.loader.write(self.planned, keep_backups)
        elif not only_plan and unfinished(self.host):
            # Killed behind the last step: nothing is left to do.
            self.host.disk.remove(self.host.path(MARKER))
        self.after = self.done.after or self.planned.after

    def _plan(self, loader: Loader) -> Plan:
        if self.chooser is not None:
            entries = loader.left()
            configured = default(entries).tokens if entries else loader.plan(self.asked).before
            self.desired = self.chooser(configured, self._running())
        return loader.plan(self.desired)

    def _running(self) -> list[str]:
        return split(self.host.text("/proc/cmdline") or "")

    def result(self) -> dict[str, Any]:
        """What was found and done, as plain data."""
        running = self._running()
        result: dict[str, Any] = {
            "loader": self.loader.name if self.loader else None,
            "running": join(running),
            "reboot_required": bool(self.desired.unmet(running)),
            "backup_files": self.done.backup_files,
        }
        if self.planned is not None:
            result["before"] = join(self.planned.before)
            result["commands"] = self.planned.commands
        if self.after is not None:
            result["after"] = join(self.after)
        return result

    @property
    def is_change(self) -> bool:
        """True when the boot loader's configuration had to be changed."""
        return self.planned is not None and self.planned.is_change

    def diff(self) -> list[dict[str, str]]:
        """The command line, then every file, before and after."""
        if self.planned is None or not self.planned.is_change:
            return []
        lines = "\n".join(self.planned.before) + "\n", "\n".join(self.planned.after) + "\n"
        diffs = [_diff("kernel command line", *lines)]
        return diffs + [_diff(edit.path, edit.before or "", edit.after or "") for edit in self.planned.edits]


def _diff(name: str, before: str, after: str) -> dict[str, str]:
    printable = [text.encode("utf-8", "replace").decode() for text in (before, after)]
    return {"before_header": name, "after_header": name, "before": printable[0], "after": printable[1]}
