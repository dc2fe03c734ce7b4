# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""openSUSE with GRUB of the Boot Loader Specification (grub2-bls), or with systemd-boot: ``sdbootutil``.

It makes every entry of the running snapshot of /etc/kernel/cmdline and of the files in /etc/kernel/cmdline.d; without
the first, of /usr/lib/kernel/cmdline or of what the running kernel was booted with. It sets ``root=`` and
``rootflags=`` itself (its functions create_boot_options and sedrootflags). A last line without its end is lost.
"""

from __future__ import annotations

import re
from typing import Sequence

from .. import bls
from ..cmdline import Desired, Fate, join, split
from ..cmdline_file import CMDLINE, applied, tokens_of
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood, Shadowed
from ..firmware import by_version, is_next, loader
from ..loader import Loader
from ..made import named, squeezed
from ..plan import Plan, Run, fixed, unfinished

SETTINGS = "/etc/sysconfig/bootloader"
TYPES = ("grub2-bls", "systemd-boot")
VENDOR = "/usr/lib/kernel/cmdline"
FOLDER = "/etc/kernel/cmdline.d"
VENDORS_FOLDER = "/usr/kernel/cmdline.d"

_TYPE = re.compile(r"""^[ \t]*LOADER_TYPE=["']?([\w-]*)""", re.MULTILINE)
_OF_THIS_BOOT = ("BOOT_IMAGE", "initrd")
# What the program sets by itself, whatever the settings say.
_ITS_OWN = ("root", "rootflags", "systemd.machine_id")


