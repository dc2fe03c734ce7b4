# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Pop!_OS: ``kernelstub`` keeps the tokens in its JSON file and writes the entries of systemd-boot."""

from __future__ import annotations

import json

from ..change import Plan, Run, unfinished
from ..cmdline import Wish, join, split
from ..errors import NotUnderstood
from ..loader import ReadsSettings

CONFIGURATION = "/etc/kernelstub/configuration"
ENTRIES = "/boot/efi/loader/entries/*.conf"


class Kernelstub(ReadsSettings):
    """kernelstub changes its file and the entries together."""

    name = "kernelstub"
    looked_for = "the command kernelstub with %s" % CONFIGURATION

    def found(self) -> bool:
        """The command and its file."""
        return self.host.commands.has("kernelstub") and self.host.exists(CONFIGURATION)

    def read(self) -> list[str]:
        """The user's options, which replace the defaults."""
        try:
            configuration = json.loads(self.host.text(CONFIGURATION) or "")
            chosen = configuration.get("user") or configuration["default"]
            options = chosen["kernel_options"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotUnderstood(
                "%s has no list user.kernel_options: %s." % (CONFIGURATION, error), "Run kernelstub once by hand."
            ) from error
        return split(options if isinstance(options, str) else join([str(option) for option in options]))

    def plan(self, wish: Wish) -> Plan:
        """Delete first, then add."""
        before = self.read()
        wish.check_length(before)
        fate = wish.fate(before)
        gone = [token for token, kept in zip(before, fate.kept) if kept != token]
        come = [kept for token, kept in zip(before, fate.kept) if kept is not None and kept != token]
        runs = []
        if gone:
            runs.append(Run(("kernelstub", "--delete-options", join(gone))))
        if come or fate.added:
            runs.append(Run(("kernelstub", "--add-options", join([*come, *fate.added]))))
        if not runs and unfinished(self.host):
            runs.append(Run(("kernelstub",)))
        after = tuple([token for token, kept in zip(before, fate.kept) if kept == token] + [*come, *fate.added])
        protects = (CONFIGURATION, ENTRIES)
        return Plan(wish, tuple(before), after, tuple(runs), protects=protects, space=(("/boot/efi", 0),))
