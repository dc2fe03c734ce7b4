# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Flatcar Container Linux: linux_append in the OEM partition's grub.cfg, which the distribution's grub.cfg reads.

The images for some clouds (Azure, STACKIT) set linux_console inside of an if, by the processor. It stays as it is, and
only a request that something of it goes is refused.
"""

from __future__ import annotations

import re

from ..cmdline import Desired, split
from ..entry import Entry
from ..errors import NothingBoots, NotUnderstood
from ..grub import Settings
from ..loader import ReadsSettings
from ..plan import Plan, Run, fixed

CONSOLE = "linux_console"
APPEND = "linux_append"
PLACES = ("/oem/grub.cfg", "/usr/share/oem/grub.cfg")
FOLDERS = tuple(path.rpartition("/")[0] for path in PLACES)
HEADER = "# Flatcar GRUB settings\n"
NOTHING = Desired()

_CONSOLES = re.compile(r"""\bset[ \t]+%s=(?:"([^"]*)"|'([^']*)'|(\S*))""" % CONSOLE)


class Flatcar(ReadsSettings):
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

    def _in_use(self) -> str:
        """The file, on its partition: in a folder of that name on another one, nothing would read it."""
        path = self._path()
        folder = path.rpartition("/")[0]
        mounts = self.host.text("/proc/mounts") or ""
        if folder not in [fields[1] for fields in map(str.split, mounts.splitlines()) if len(fields) > 1]:
            raise NothingBoots(
                "The OEM partition, whose grub.cfg is read at boot, is mounted neither at %s."
                % " nor at ".join(FOLDERS),
                "Mount it (/dev/disk/by-label/OEM); a host that boots over the network has its command line there.",
            )
        return path

    def _settings(self, desired: Desired = NOTHING) -> Settings:
        path = self._in_use()
        text = self.host.text(path)
        files = {path: HEADER if text is None else text}
        try:
            return Settings(files, (CONSOLE, APPEND), "set")
        except NotUnderstood:
            without_console = Settings(files, (APPEND,), "set")
            consoles = split(" ".join("".join(values) for values in _CONSOLES.findall(files[path])))
            if list(desired.fate(consoles).kept) != consoles:
                raise
            return without_console

    def read(self) -> list[str]:
        """What is added to the distribution's own tokens."""
        return self._settings().tokens()

    def entries(self) -> list[Entry]:
        """The file itself: the boot loader reads it. Every entry of the distribution gets its tokens."""
        return [Entry(self._in_use(), "", tuple(self.read()), is_default=True)]

    def plan(self, desired: Desired) -> Plan:
        """Edit the file; check it where there is a checker."""
        settings = self._settings(desired)
        before = settings.tokens()
        desired.check_length(before)
        edits = tuple(
            fixed(path, self.host.text(path), text) for path, text in settings.rewritten(desired, APPEND).items()
        )
        checker = "grub-script-check"
        checks = (Run((checker, self._path())),) if edits and self.host.commands.has(checker) else ()
        return Plan(desired, tuple(before), tuple(desired.applied(before)), edits, checks)
