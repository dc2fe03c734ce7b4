# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""SUSE Linux Micro and openSUSE MicroOS: /etc/default/grub, and a new snapshot whose grub.cfg is made of it.

The snapshot becomes the root file system at the next boot. When the command fails, it drops its snapshot itself.
"""

from __future__ import annotations

from ..change import SPARE, Plan, Run, fixed, unfinished
from ..cmdline import Wish
from ..errors import NotUnderstood
from ..grub import DEFAULT, DEFAULTS, Settings
from ..loader import ReadsSettings


class TransactionalUpdate(ReadsSettings):
    """A root file system that is mounted read-only, changed by snapshots."""

    name = "transactional-update"
    looked_for = "the command transactional-update with a read-only root file system"

    def found(self) -> bool:
        """The command alone may be installed on an ordinary system."""
        mounts = (self.host.text("/proc/mounts") or "").splitlines()
        roots = [fields[3].split(",") for fields in map(str.split, mounts) if len(fields) > 3 and fields[1] == "/"]
        return self.host.commands.has("transactional-update") and bool(roots) and "ro" in roots[-1]

    def read(self) -> list[str]:
        """What the variables make together."""
        return self._settings().tokens()

    def _settings(self) -> Settings:
        text = self.host.text(DEFAULTS)
        if text is None:
            raise NotUnderstood(
                "%s does not exist: this system boots without GRUB." % DEFAULTS,
                "Set the command line with transactional-update shell and sdbootutil.",
            )
        return Settings({DEFAULTS: text})

    def plan(self, wish: Wish) -> Plan:
        """Edit the file, then make grub.cfg anew in a snapshot."""
        settings = self._settings()
        edits = [fixed(path, self.host.text(path), text) for path, text in settings.rewritten(wish, DEFAULT).items()]
        before = settings.tokens()
        wish.check_length(before)
        if not (edits or unfinished(self.host)):
            return Plan(wish, tuple(before), tuple(before))
        after = Settings({**settings.files, **{edit.path: edit.after or "" for edit in edits}}).tokens()
        run = Run(("transactional-update", "--non-interactive", "grub.cfg"))
        return Plan(wish, tuple(before), tuple(after), (*edits, run), space=(("/etc", SPARE),))
