# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB 2 whose ``grub.cfg`` a command makes of settings: what boots is read in it, before and after."""

from __future__ import annotations

from typing import Mapping, NamedTuple, Sequence

from . import grubenv
from .cmdline import Desired, normal, split
from .entry import Entry, default
from .errors import BootError, NothingBoots, Shadowed
from .grub_menu import Menu, as_booted
from .host import Host
from .plan import Edit, Plan, Run, unfinished


class Generator(NamedTuple):
    """What makes ``config``: the command, and the program that checks what it made."""

    command: tuple[str, ...]
    config: str
    checker: str


def environment_of(config: str) -> str:
    """Where the ``grub.cfg`` of that name looks for its environment block."""
    return config.rpartition("/")[0] + "/grubenv"


class Reading(NamedTuple):
    """Entries with references to variables left in, and how they are put in."""

    entries: list[Entry]
    variables: Mapping[str, str]
    uses_bls: bool

    def expanded(self, entry: Entry) -> Entry:
        """The entry as it boots. blscfg leaves nothing of a variable that is not set; elsewhere it stays to be seen."""
        if not any("$" in token for token in entry.tokens):
            return entry
        tokens = [part for token in entry.tokens for part in self._expanded(token)]
        return entry._replace(tokens=tuple(tokens))

    def _expanded(self, token: str) -> list[str]:
        from . import bls  # noqa: PLC0415 - of no use to most hosts

        return split(bls.expanded(token, self.variables, None if self.uses_bls else str)) if "$" in token else [token]


def entries(host: Host, config: str) -> list[Entry]:
    """What boots by a ``grub.cfg``; by its command blscfg, the files in /boot/loader/entries.

    Raises NothingBoots when it is not there or starts no kernel of this system, NotUnderstood, Shadowed.
    """
    reading = read(host, config)
    return [reading.expanded(entry) for entry in reading.entries]


def read(host: Host, config: str) -> Reading:
    """The same, with the variables of GRUB left in the tokens."""
    text = host.text(config)
    if text is None:
        raise NothingBoots(
            "%s does not exist, so what boots this host cannot be read back." % config,
            "Run the generator of %s once, or name another boot loader with the option loader." % config,
            looked_for=[config],
        )
    environment = grubenv.variables(host, (environment_of(config),))
    menu = Menu(text, config)
    found = menu.entries(environment)
    if menu.uses_bls:
        from . import bls  # noqa: PLC0415 - of no use to most hosts

        files = bls.newest_first(bls.files(host, bls.FOLDERS[:1]))
        chosen = bls.default_of(files, menu.default_name(environment))
        found += [file.entry(None, file is chosen) for file in files]
    if not found:
        raise NothingBoots(
            "%s starts no kernel of this system: no entry with a linux line that is made of its settings." % config,
            "Install a kernel, run the generator of %s by hand and look what it says, then run again." % config,
            looked_for=[config],
        )
    return Reading(
        found,
        {**menu.fallbacks, **environment, **menu.variables} if menu.uses_bls else {**environment, **menu.variables},
        menu.uses_bls,
    )


def plan(
    host: Host, desired: Desired, generator: Generator, old: Sequence[str], new: Sequence[str], edits: Sequence[Edit]
) -> Plan:
    """The plan for edits that take the settings from the tokens ``old`` to ``new``.

    Without edits, the commands alone when what boots does not meet the request. What a run left that was killed is made
    again though it cannot be read. Raises NothingBoots and what reading raises.
    """
    was_killed = unfinished(host)
    try:
        reading = read(host, generator.config)
    except BootError:
        if not was_killed:
            raise
        reading = Reading([], {}, False)
    now = [reading.expanded(entry) for entry in reading.entries]
    before = default(now).tokens if now else tuple(old)
    desired.check_length(before)
    stale = any(desired.unmet(entry.tokens) for entry in now if not entry.is_recovery)
    if not (edits or was_killed or stale):
        return Plan(desired, before, before)
    coming = [reading.expanded(_with(desired, entry, old, new)) for entry in reading.entries]
    checker, config = generator.checker, generator.config
    _refuse_what_settings_do_not_reach(desired, now)
    return Plan(
        desired,
        before,
        default(coming).tokens if coming else tuple(new),
        (*edits, Run(generator.command)),
        checks=(Run((checker, config)),) if host.commands.has(checker) else (),
        protects=(config, config + ".new"),
        space=((config.rpartition("/")[0], 2 * len(host.text(config) or "")),),
        keeps=tuple(token for token in new if "$" not in token),
    )


def _with(desired: Desired, entry: Entry, old: Sequence[str], new: Sequence[str]) -> Entry:
    """An entry with other settings, which stand in it in one piece, as far as it can be foretold.

    In an entry that is older than they are, they come behind the root file system and how it is mounted.
    """
    coming = [as_booted(token) for token in new]
    names = [normal(token) for token in entry.tokens]
    wanted = [normal(token) for token in old]
    places = range(len(names) - len(wanted), -1, -1)
    at = next((place for place in places if names[place : place + len(wanted)] == wanted), None)
    if at is None:
        return entry._replace(tokens=(*_lead(entry), *coming))
    tail = [token for token in entry.tokens[at + len(wanted) :] if desired.fate([token]).kept == (token,)]
    return entry._replace(tokens=(*entry.tokens[:at], *coming, *tail))


def _lead(entry: Entry) -> tuple[str, ...]:
    """What the generator itself puts in front of the settings: root=... and how it is mounted."""
    modes = [place for place, token in enumerate(entry.tokens) if token in ("ro", "rw")]
    return entry.tokens[: modes[0] + 1] if modes else ()


def _refuse_what_settings_do_not_reach(desired: Desired, now: Sequence[Entry]) -> None:
    for entry in now:
        lead = _lead(entry)
        unwanted = [token for token, kept in zip(lead, desired.fate(lead).kept) if kept != token]
        if unwanted and not entry.is_recovery:
            raise Shadowed(
                "%s: %s is there without any setting, by the scripts in /etc/grub.d." % (entry.where, unwanted[0]),
                "Leave it out of what is asked for, or change it there by hand.",
                path=entry.path,
                line=entry.line,
            )
