# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""RHEL, Rocky, Oracle Linux and Fedora: ``grubby`` for the entries that are there, two files for those to come.

grubby writes the entries in /boot/loader/entries, GRUB's environment block (kernelopts of RHEL 8), and in newer
releases /etc/default/grub and /etc/kernel/cmdline; so these two are edited after it, if they still have to be.
grubby(8): a value that --args gives replaces all former values of its parameter, and --remove-args without a value
removes them all. So whatever shall stay of a parameter that is touched is given again.
"""

from __future__ import annotations

import re
from typing import Optional, Sequence

from ..change import Edit, Plan, Run
from ..cmdline import Wish, join, normal, split
from ..cmdline_file import CMDLINE
from ..cmdline_file import edited as edited_cmdline
from ..entry import Entry
from ..errors import NotUnderstood
from ..grub import DEFAULTS
from ..grub import edited as edited_defaults
from ..loader import ReadsSettings

_ARGS = re.compile(r'^args="(.*)"$', re.MULTILINE)


class Grubby(ReadsSettings):
    """Every entry has its own command line; the default entry's counts as the configured one."""

    name = "grubby"
    looked_for = "the command grubby"

    def found(self) -> bool:
        """The command alone: nothing else ships it."""
        return self.host.commands.has("grubby")

    def read(self) -> list[str]:
        """The default entry's tokens."""
        found = self._entries("DEFAULT")
        if not found:
            raise NotUnderstood("grubby --info=DEFAULT names no args.", "Set one with grubby --set-default.")
        return found[0]

    def _entries(self, which: str) -> list[list[str]]:
        return [split(args) for args in _ARGS.findall(self.host.run(["grubby", "--info=%s" % which]).out)]

    def plan(self, wish: Wish) -> Plan:
        """One call of grubby for all entries, then the files for kernels to come."""
        before = self.read()
        entries = [before, *self._entries("ALL")]
        wish.check_length(max(entries, key=lambda tokens: len(join(tokens))))
        fates = [wish.fate(tokens) for tokens in entries]
        gone = [old for tokens, fate in zip(entries, fates) for old, new in zip(tokens, fate.kept) if new != old]
        touched = {normal(token)[0] for token in [*gone, *(token for fate in fates for token in fate.added)]}
        come = [token for fate in fates for token in fate.applied() if normal(token)[0] in touched]
        gone, come = list(dict.fromkeys(gone)), list(dict.fromkeys(come))
        options = ["--remove-args=%s" % join(gone)] if gone else []
        options += ["--args=%s" % join(come)] if come else []
        edits = [edit for edit in self._edits(wish) if edit.after != edit.before]
        runs = [Run(("grubby", "--update-kernel=ALL", *options))] if options else []
        return Plan(
            wish,
            tuple(before),
            tuple([token for token in before if normal(token)[0] not in touched] + come),
            (*runs, *edits),
            protects=("/boot/loader/entries/*.conf", "/boot/grub2/grubenv", DEFAULTS, CMDLINE),
            space=(("/boot", 0),),
        )

    def _edits(self, wish: Wish) -> list[Edit]:
        def cmdline(text: Optional[str]) -> Optional[str]:
            return None if text is None else edited_cmdline(text, wish)

        return [
            Edit(DEFAULTS, self.host.text(DEFAULTS), lambda text: edited_defaults(text, wish)),
            Edit(CMDLINE, self.host.text(CMDLINE), cmdline),
        ]

    def check(self, plan: Plan) -> Sequence[str]:
        """The default entry, and every other one."""
        found = super().check(plan)
        for number, tokens in enumerate(self._entries("ALL")):
            self.compare(plan, Entry("grubby", "entry %d" % number, tuple(tokens)))
        return found
