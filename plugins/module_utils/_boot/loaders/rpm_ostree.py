# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Fedora CoreOS, RHEL for Edge and their kin: ``rpm-ostree kargs``, one transaction that makes a new deployment.

It either makes the deployment or leaves everything as it is. On a node of OpenShift the machine-config daemon does
this, from MachineConfig objects of the cluster, and takes a node out of service whose parameters are others.
"""

from __future__ import annotations

from ..change import Plan, Run
from ..cmdline import Wish, join, split
from ..errors import Shadowed
from ..loader import ReadsSettings

BOOTED = "/run/ostree-booted"
OPENSHIFT = "/etc/machine-config-daemon/currentconfig"


class RpmOstree(ReadsSettings):
    """The deployment that boots next has its own command line."""

    name = "rpm-ostree"
    looked_for = "the command rpm-ostree with %s" % BOOTED

    def found(self) -> bool:
        """Booted from a deployment, with the tool that makes them."""
        return self.host.commands.has("rpm-ostree") and self.host.exists(BOOTED)

    def read(self) -> list[str]:
        """The command line of the deployment that boots next."""
        return split(self.host.run(["rpm-ostree", "kargs"]).out)

    def plan(self, wish: Wish) -> Plan:
        """One call for all tokens."""
        before = self.read()
        wish.check_length(before)
        fate = wish.fate(before)
        gone = [token for token, kept in zip(before, fate.kept) if kept != token]
        come = [kept for token, kept in zip(before, fate.kept) if kept is not None and kept != token]
        come += fate.added
        if (gone or come) and self.host.exists(OPENSHIFT):
            raise Shadowed(
                "This is a node of OpenShift (%s), whose kernel parameters the cluster keeps." % OPENSHIFT,
                "Make a MachineConfig with kernelArguments: %s; take out of yours: %s."
                % (join(come) or "none", join(gone) or "none"),
                path=OPENSHIFT,
            )
        options = ["--delete-if-present=%s" % token for token in dict.fromkeys(gone)]
        options += ["--append-if-missing=%s" % token for token in come]
        run = Run(("rpm-ostree", "kargs", *options))
        after = tuple([token for token, kept in zip(before, fate.kept) if kept == token] + come)
        return Plan(wish, tuple(before), after, (run,) if options else ())
