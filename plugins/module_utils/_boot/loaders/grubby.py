# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""RHEL, Rocky, Oracle Linux and Fedora: the entries of the Boot Loader Specification that GRUB's blscfg reads.

Each entry is changed by itself, in its file (and in kernelopts of GRUB's environment block, as RHEL 8 has it), as
grubby changes them; two files say what kernels to come get. The command grubby itself is not used, because it cannot
express such a change (its script grubby-bls, function update_args): it splits what it is given at every space, quoted
or not; takes all values of a parameter away before it adds one, and adds at the end; removes one of two equal tokens;
takes what it removes for a regular expression; writes the value of ``$tuned_params`` into the entry in place of the
reference; and for ALL it rewrites /etc/default/grub and /etc/kernel/cmdline with what it made of another entry.
"""

from __future__ import annotations

from typing import Optional

from .. import bls, grubenv
from ..cmdline import Desired
from ..cmdline_file import CMDLINE
from ..cmdline_file import edited as edited_cmdline
from ..entry import Entry, default
from ..errors import NotUnderstood, Shadowed
from ..grub import COMMON, DEFAULTS
from ..grub_chain import change
from ..grub_plan import entries, environment_of, read
from ..loader import Loader
from ..plan import Edit, Plan, fixed

CONFIG = "/boot/grub2/grub.cfg"
# Before RHEL 9, and Fedora 34, on UEFI: one folder for each system.
ON_ESP = "/boot/efi/EFI"


class Grubby(Loader):
    """Every entry has its own command line; the default entry's counts as the configured one."""

    name = "grubby"
    looked_for = "the command grubby"

    def found(self) -> bool:
        """The command alone: nothing else ships it."""
        return self.host.commands.has("grubby")

    def _config(self) -> str:
        """The grub.cfg that boots. The one on the EFI partition may be three lines that lead to the other."""
        names = ["%s/grub.cfg" % folder for folder in self.host.names(ON_ESP)]
        found = [name for name in names if "blscfg" in (self.host.text(name) or "")]
        return CONFIG if self.host.exists(CONFIG) or not found else found[0]

    def entries(self) -> list[Entry]:
        """The files that GRUB reads, newest first."""
        return entries(self.host, self._config())

    def plan(self, desired: Desired) -> Plan:
        """The files that have to change, each by itself."""
        from ..bls_change import changed  # noqa: PLC0415 - of no use to other loaders' hosts

        config = self._config()
        reading = read(self.host, config)
        if not reading.uses_bls:
            raise Shadowed(
                "%s has entries of its own and does not read those in /boot/loader/entries, which grubby changes."
                % config,
                "Name the boot loader that makes it with the option loader (grub), or set GRUB_ENABLE_BLSCFG=true in "
                "%s and run grub2-mkconfig." % DEFAULTS,
                path=config,
            )
        now = [reading.expanded(entry) for entry in reading.entries]
        before = default(now)
        for entry in now:
            desired.check_length(entry.tokens)
        files = bls.files(self.host, bls.FOLDERS[:1])
        texts, kernelopts = changed(files, reading.variables, desired)
        edits = [*self._for_kernels_to_come(desired), *self._environment(config, kernelopts)]
        edits += [fixed(path, self.host.text(path), text) for path, text in texts.items()]
        variables = {**reading.variables, **({} if kernelopts is None else {grubenv.KERNELOPTS: kernelopts})}
        after = {file.path: bls.parse(file.path, texts.get(file.path, file.text)).entry(variables) for file in files}
        return Plan(
            desired,
            before.tokens,
            after[before.path].tokens if before.path in after else before.tokens,
            tuple(edits),
            expected=tuple(after.values()),
        )

    def _environment(self, config: str, kernelopts: Optional[str]) -> list[Edit]:
        if kernelopts is None:
            return []
        path = environment_of(config)
        text = self.host.text(path)
        if text is None or grubenv.KERNELOPTS not in grubenv.parse(text):
            raise NotUnderstood(
                "The entries use $kernelopts, which %s does not have: only %s sets it." % (path, config),
                'Put it there: grub2-editenv - set "kernelopts=..." with the value of that file.',
                path=path,
            )
        return [fixed(path, text, grubenv.changed(text, grubenv.KERNELOPTS, kernelopts, path))]

    def _for_kernels_to_come(self, desired: Desired) -> list[Edit]:
        edits = []
        text = self.host.text(DEFAULTS)
        if text is not None:
            new = change(self.host, {DEFAULTS: text}, desired, variable=COMMON).files
            edits += [fixed(path, text, after) for path, after in new.items()]
        text = self.host.text(CMDLINE)
        if text is not None and edited_cmdline(text, desired) != text:
            edits.append(fixed(CMDLINE, text, edited_cmdline(text, desired)))
        return edits
