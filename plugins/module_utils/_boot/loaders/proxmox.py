# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Proxmox with systemd-boot: the first line of /etc/kernel/cmdline, and ``proxmox-boot-tool refresh``.

The tool copies kernels and writes ``loader/entries/proxmox-VERSION.conf`` to every partition whose file system's UUID
stands in /etc/kernel/proxmox-boot-uuids. It mounts them for the moment alone, and so does the reading here. A file
whose first line has no ``root=`` ends it with an error (its script zz-proxmox-boot).
"""

from __future__ import annotations

from .. import bls
from ..cmdline import Desired
from ..cmdline_file import CMDLINE, edited, tokens_of
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood
from ..esp import ESP_LIST, GRUB_PROGRAM, read, uuids
from ..firmware import by_version, is_efi, loader
from ..loader import Loader
from ..made import named
from ..plan import Plan, Run, fixed, unfinished

TOOL = "proxmox-boot-tool"


class Proxmox(Loader):
    """One line, and entries on partitions that are not mounted."""

    name = "proxmox-boot-tool"
    looked_for = "the command %s with %s and systemd-boot as the running boot loader" % (TOOL, ESP_LIST)

    def found(self) -> bool:
        """The tool and its list; a host that GRUB started is another loader's."""
        has = self.host.commands.has(TOOL) and bool(uuids(self.host))
        return has and is_efi(self.host) and "systemd-boot" in loader(self.host)

    def entries(self) -> list[Entry]:
        """Every entry of every partition that is there."""
        found = []
        for uuid in uuids(self.host):
            files = read(self.host, uuid)
            if GRUB_PROGRAM in files:
                raise NotUnderstood(
                    "The partition %s of %s starts GRUB, and another one systemd-boot." % (uuid, ESP_LIST),
                    "Make them alike with proxmox-boot-tool reinit, then run again.",
                    uuid=uuid,
                )
            for name, text in files.items():
                file = bls.parse("%s:/%s" % (uuid, name), text)
                if name.startswith("loader/entries/") and file.boots_linux:
                    found.append((file.id, file.entry({})))
        if not found:
            raise NothingBoots(
                "No loader/entries/proxmox-*.conf was found on the partitions of %s (%s)."
                % (ESP_LIST, ", ".join(uuids(self.host)) or "none"),
                "See proxmox-boot-tool status, and set them up with proxmox-boot-tool init.",
            )
        found.sort(key=lambda one: by_version(one[0]), reverse=True)
        return [entry for _id, entry in found]

    def plan(self, desired: Desired) -> Plan:
        """Edit the first line, then let the tool write every entry again."""
        entries = self.left()
        text = self.host.text(CMDLINE)
        if text is None:
            raise NotUnderstood(
                "%s does not exist, so that the tool takes the running command line." % CMDLINE,
                "Write it with one line, as in root=ZFS=rpool/ROOT/pve-1 boot=zfs.",
            )
        line, end, rest = text.partition("\n")
        settings = tokens_of(line, comments=False)
        if not named(settings, "root="):
            raise NotUnderstood(
                "The first line of %s has no root=; the tool reads no other line." % CMDLINE,
                "Write the whole command line into its first line.",
                path=CMDLINE,
            )
        before = default(entries).tokens if entries else tuple(settings)
        desired.check_length(settings)
        is_met = not desired.unmet(settings) and not any(desired.unmet(entry.tokens) for entry in entries)
        if is_met and not unfinished(self.host):
            return Plan(desired, before, before)
        new = edited(line, desired, comments=False)
        after = tuple(tokens_of(new, comments=False))
        if not named(after, "root="):
            raise NotUnderstood(
                "Without root= in the first line of %s, %s writes no entries." % (CMDLINE, TOOL),
                "Leave root= out of remove.",
            )
        edits = (fixed(CMDLINE, text, new + end + rest),) if new != line else ()
        run = Run((TOOL, "refresh"))
        return Plan(desired, before, after, (*edits, run), repair=(run,), keeps=after)
