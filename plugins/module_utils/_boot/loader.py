# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What every boot loader can do: say whether it is the one in use, read, plan, write, check."""

from __future__ import annotations

from typing import Sequence

from .._core.errors import VerifyMismatch
from .change import Done, Plan, carry_out
from .cmdline import Wish, join
from .host import Host


class Loader:
    """One boot loader, or one way in which a distribution keeps its command line."""

    name = ""
    looked_for = ""

    def __init__(self, host: Host) -> None:
        self.host = host

    def found(self) -> bool:
        """Whether this host boots that way."""
        raise NotImplementedError

    def read(self) -> list[str]:
        """The tokens that the next boot gets from the configuration. Raises NotUnderstood."""
        raise NotImplementedError

    def plan(self, wish: Wish) -> Plan:
        """What has to be done for the wish; without steps when it is met. Nothing is touched."""
        raise NotImplementedError

    def write(self, plan: Plan, keep_backups: bool = True) -> Done:
        """Carry out a plan, run the loader's own check, read back; when any of it fails, put everything back."""
        return carry_out(plan, self.host, lambda: self.check(plan), keep_backups)

    def check(self, plan: Plan) -> Sequence[str]:
        """The tokens that are there now. Raises VerifyMismatch when they are not what the plan wanted."""
        found = self.read()
        self.compare(plan, found, plan.after)
        return found

    def compare(self, plan: Plan, tokens: Sequence[str], expected: Sequence[str], where: str = "the default") -> None:
        """Raise VerifyMismatch when tokens that were read back do not meet the wish, or lack expected ones."""
        problems = plan.wish.unmet(tokens)
        problems += ["%s was lost" % token for token in expected if token not in tokens]
        if problems:
            raise VerifyMismatch(
                "After the change, %s does not have what was asked for: %s." % (where, ", ".join(problems)),
                "Look for another file or tool that sets the command line of this host.",
                loader=self.name,
                wanted=join(plan.after),
                found=join(tokens),
            )
