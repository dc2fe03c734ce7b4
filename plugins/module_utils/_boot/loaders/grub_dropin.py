# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian, Ubuntu and their kin: a file of our own in /etc/default/grub.d, and ``update-grub``."""

from __future__ import annotations

from ..cmdline import Desired
from ..entry import Entry
from ..errors import NotUnderstood
from ..grub import DEFAULTS, Settings
from ..grub_chain import change
from ..grub_plan import Generator, entries, plan
from ..loader import Loader
from ..plan import Plan, fixed

FOLDER = "/etc/default/grub.d"
OURS = FOLDER + "/99-confidential-gpu.cfg"
GENERATOR = Generator(("update-grub",), "/boot/grub/grub.cfg", "grub-script-check")
HEADER = "# Kept by the Ansible module confidential.gpu.kernel_cmdline.\n"


class GrubDropin(Loader):
    """What is added stands in our file; what is removed is removed wherever it stands."""

    name = "grub-dropin"
    looked_for = "the command update-grub with %s" % DEFAULTS

    def found(self) -> bool:
        """Debian's own command tells it from other GRUBs."""
        return self.host.commands.has("update-grub") and self.host.exists(DEFAULTS)

    def entries(self) -> list[Entry]:
        """The entries of grub.cfg."""
        return entries(self.host, GENERATOR.config)

    def _files(self) -> dict[str, str]:
        names = self.host.names(FOLDER, ".cfg")
        for name in names:
            if self.host.path(name).is_dir():
                raise NotUnderstood(
                    "%s is a folder, and grub-mkconfig would read it as a file and end." % name,
                    "Give it a name that does not end in .cfg, or move it elsewhere.",
                    path=name,
                )
        texts = {name: self.host.text(name) for name in [DEFAULTS, *sorted({*names, OURS})]}
        return {name: HEADER if text is None else text for name, text in texts.items()}

    def plan(self, desired: Desired) -> Plan:
        """Edit the files that have to change, then update-grub."""
        changed = change(self.host, self._files(), desired, OURS)
        edits = []
        for path, text in changed.files.items():
            empty = path == OURS and not Settings({OURS: text}).tokens()
            edits.append(fixed(path, self.host.text(path), None if empty else text))
        return plan(self.host, desired, GENERATOR, changed.old, changed.new, edits)
