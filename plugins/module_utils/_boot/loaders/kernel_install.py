# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""systemd-boot and unified kernel images: /etc/kernel/cmdline, from which kernel-install makes the entries or images.

Without that file, kernel-install takes /usr/lib/kernel/cmdline, or what the running kernel was booted with. It adds
``systemd.machine_id=`` when its entries are named after the machine.

Lines that start with # are comments since systemd 254 (its plug-in 90-loaderentry leaves them out), for unified images
since 261 (its plug-in 60-ukify). Before that their words are on the kernel's command line.
"""

from __future__ import annotations

import re
from typing import Optional

from .. import bls, images
from ..cmdline import Desired, join, split
from ..cmdline_file import CMDLINE, edited, has_comments, tokens_of
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood
from ..firmware import by_version, has_stub, is_next, loader
from ..loader import Loader
from ..made import holds, named, squeezed
from ..plan import Plan, Run, fixed, unfinished

VENDOR = "/usr/lib/kernel/cmdline"
MODULES = ("/usr/lib/modules", "/lib/modules")
# Kept by the boot loader for each boot, not tokens of the configuration.
_OF_THIS_BOOT = ("BOOT_IMAGE", "initrd")
_MACHINE = "systemd.machine_id="
# The first release of systemd that knows comments: for entries, for unified images.
_COMMENTS_SINCE = (254, 261)


class KernelInstall(Loader):
    """One file, and entries or images that are made of it."""

    name = "kernel-install"
    looked_for = "kernel-install with systemd-boot as the running boot loader, or with %s and no GRUB" % CMDLINE

    def found(self) -> bool:
        """By what the firmware says it booted; else by the file, where no GRUB is set up."""
        if not self.host.commands.has("kernel-install"):
            return False
        systemd_boot = "systemd-boot" in loader(self.host) or has_stub(self.host)
        return systemd_boot or (self.host.exists(CMDLINE) and not self.host.exists("/etc/default/grub"))

    def entries(self) -> list[Entry]:
        """The entries and images of this system's kernels. Those of others that are there too are left out."""
        versions = self._versions()
        found = [(file.id, [file.entry({}, is_next(self.host, file.id + ".conf"))]) for file in bls.files(self.host)]
        found += [(images.identifier(name), images.entries(self.host, name)) for name in images.files(self.host)]
        found = [(identifier, entries) for identifier, entries in found if _belongs(identifier, versions)]
        names = ["%s-%s" % (token, version) for token in self._tokens() for version in versions]
        own = [one for one in found if one[0] in names]
        found = sorted(own or found, key=lambda one: by_version(one[0]), reverse=True)
        if not found:
            raise NothingBoots(
                "No entry or image of an installed kernel (%s) was found in %s."
                % (", ".join(versions) or "none in %s" % MODULES[0], ", ".join((*bls.FOLDERS, *images.FOLDERS))),
                "Mount the boot partition, and see with kernel-install inspect whether its layout is bls or uki.",
                versions=versions,
            )
        return [entry for _identifier, entries in found for entry in entries]

    def _tokens(self) -> list[str]:
        """What this system's entries may start with; on a boot partition of several systems the others have theirs."""
        texts = [self.host.text(name) or "" for name in ("/etc/kernel/entry-token", "/etc/machine-id")]
        return [text.strip() for text in texts if text.strip()]

    def _versions(self) -> list[str]:
        folders = self.host.names(MODULES[0]) or self.host.names(MODULES[1])
        versions = [folder.rpartition("/")[2] for folder in folders]
        # Debian leaves folders of kernels that were removed.
        return [version for version in versions if self._image(version)]

    def _image(self, version: str) -> Optional[str]:
        places = ["%s/%s/vmlinuz" % (folder, version) for folder in MODULES] + ["/boot/vmlinuz-%s" % version]
        return next((path for path in places if self.host.exists(path)), None)

    def _source(self) -> str:
        text = self.host.text(CMDLINE)
        if text is None:
            text = self.host.text(VENDOR)
        if text is None:
            running = split(self.host.text("/proc/cmdline") or "")
            own = [token for token in running if token.partition("=")[0] not in _OF_THIS_BOOT]
            text = join(own) + "\n"
        return text

    def _knows_comments(self, source: str, entries: list[Entry]) -> bool:
        """Whether lines with # are comments; asked of the program only where there are such lines."""
        if not has_comments(source):
            return True
        as_tokens = squeezed(tokens_of(source, comments=False))
        if any(holds(entry.tokens, as_tokens) for entry in entries):
            return False
        said = self.host.run(["kernel-install", "--version"]).out
        version = re.search(r"\d+", said)
        has_images = any(entry.path.endswith(".efi") for entry in entries)
        return bool(version) and int(version.group() if version else 0) >= _COMMENTS_SINCE[has_images]

    def plan(self, desired: Desired) -> Plan:
        """Edit the file, then make every kernel's entry or image again."""
        entries = self.left()
        source = self._source()
        comments = self._knows_comments(source, entries)
        settings = tokens_of(source, comments)
        before = default(entries).tokens if entries else tuple(settings)
        for tokens in (settings, before):
            desired.check_length(tokens)
        is_met = not desired.unmet(settings) and not any(desired.unmet(entry.tokens) for entry in entries)
        if is_met and not unfinished(self.host):
            return Plan(desired, before, before)
        text = self.host.text(CMDLINE)
        new = edited(source, desired, comments)
        wanted = squeezed(tokens_of(new, comments))
        edits = (fixed(CMDLINE, text, new),) if new != text else ()
        runs = self._rebuild()
        return Plan(
            desired,
            before,
            (*wanted, *(() if named(wanted, _MACHINE) else named(before, _MACHINE))),
            (*edits, *runs),
            protects=tuple("%s/*.conf" % folder for folder in bls.FOLDERS),
            repair=runs,
            space=(("/boot", self._largest_image()),),
            keeps=tuple(wanted),
        )

    def _rebuild(self) -> tuple[Run, ...]:
        runs = []
        for version in self._versions():
            initrd = "/boot/initrd.img-%s" % version
            extra = [initrd] if self.host.exists(initrd) else []
            runs.append(Run(("kernel-install", "add", version, str(self._image(version)), *extra)))
        if not runs:
            raise NotUnderstood(
                "No kernel image was found in %s/*/vmlinuz or /boot." % MODULES[0],
                "Install a kernel package, or name another boot loader with the option loader.",
            )
        return tuple(runs)

    def _largest_image(self) -> int:
        """A unified image is written beside the one that it replaces."""
        sizes = [self.host.path(name).stat().st_size for name in images.files(self.host)]
        return max(sizes, default=0)


def _belongs(identifier: str, versions: list[str]) -> bool:
    """Whether an entry of that name, as in ``TOKEN-VERSION``, is one of these kernels'."""
    return any(identifier.endswith("-" + version) for version in versions)
