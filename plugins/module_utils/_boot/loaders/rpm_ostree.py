# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Fedora CoreOS, RHEL for Edge and their kin: ``rpm-ostree kargs``, one transaction that makes a new deployment.

It either makes the deployment or leaves everything as it is. What it is asked for is computed from what was read:
``--append-if-missing`` looks at the name alone in libostree (ostree_kernel_args_contains), so ``console=ttyS0`` would
not come where ``console=tty0`` is. ``--replace=NAME=OLD=NEW`` keeps the place; it cannot be had together with
``--delete``, but with ``--delete-if-present``. Where these do not give the wanted order, all tokens from the first that
changes are taken out and appended again, in the same transaction.

On a node of OpenShift the machine-config daemon does this, from MachineConfig objects of the cluster, and takes a node
out of service whose parameters are others.
"""

from __future__ import annotations

from typing import Sequence

from .. import ostree
from ..cmdline import END, Desired, Fate, join, split
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood, Shadowed
from ..loader import Loader
from ..plan import Plan, Run

OPENSHIFT = "/etc/machine-config-daemon/currentconfig"
STAYS = (
    "A deployment with the new command line may be there, perhaps in place of one that was waiting; it boots next"
    " (rpm-ostree status)."
)


class RpmOstree(Loader):
    """The deployment that boots next has its own command line."""

    name = "rpm-ostree"
    looked_for = "the command rpm-ostree with %s" % ostree.BOOTED

    def found(self) -> bool:
        """Booted from a deployment, with the tool that makes them."""
        return self.host.commands.has("rpm-ostree") and ostree.is_booted(self.host)

    def entries(self) -> list[Entry]:
        """The deployment that boots next: the boot loader's entry, or the staged one as rpm-ostree has it."""
        entry = None if ostree.is_staged(self.host) else ostree.first(self.host)
        if entry is None:
            tokens = ostree.own(tuple(split(self.host.run(["rpm-ostree", "kargs"]).out)))
            if not tokens:
                raise NothingBoots("rpm-ostree kargs names no arguments.", "See rpm-ostree status.")
            entry = Entry("rpm-ostree kargs", "the deployment that boots next", tokens, is_default=True)
        return [entry]

    def plan(self, desired: Desired) -> Plan:
        """One call for all tokens."""
        before = default(self.entries()).tokens
        desired.check_length(before)
        fate = desired.fate(before)
        options, after = _options(before, fate)
        if not options:
            return Plan(desired, before, before)
        if self.host.exists(OPENSHIFT):
            raise _openshift(before, fate)
        if END in before:
            raise NotUnderstood(
                "The command line holds --, and rpm-ostree would add behind it: %s." % join(before),
                "Take it out with rpm-ostree kargs --editor, then run again.",
            )
        is_pending = ostree.is_pending(self.host)
        return Plan(
            desired,
            before,
            after,
            (Run(("rpm-ostree", "kargs", *options)),),
            repair=() if is_pending else (Run(("rpm-ostree", "cleanup", "-p")),),
            stays=STAYS if is_pending else "",
            keeps=after,
        )


def _options(before: Sequence[str], fate: Fate) -> tuple[list[str], tuple[str, ...]]:
    """What rpm-ostree is asked for, and the tokens that come of it."""
    wanted = fate.applied()
    options, after = _one_by_one(before, fate)
    if after != wanted:
        options = _from_the_first(before, wanted)
    return options, tuple(wanted)


def _from_the_first(before: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """All from the first token that changes, taken out and appended. Of equal tokens it takes out the first."""
    start = next((at for at, (old, new) in enumerate(zip(before, wanted)) if old != new), min(len(before), len(wanted)))
    while set(before[:start]) & set(before[start:]):
        start -= 1
    return ["--delete=%s" % token for token in before[start:]] + ["--append=%s" % token for token in wanted[start:]]


def _one_by_one(before: Sequence[str], fate: Fate) -> tuple[list[str], list[str]]:
    """Each change by itself, and what comes of it."""
    changed = [(old, new) for old, new in zip(before, fate.kept) if new != old]
    replaced = [(old, new) for old, new in changed if new is not None and _is_in_place(old, new)]
    gone = [old for old, new in changed if (old, new) not in replaced]
    come = [new for old, new in changed if new is not None and (old, new) not in replaced] + list(fate.added)
    # As its daemon does: replace, append, delete, each time the first that is the same.
    after = list(before)
    for old, new in replaced:
        after[after.index(old)] = new
    after += come
    for token in gone:
        after.remove(token)
    options = ["--delete-if-present=%s" % token for token in gone]
    options += ["--replace=%s=%s" % (old, new.partition("=")[2]) for old, new in replaced]
    return options + ["--append=%s" % token for token in come], after


def _is_in_place(old: str, new: str) -> bool:
    """Whether --replace can do it: its argument has room for one value without = on each side."""
    return old.count("=") == new.count("=") == 1 and old.partition("=")[0] == new.partition("=")[0]


def _openshift(before: Sequence[str], fate: Fate) -> Shadowed:
    gone = [token for token, kept in zip(before, fate.kept) if kept != token]
    come = [kept for token, kept in zip(before, fate.kept) if kept is not None and kept != token]
    return Shadowed(
        "This is a node of OpenShift (%s), whose kernel parameters the cluster keeps." % OPENSHIFT,
        "Make a MachineConfig with kernelArguments: %s; take out of yours: %s."
        % (join([*come, *fate.added]) or "none", join(gone) or "none"),
        path=OPENSHIFT,
    )
