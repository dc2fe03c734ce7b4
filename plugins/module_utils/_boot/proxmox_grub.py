# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Proxmox with GRUB on boot partitions that are mounted nowhere: Debian's settings, and a grub.cfg on each partition.

Proxmox puts a script into /etc/grub.d, so that ``update-grub`` refreshes every partition before it makes
/boot/grub/grub.cfg, which boots nothing (its file 000_proxmox_boot_header).
"""

from __future__ import annotations

from .cmdline import Desired
from .entry import Entry, default
from .errors import NothingBoots
from .esp import ESP_LIST, GRUB_CONFIG, read, uuids
from .grub_menu import Menu
from .loaders.grub_dropin import GENERATOR, GrubDropin
from .loaders.proxmox import TOOL
from .plan import Plan, Run


class ProxmoxGrub(GrubDropin):
    """What is planned for /boot/grub/grub.cfg is read back from every partition."""

    name = "proxmox-boot-tool"
    looked_for = "the command %s with %s and GRUB as the running boot loader" % (TOOL, ESP_LIST)

    def found(self) -> bool:
        """The tool and its list, and what Debian's GRUB needs."""
        return self.host.commands.has(TOOL) and bool(uuids(self.host)) and super().found()

    def entries(self) -> list[Entry]:
        """The entries of grub.cfg on every partition that is there."""
        found = []
        for uuid in uuids(self.host):
            text = read(self.host, uuid).get(GRUB_CONFIG)
            if text is not None:
                found += Menu(text, "%s:/%s" % (uuid, GRUB_CONFIG)).entries({})
        if not found:
            raise NothingBoots(
                "No %s that starts a kernel was found on the partitions of %s (%s)."
                % (GRUB_CONFIG, ESP_LIST, ", ".join(uuids(self.host)) or "none"),
                "See proxmox-boot-tool status, and set them up with proxmox-boot-tool init.",
            )
        return found

    def plan(self, desired: Desired) -> Plan:
        """As on Debian; and update-grub alone when a partition is not as /boot/grub/grub.cfg."""
        entries = self.left()
        found = super().plan(desired)
        if found.is_change:
            before = default(entries).tokens if entries else found.before
            return found._replace(before=before, repair=(Run((TOOL, "refresh")),))
        before = default(entries).tokens
        if not any(desired.unmet(entry.tokens) for entry in entries if not entry.is_recovery):
            return Plan(desired, before, before)
        run = Run(GENERATOR.command)
        return Plan(desired, before, tuple(desired.applied(before)), (run,), keeps=found.before)
