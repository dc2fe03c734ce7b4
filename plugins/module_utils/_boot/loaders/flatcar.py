# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Flatcar Container Linux: linux_append in the OEM partition's grub.cfg, which the distribution's grub.cfg reads."""

from __future__ import annotations

from ..change import Plan, Run, fixed
from ..cmdline import Wish
from ..grub import Settings
from ..loader import Loader

APPEND = "linux_append"
VARIABLES = ("linux_console", APPEND)
PLACES = ("/oem/grub.cfg", "/usr/share/oem/grub.cfg")
HEADER = "# Flatcar GRUB settings\n"


class Flatcar(Loader):
    """No command has to run: the file is read at boot."""

    name = "flatcar"
    looked_for = "ID=flatcar in /etc/os-release"

    def found(self) -> bool:
        """By the distribution's name, which is the only one that has it."""
        release = self.host.text("/etc/os-release") or self.host.text("/usr/lib/os-release") or ""
        return any(line.strip().replace('"', "") == "ID=flatcar" for line in release.splitlines())

    def _path(self) -> str:
        for path in PLACES:
            if self.host.exists(path):
                return path
        return next((path for path in PLACES if self.host.exists(path.rpartition("/")[0])), PLACES[0])

    def _settings(self) -> Settings:
        path = self._path()
        text = self.host.text(path)
        return Settings({path: HEADER if text is None else text}, VARIABLES, "set")

    def read(self) -> list[str]:
        """What is added to the distribution's own tokens."""
        return self._settings().tokens()

    def plan(self, wish: Wish) -> Plan:
        """Edit the file; check it where there is a checker."""
        settings = self._settings()
        before = settings.tokens()
        wish.check_length(before)
        edits = tuple(
            fixed(path, self.host.text(path), text) for path, text in settings.rewritten(wish, APPEND).items()
        )
        checker = "grub-script-check"
        checks = (Run((checker, self._path())),) if edits and self.host.commands.has(checker) else ()
        return Plan(wish, tuple(before), tuple(wish.applied(before)), edits, checks)
