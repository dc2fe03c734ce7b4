# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""SUSE's GRUB 2, and others without drop-in files: /etc/default/grub, and the command that makes grub.cfg of it."""

from __future__ import annotations

from typing import Sequence

from ..change import Plan, fixed
from ..cmdline import Wish
from ..errors import NotUnderstood
from ..grub import DEFAULT, DEFAULTS, Settings, generated
from ..loader import ReadsSettings

# (generator, what it writes, its checker)
GENERATORS = (
    ("grub2-mkconfig", "/boot/grub2/grub.cfg", "grub2-script-check"),
    ("grub-mkconfig", "/boot/grub/grub.cfg", "grub-script-check"),
)


class GrubDefaults(ReadsSettings):
    """Everything stands in /etc/default/grub."""

    name = "grub"
    looked_for = "grub2-mkconfig or grub-mkconfig with %s" % DEFAULTS

    def found(self) -> bool:
        """A generator and its settings."""
        has = self.host.commands.has
        return self.host.exists(DEFAULTS) and any(has(generator) for generator, _config, _checker in GENERATORS)

    def read(self) -> list[str]:
        """What the variables make together."""
        return self._settings().tokens()

    def _settings(self) -> Settings:
        text = self.host.text(DEFAULTS)
        if text is None:
            raise NotUnderstood(
                "%s does not exist." % DEFAULTS, "Install GRUB, or name another boot loader with the option loader."
            )
        return Settings({DEFAULTS: text})

    def plan(self, wish: Wish) -> Plan:
        """Edit the file, then make grub.cfg anew."""
        settings = self._settings()
        edits = [fixed(path, self.host.text(path), text) for path, text in settings.rewritten(wish, DEFAULT).items()]
        generator, config, checker = next((row for row in GENERATORS if self.host.commands.has(row[0])), GENERATORS[0])
        return generated(self.host, wish, settings, edits, self._command(generator, config), config, checker)

    def _command(self, generator: str, config: str) -> Sequence[str]:
        if self.host.commands.has("update-bootloader"):
            return ["update-bootloader", "--refresh"]
        return [generator, "-o", config]
