# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""SUSE's GRUB 2, and others without drop-in files: /etc/default/grub, and the command that makes grub.cfg of it."""

from __future__ import annotations

from ..cmdline import Desired
from ..entry import Entry
from ..errors import NotUnderstood
from ..grub import DEFAULTS
from ..grub_chain import change
from ..grub_plan import Generator, entries, plan
from ..loader import Loader
from ..plan import Plan, fixed

GENERATORS = (
    Generator(("grub2-mkconfig", "-o", "/boot/grub2/grub.cfg"), "/boot/grub2/grub.cfg", "grub2-script-check"),
    Generator(("grub-mkconfig", "-o", "/boot/grub/grub.cfg"), "/boot/grub/grub.cfg", "grub-script-check"),
)
UPDATE = ("update-bootloader", "--refresh")


class GrubDefaults(Loader):
    """Everything stands in /etc/default/grub."""

    name = "grub"
    looked_for = "grub2-mkconfig or grub-mkconfig with %s" % DEFAULTS

    def found(self) -> bool:
        """A generator and its settings."""
        has = self.host.commands.has
        return self.host.exists(DEFAULTS) and any(has(generator.command[0]) for generator in GENERATORS)

    def entries(self) -> list[Entry]:
        """The entries of grub.cfg."""
        return entries(self.host, self._generator().config)

    def _generator(self) -> Generator:
        """SUSE's update-bootloader runs the generator that the distribution wants."""
        has = self.host.commands.has
        found = next((generator for generator in GENERATORS if has(generator.command[0])), GENERATORS[0])
        return found._replace(command=UPDATE) if has(UPDATE[0]) else found

    def plan(self, desired: Desired) -> Plan:
        """Edit the file, then make grub.cfg again."""
        text = self.host.text(DEFAULTS)
        if text is None:
            raise NotUnderstood(
                "%s does not exist." % DEFAULTS, "Install GRUB, or name another boot loader with the option loader."
            )
        changed = change(self.host, {DEFAULTS: text}, desired)
        edits = [fixed(path, self.host.text(path), new) for path, new in changed.files.items()]
        return plan(self.host, desired, self._generator(), changed.old, changed.new, edits)
