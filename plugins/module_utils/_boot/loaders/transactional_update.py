# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""SUSE Linux Micro and openSUSE MicroOS: /etc/default/grub, and a new snapshot whose grub.cfg is made of it.

GRUB reads the grub.cfg of the snapshot that is btrfs' default; a new one becomes it, and so the root file system at the
next boot. When the command fails, it drops its snapshot itself; one that turns out wrong is left again with
``transactional-update rollback``. As always with this command, a snapshot that waits is not what the new one is made
of: that is the running one.
"""

from __future__ import annotations

import re

from ..cmdline import Desired
from ..entry import Entry
from ..errors import NothingBoots, NotUnderstood
from ..grub import DEFAULTS
from ..grub_chain import change
from ..grub_plan import Generator, entries, plan
from ..loader import Loader
from ..plan import Plan, Run, fixed

COMMAND = ("transactional-update", "--non-interactive", "grub.cfg")
ASK = ("btrfs", "subvolume", "get-default", "/")

_SNAPSHOT = re.compile(r"path \S*\.snapshots/(\d+)/snapshot\s*$")


class TransactionalUpdate(Loader):
    """A root file system that is mounted read-only, changed by snapshots."""

    name = "transactional-update"
    looked_for = "the command transactional-update with a read-only root file system"

    def found(self) -> bool:
        """The command alone may be installed on an ordinary system."""
        mounts = (self.host.text("/proc/mounts") or "").splitlines()
        roots = [fields[3].split(",") for fields in map(str.split, mounts) if len(fields) > 3 and fields[1] == "/"]
        return self.host.commands.has("transactional-update") and bool(roots) and "ro" in roots[-1]

    def entries(self) -> list[Entry]:
        """The entries of grub.cfg in the snapshot that boots next."""
        return entries(self.host, _config(self._snapshot()))

    def _snapshot(self) -> str:
        """The number of the snapshot that boots next."""
        said = self.host.run(ASK).out.strip()
        match = _SNAPSHOT.search(said)
        if not match:
            raise NothingBoots(
                "The snapshot that boots next was not found: %s said %s." % (" ".join(ASK), said or "nothing"),
                "See snapper list; a system without snapshots of its root file system is not supported.",
                said=said,
            )
        return match.group(1)

    def plan(self, desired: Desired) -> Plan:
        """Edit the file, then make grub.cfg again in a snapshot."""
        text = self.host.text(DEFAULTS)
        if text is None:
            raise NotUnderstood(
                "%s does not exist: this system boots without GRUB." % DEFAULTS,
                "Set the command line with transactional-update shell and sdbootutil.",
            )
        number = self._snapshot()
        changed = change(self.host, {DEFAULTS: text}, desired)
        edits = [fixed(path, self.host.text(path), new) for path, new in changed.files.items()]
        found = plan(self.host, desired, Generator(COMMAND, _config(number), ""), changed.old, changed.new, edits)
        if not found.is_change:
            return found
        # The new entries stand in another file; the one that is read now stays as it is.
        keeps = next((entry.tokens for entry in found.expected if entry.is_default), found.keeps)
        repair = (Run(("transactional-update", "rollback", number)),)
        return found._replace(expected=(), keeps=keeps, protects=(), repair=repair)


def _config(number: str) -> str:
    return "/.snapshots/%s/snapshot/boot/grub2/grub.cfg" % number
