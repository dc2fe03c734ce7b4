# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Pop!_OS: ``kernelstub`` keeps the tokens in its JSON file and writes the entries of systemd-boot.

Its option --delete-options takes the tokens through a set, which loses their order, and --add-options splits quoted
values wrongly (its files application.py and config.py). So the JSON file is edited here, in the program's own layout,
and the program without options writes the entries. It ends with 0 where it finds no kernel.
"""

from __future__ import annotations

import json
from typing import Any

from .. import bls
from ..cmdline import Desired, join, split
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood
from ..loader import Loader
from ..plan import Plan, Run, fixed, unfinished

CONFIGURATION = "/etc/kernelstub/configuration"
# The program has this folder in its text, whatever its setting esp_path says.
ENTRIES = "/boot/efi/loader/entries"


class Kernelstub(Loader):
    """One list of options, and an entry for the newest kernel; the former kernel's entry is a way back."""

    name = "kernelstub"
    looked_for = "the command kernelstub with %s" % CONFIGURATION

    def found(self) -> bool:
        """The command and its file."""
        return self.host.commands.has("kernelstub") and self.host.exists(CONFIGURATION)

    def entries(self) -> list[Entry]:
        """The current entry; that of the former kernel is rewritten only while two kernels are installed."""
        files = bls.files(self.host, [ENTRIES])
        found = [file.entry({}, is_default=True) for file in files if file.id.endswith("-current")]
        former = [file.entry({}) for file in files if file.id.endswith("-oldkern")]
        if not found:
            raise NothingBoots(
                "No *-current.conf was found in %s." % ENTRIES,
                "Mount the boot partition; run kernelstub --loader once, so that it writes entries.",
            )
        return [*found, *(Entry(one.path, one.title, one.tokens, one.line, is_recovery=True) for one in former)]

    def _configuration(self) -> dict[str, Any]:
        try:
            configuration = json.loads(self.host.text(CONFIGURATION) or "")
            configuration.setdefault("user", dict(configuration.get("default", {})))
            options = configuration["user"]["kernel_options"]
            if not isinstance(options, str):
                options = join([str(option) for option in options])
            configuration["user"]["kernel_options"] = split(options)
            writes_entries = configuration["user"].get("setup_loader")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotUnderstood(
                "%s has no list user.kernel_options: %s." % (CONFIGURATION, error), "Run kernelstub once by hand."
            ) from error
        if not writes_entries:
            raise NotUnderstood(
                "%s does not set setup_loader: kernelstub then writes no entries, but the firmware's own."
                % CONFIGURATION,
                "Run kernelstub --loader --manage-only once, so that systemd-boot has entries.",
            )
        return dict(configuration)

    def plan(self, desired: Desired) -> Plan:
        """Edit the list, then let the program write the entries."""
        configuration = self._configuration()
        entries = self.left()
        settings = list(configuration["user"]["kernel_options"])
        before = default(entries).tokens if entries else tuple(settings)
        for tokens in (settings, before):
            desired.check_length(tokens)
        wanted = desired.applied(settings)
        is_met = wanted == settings and not desired.unmet(before)
        if is_met and not unfinished(self.host):
            return Plan(desired, before, before)
        # The program puts root= and ro in front.
        configuration["user"]["kernel_options"] = wanted
        text = self.host.text(CONFIGURATION)
        edits = (fixed(CONFIGURATION, text, json.dumps(configuration, indent=2)),) if wanted != settings else ()
        run = Run(("kernelstub",))
        return Plan(
            desired,
            before,
            (*before[:2], *wanted),
            (*edits, run),
            protects=(ENTRIES + "/*.conf", CONFIGURATION),
            space=(("/boot/efi", 0),),
            keeps=tuple(wanted),
        )
