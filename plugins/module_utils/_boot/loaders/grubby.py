# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""RHEL, Rocky, Oracle Linux and Fedora: ``grubby`` for the entries that are there, two files for those to come.

grubby writes the entries in /boot/loader/entries, GRUB's environment block (kernelopts of RHEL 8), and in newer
releases /etc/default/grub and /etc/kernel/cmdline; so these two are edited after it, if they still have to be.
"""

from __future__ import annotations

import re
from typing import Optional

from ..change import Edit, Plan, Run
from ..cmdline import Wish, join, split
from ..cmdline_file import CMDLINE
from ..cmdline_file import edited as edited_cmdline
from ..errors import NotUnderstood
from ..grub import DEFAULTS
from ..grub import edited as edited_defaults
from ..loader import Loader

_ARGS = re.compile(r'^args="(.*)"$', re.MULTILINE)


class Grubby(Loader):
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
        gone: dict[str, None] = {}
        come: dict[str, None] = {}
        for tokens in entries:
            fate = wish.fate(tokens)
            changed = [(token, kept) for token, kept in zip(tokens, fate.kept) if kept != token]
            gone.update(dict.fromkeys(token for token, _kept in changed))
            come.update(dict.fromkeys(kept for _token, kept in changed if kept is not None))
            come.update(dict.fromkeys(fate.added))
        options = ["--remove-args=%s" % join(list(gone))] if gone else []
        options += ["--args=%s" % join(list(come))] if come else []
        edits = [edit for edit in self._edits(wish) if edit.after != edit.before]
        runs = [Run(("grubby", "--update-kernel=ALL", *options))] if options else []
        return Plan(
            wish,
            tuple(before),
            tuple(wish.applied(before)),
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

    def check(self, plan: Plan) -> None:
        """The default entry, and every other one."""
        self.compare(plan, self.read(), plan.after)
        for number, tokens in enumerate(self._entries("ALL")):
            self.compare(plan, tokens, (), "entry %d" % number)