class Sdbootutil(Loader):
    """Tokens are added to /etc/kernel/cmdline, and removed from every file."""

    name = "sdbootutil"
    looked_for = "the command sdbootutil with LOADER_TYPE %s in %s" % (" or ".join(TYPES), SETTINGS)

    def found(self) -> bool:
        """By its setting; where it is not set, by systemd-boot or entries that are there."""
        if not self.host.commands.has("sdbootutil"):
            return False
        types = _TYPE.findall(self.host.text(SETTINGS) or "")
        if types and types[-1]:
            return types[-1] in TYPES
        return "systemd-boot" in loader(self.host) or any(self.host.names(name, ".conf") for name in bls.FOLDERS)

    def entries(self) -> list[Entry]:
        """Those of the running snapshot; other snapshots have theirs, which the program leaves alone."""
        found = [
            (file.id, file.entry({}, is_next(self.host, file.id + ".conf")))
            for file in bls.files(self.host)
            if not file.value("linux").startswith("/EFI/extra")
        ]
        found.sort(key=lambda one: by_version(one[0]), reverse=True)
        subvolume = self._subvolume()
        own = [entry for _id, entry in found if not subvolume or "rootflags=subvol=" + subvolume in entry.tokens]
        if not own:
            raise NothingBoots(
                "No entry of this system%s was found in %s."
                % (" (snapshot %s)" % subvolume if subvolume else "", ", ".join(bls.FOLDERS)),
                "Mount the boot partition, or make them with sdbootutil add-all-kernels.",
            )
        others = [entry for _id, entry in found if entry.is_default and entry not in own]
        if others and not any(entry.is_default for entry in own):
            raise Shadowed(
                "What boots next is %s, and not the running snapshot." % others[0].where,
                "Boot into it first, or choose an entry of the running one with sdbootutil set-default.",
                path=others[0].path,
            )
        return own

    def _subvolume(self) -> str:
        """The snapshot that / is, as in ``@/.snapshots/1/snapshot``; empty when it is none."""
        found = ""
        for line in (self.host.text("/proc/mounts") or "").splitlines():
            fields = line.split()
            if len(fields) > 3 and fields[1] == "/":
                options = dict(option.partition("=")[::2] for option in fields[3].split(","))
                found = options.get("subvol", "").lstrip("/")
        return found if "/.snapshots/" in found else ""

    def _texts(self) -> dict[str, str]:
        """The files, under the names that they are written to, in the order in which they are read."""
        text = self.host.text(CMDLINE)
        if text is None:
            text = self.host.text(VENDOR)
        if text is None:
            running = split(self.host.text("/proc/cmdline") or "")
            text = join([token for token in running if token.partition("=")[0] not in _OF_THIS_BOOT]) + "\n"
        texts = {CMDLINE: text}
        own = self.host.names(FOLDER)
        for name in self.host.names(VENDORS_FOLDER):
            # A file in /etc hides the vendor's of the same name.
            mine = FOLDER + name[len(VENDORS_FOLDER) :]
            if mine not in own:
                texts[mine] = self.host.text(name) or ""
        return {**texts, **{name: self.host.text(name) or "" for name in own}}

    def _refuse_another_order(self, old: dict[str, str], new: dict[str, str]) -> None:
        """A vendor's file that has to change is hidden by one in /etc, which is read behind all of the vendor's."""
        hiding = [name for name in new if new[name] != old[name] and name != CMDLINE and not self.host.exists(name)]
        theirs = [name for name in new if name != CMDLINE and not self.host.exists(name) and name not in hiding]
        ours = sorted(name for name in new if self.host.exists(name) or name in hiding)
        order = [CMDLINE, *theirs, *(name for name in ours if name != CMDLINE)]
        read, wanted = ([token for name in names for token in tokens_of(new[name])] for names in (order, new))
        if read != wanted:
            raise NotUnderstood(
                "%s has what has to go; hidden by a file in %s, it would be read at another place."
                % (", ".join(name.replace(FOLDER, VENDORS_FOLDER) for name in hiding), FOLDER),
                "Make a file of that name in %s by hand, in the order that you want." % FOLDER,
                files=hiding,
            )

    def plan(self, desired: Desired) -> Plan:
        """Edit the files, then let the program make every entry again."""
        entries = self.left()
        texts = self._texts()
        settings = [token for text in texts.values() for token in tokens_of(text)]
        before = default(entries).tokens if entries else tuple(settings)
        for tokens in (settings, before):
            desired.check_length(tokens)
        is_met = not desired.unmet(settings) and not any(desired.unmet(entry.tokens) for entry in entries)
        if is_met and not unfinished(self.host):
            return Plan(desired, before, before)
        new = _rewritten(texts, desired.fate(settings))
        self._refuse_another_order(texts, new)
        wanted = squeezed([token for text in new.values() for token in tokens_of(text)])
        edits = [
            fixed(name, self.host.text(name), text, _copy(name)) for name, text in new.items() if text != texts[name]
        ]
        # An entry that was left half, without options, is only written by the other command.
        run = Run(("sdbootutil", "add-all-kernels" if unfinished(self.host) else "update-all-entries"))
        return Plan(
            desired,
            before,
            _entry(before, wanted),
            (*edits, run),
            protects=tuple("%s/*.conf" % folder for folder in bls.FOLDERS),
            # Of a file without the last line's end it would make worse entries than those that were put back.
            repair=(run,) if all(text.endswith("\n") for text in texts.values() if text) else (),
            space=(("/boot", 0),),
            keeps=tuple(token for token in wanted if token.partition("=")[0] not in _ITS_OWN),
        )


def _entry(before: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """What the program makes of the settings: its root and subvolume in their place, or behind all."""
    tokens = list(wanted)
    for name in ("root=", "rootflags=subvol="):
        for own in named(before, name)[-1:]:
            places = [at for at, token in enumerate(tokens) if token.startswith(name)]
            tokens[slice(places[0], places[0] + 1) if places else slice(len(tokens), None)] = [own]
    return tuple(tokens)


def _copy(name: str) -> str:
    """Beside the folder: the program reads every file that is in it, copies too."""
    return name.replace(FOLDER + "/", FOLDER + "-") if name != CMDLINE else ""


def _rewritten(texts: dict[str, str], fate: Fate) -> dict[str, str]:
    kept = iter(fate.kept)
    new = {}
    for name, text in texts.items():
        mine = Fate(tuple(next(kept) for _token in tokens_of(text)), fate.added if name == CMDLINE else ())
        changed = applied(text, mine)
        new[name] = changed + "\n" if changed != text and not changed.endswith("\n") else changed
    return new
