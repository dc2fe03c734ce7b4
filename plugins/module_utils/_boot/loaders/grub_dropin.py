# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Debian, Ubuntu and their kin: a file of our own in /etc/default/grub.d, and ``update-grub``."""

from __future__ import annotations

from ..change import Plan, fixed
from ..cmdline import Wish
from ..grub import DEFAULT, DEFAULTS, Settings, generated
from ..loader import ReadsSettings

FOLDER = "/etc/default/grub.d"
OURS = FOLDER + "/99-confidential-gpu.cfg"
CONFIG = "/boot/grub/grub.cfg"
HEADER = "# Kept by the Ansible module confidential.gpu.kernel_cmdline.\n"


class GrubDropin(ReadsSettings):
    """What is added stands in our file; what is removed is removed wherever it stands."""

    name = "grub-dropin"
    looked_for = "the command update-grub with %s" % DEFAULTS

    def found(self) -> bool:
        """Debian's own command tells it from other GRUBs."""
        return self.host.commands.has("update-grub") and self.host.exists(DEFAULTS)

    def read(self) -> list[str]:
        """What the variables make together."""
        return self._settings().tokens()

    def _settings(self) -> Settings:
        names = sorted({*self.host.names(FOLDER, ".cfg"), OURS})
        texts = {name: self.host.text(name) for name in [DEFAULTS, *names]}
        return Settings({name: HEADER if text is None else text for name, text in texts.items()})

    def plan(self, wish: Wish) -> Plan:
        """Edit the files that have to change, then update-grub."""
        settings = self._settings()
        edits = []
        for path, text in settings.rewritten(wish, DEFAULT, OURS).items():
            empty = path == OURS and not Settings({OURS: text}).tokens()
            edits.append(fixed(path, self.host.text(path), None if empty else text))
        return generated(self.host, wish, settings, edits, ["update-grub"], CONFIG, "grub-script-check")
