# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What every boot loader can do: say whether it is the one in use, read what boots, plan, write, check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Optional, Sequence

from .._core.errors import VerifyMismatch
from .cmdline import Desired, join
from .entry import Entry, default, lost
from .errors import BootError
from .host import Host
from .plan import Done, Plan, unfinished


class Loader(ABC):
    """One boot loader, or one way in which a distribution keeps its command line."""

    name = ""
    looked_for = ""

    def __init__(self, host: Host) -> None:
        self.host = host

    @abstractmethod
    def found(self) -> bool:
        """Whether this host boots that way."""

    @abstractmethod
    def entries(self) -> list[Entry]:
        """What boots, from what the boot loader itself reads; at least one entry of this system.

        Raises NothingBoots, naming the files that were looked for, when nothing is found, and NotUnderstood.
        """

    @abstractmethod
    def plan(self, desired: Desired) -> Plan:
        """What has to be done for the request; without steps when what boots meets it. Nothing is touched.

        Asks ``entries`` first: what cannot be read back is not changed. Settings that meet it, while what boots does
        not, are a plan of the loader's commands alone.
        """

    def left(self) -> list[Entry]:
        """``entries``; none when they cannot be read after a run that was killed, whose command makes them again."""
        try:
            return self.entries()
        except BootError:
            if not unfinished(self.host):
                raise
            return []

    def read(self) -> list[str]:
        """The tokens of the entry that boots by default. Raises what ``entries`` raises."""
        return list(default(self.entries()).tokens)

    def write(self, plan: Plan, keep_backups: bool = True) -> Done:
        """Carry out a plan, run the loader's own check, read back; when any of it fails, put everything back."""
        from .change import carry_out  # noqa: PLC0415 - of no use where nothing changes

        return carry_out(plan, self.host, lambda: self.check(plan), keep_backups)

    def check(self, plan: Plan) -> Sequence[str]:
        """The tokens that boot by default now. Raises VerifyMismatch when an entry is not what the plan wanted."""
        entries = self.entries()
        for entry in entries:
            if not entry.is_recovery:
                self.compare(plan, entry)
        return default(entries).tokens

    def compare(self, plan: Plan, entry: Entry, expected: Optional[Sequence[str]] = None) -> None:
        """Raise VerifyMismatch when an entry does not meet the request, or lacks what is expected of it."""
        expected = plan.expects(entry) if expected is None else expected
        problems = plan.desired.unmet(entry.tokens)
        problems += ["%s was lost" % token for token in lost(expected, entry.tokens)]
        if problems:
            raise VerifyMismatch(
                "After the change, %s does not have what was asked for: %s." % (entry.where, ", ".join(problems)),
                "Look for another file or tool that sets the command line of this host.",
                loader=self.name,
                path=entry.path,
                line=entry.line,
                wanted=join(expected),
                found=join(entry.tokens),
            )


class ReadsSettings(Loader):
    """A loader of which only the settings are read, not what boots: ``read`` gives their tokens."""

    @abstractmethod
    def read(self) -> list[str]:
        """The tokens of the settings. Raises NotUnderstood."""

    def entries(self) -> list[Entry]:
        """The settings as if they were what boots."""
        return [Entry(self.name, "", tuple(self.read()), is_default=True)]

    def check(self, plan: Plan) -> Sequence[str]:
        """The tokens that are there now, which have to be those that were planned."""
        (entry,) = self.entries()
        self.compare(plan, entry, plan.after)
        return entry.tokens
