# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""systemd-boot and unified kernel images: /etc/kernel/cmdline, from which kernel-install makes the entries or images.

Without that file, kernel-install takes /usr/lib/kernel/cmdline, or what the running kernel was booted with.
Lines that start with # are comments.
"""

from __future__ import annotations

from ..change import Plan, Run, fixed, unfinished
from ..cmdline import Wish, join, split
from ..cmdline_file import CMDLINE, edited, tokens_of
from ..errors import NotUnderstood
from ..loader import ReadsSettings

VENDOR = "/usr/lib/kernel/cmdline"
MODULES = "/usr/lib/modules"
# Kept by the boot loader for each boot, not tokens of the configuration.
_OF_THIS_BOOT = ("BOOT_IMAGE", "initrd")
_VARIABLE = "/sys/firmware/efi/efivars/%s-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
ENTRY_FOLDERS = ("/efi/loader/entries", "/boot/loader/entries", "/boot/efi/loader/entries")


class KernelInstall(ReadsSettings):
    """One file, and entries or images that are made of it."""

    name = "kernel-install"
    looked_for = "kernel-install with systemd-boot as the running boot loader, or with %s and no GRUB" % CMDLINE

    def found(self) -> bool:
        """By what the firmware says it booted; else by the file, where no GRUB is set up."""
        has = self.host.commands.has
        if not (has("kernel-install") or has("sdbootutil")):
            return False
        loader = self.host.text(_VARIABLE % "LoaderInfo") or ""
        systemd_boot = "systemd-boot" in loader.replace("\0", "") or self.host.exists(_VARIABLE % "StubInfo")
        return systemd_boot or (self.host.exists(CMDLINE) and not self.host.exists("/etc/default/grub"))

    def read(self) -> list[str]:
        """What the next image or entry gets."""
        return tokens_of(self._source())

    def _source(self) -> str:
        text = self.host.text(CMDLINE)
        if text is None:
            text = self.host.text(VENDOR)
        if text is None:
            running = split(self.host.text("/proc/cmdline") or "")
            own = [token for token in running if token.partition("=")[0] not in _OF_THIS_BOOT]
            text = join(own) + "\n"
        return text

    def plan(self, wish: Wish) -> Plan:
        """Edit the file, then make every kernel's entry or image anew."""
        source = self._source()
        before = tokens_of(source)
        wish.check_length(before)
        after = wish.applied(before)
        if not (wish.unmet(before) or unfinished(self.host)):
            return Plan(wish, tuple(before), tuple(before))
        text = self.host.text(CMDLINE)
        new = edited(source, wish)
        edits = (fixed(CMDLINE, text, new),) if new != text else ()
        runs = self._rebuild()
        protects = tuple("%s/*.conf" % folder for folder in ENTRY_FOLDERS)
        return Plan(
            wish,
            tuple(before),
            tuple(after),
            (*edits, *runs),
            protects=protects,
            repair=runs,
            space=(("/boot", self._largest_image()),),
        )

    def _rebuild(self) -> tuple[Run, ...]:
        if self.host.commands.has("sdbootutil"):
            return (Run(("sdbootutil", "update-all-entries")),)
        runs = []
        for folder in self.host.names(MODULES) or self.host.names("/lib/modules"):
            version = folder.rpartition("/")[2]
            images = [path for path in ("%s/vmlinuz" % folder, "/boot/vmlinuz-%s" % version) if self.host.exists(path)]
            initrd = "/boot/initrd.img-%s" % version
            if images:
                extra = [initrd] if self.host.exists(initrd) else []
                runs.append(Run(("kernel-install", "add", version, images[0], *extra)))
        if not runs:
            raise NotUnderstood(
                "No kernel image was found in %s/*/vmlinuz or /boot." % MODULES,
                "Install a kernel package, or name another boot loader with the option loader.",
            )
        return tuple(runs)

    def _largest_image(self) -> int:
        """A unified image is written beside the one that it replaces."""
        folders = ("/efi/EFI/Linux", "/boot/EFI/Linux", "/boot/efi/EFI/Linux")
        images = [self.host.path(name) for folder in folders for name in self.host.names(folder, ".efi")]
        return max((image.stat().st_size for image in images), default=0)
