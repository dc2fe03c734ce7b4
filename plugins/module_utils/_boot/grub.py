# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB 2 where ``/etc/default/grub`` and the files it is joined by are turned into ``grub.cfg`` by a command.

The entry that boots by default gets GRUB_CMDLINE_LINUX and then GRUB_CMDLINE_LINUX_DEFAULT; the recovery entry gets the
first only, so what is added goes into the second, and a host can still be booted without it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

from .change import SPARE, Edit, Plan, Run, unfinished
from .cmdline import REFERENCE, TOKEN, Fate, Wish, split
from .errors import Shadowed
from .host import Host
from .shellfile import Assignment, assignments, replaced, spelled

COMMON = "GRUB_CMDLINE_LINUX"
DEFAULT = "GRUB_CMDLINE_LINUX_DEFAULT"
DEFAULTS = "/etc/default/grub"


@dataclass(frozen=True)
class _Place:
    """A token, where it stands: the file, the assignment and its number in there."""

    token: str
    path: str
    assignment: Assignment
    index: int


class Settings:
    """The variables of files that are read one after the other, as their reader sees them in the end."""

    def __init__(
        self, files: Mapping[str, str], variables: Sequence[str] = (COMMON, DEFAULT), setter: str = "export"
    ) -> None:
        self.files = dict(files)
        self.variables = variables
        self.setter = setter
        self.found = [
            (path, assignment)
            for path, text in files.items()
            for assignment in assignments(text, variables, path, setter)
        ]

    def tokens(self) -> list[str]:
        """The command line that the variables make together, in their order."""
        return [place.token for place in self._places()]

    def _places(self) -> list[_Place]:
        values: dict[str, list[_Place]] = {variable: [] for variable in self.variables}
        for path, assignment in self.found:
            value: list[_Place] = []
            index = 0
            for piece in assignment.pieces:
                if piece.kind == REFERENCE:
                    value += values[piece.text]
                elif piece.kind == TOKEN:
                    value.append(_Place(piece.text, path, assignment, index))
                    index += 1
            values[assignment.variable] = value
        return [place for variable in self.variables for place in values[variable]]

    def rewritten(self, wish: Wish, variable: str, home: Optional[str] = None) -> dict[str, str]:
        """The files that change, with their new text.

        What is added goes to the last assignment of ``variable``, in the file ``home`` if it is given; without such an
        assignment, to a new line at the end. Raises Shadowed when that would have no effect.
        """
        places = self._places()
        fate = wish.fate([place.token for place in places])
        kept: dict[tuple[str, Assignment], list[Optional[str]]] = {}
        for place, token in reversed(list(zip(places, fate.kept))):  # a place that is referred to twice keeps its first
            mine = kept.setdefault((place.path, place.assignment), list(place.assignment.tokens))
            mine[place.index] = token
        added: dict[tuple[str, Assignment], tuple[str, ...]] = {}
        new_line = fate.added
        for path, assignment in reversed(self.found):
            if fate.added and assignment.variable == variable and home in (None, path):
                added[(path, assignment)] = fate.added
                kept.setdefault((path, assignment), list(assignment.tokens))
                new_line = ()
                break
        files = dict(self.files)
        for path in self.files:
            values = {}
            for (owner, assignment), tokens in kept.items():
                extra = added.get((owner, assignment), ())
                if owner == path and (extra or tokens != assignment.tokens):
                    values[assignment] = assignment.changed(Fate(tuple(tokens), extra))
            files[path] = replaced(self.files[path], values)
        if new_line:
            last = home or next(iter(files))
            files[last] = _with_line(files[last], self._line(variable, new_line, bool(home)))
        self._confirm(files, wish)
        return {path: text for path, text in files.items() if text != self.files[path]}

    def _line(self, variable: str, tokens: Sequence[str], own_file: bool) -> str:
        words = spelled(" ".join(tokens), '"')
        defined = own_file or any(assignment.variable == variable for _path, assignment in self.found)
        reference = "${%s} " % variable if defined else ""
        setter = "set " if self.setter == "set" else ""
        return '%s%s="%s%s"\n' % (setter, variable, reference, words)

    def _confirm(self, files: Mapping[str, str], wish: Wish) -> None:
        unmet = wish.unmet(Settings(files, self.variables, self.setter).tokens())
        if unmet:
            raise Shadowed(
                "What would be written to %s would not be in force: %s." % (", ".join(files), ", ".join(unmet)),
                "Look there for a later assignment to %s, or for a -- that ends the kernel's part."
                % " or ".join(self.variables),
                files=list(files),
            )


def _with_line(text: str, line: str) -> str:
    return text + ("" if not text or text.endswith("\n") else "\n") + line


def edited(text: Optional[str], wish: Wish, path: str = DEFAULTS, variable: str = COMMON) -> Optional[str]:
    """One file of settings after the wish; None stays None."""
    if text is None:
        return None
    return Settings({path: text}).rewritten(wish, variable).get(path, text)


def stale(config: Optional[str], wish: Wish) -> bool:
    """Whether a generated ``grub.cfg`` has entries for Linux and none of them has what is wished."""
    lines = re.findall(r"^[ \t]*linux(?:16|efi)?[ \t]+\S+[ \t]*(.*)$", config or "", re.MULTILINE)
    return bool(lines) and all(wish.unmet(split(line)) for line in lines)


def generated(
    host: Host,
    wish: Wish,
    settings: Settings,
    edits: Sequence[Edit],
    command: Sequence[str],
    config: Optional[str] = None,
    checker: Optional[str] = None,
) -> Plan:
    """The plan of a loader whose command turns settings into ``config``; None when that is not on this file system."""
    before = settings.tokens()
    wish.check_length(before)
    text = host.text(config) if config else None
    new = {**settings.files, **{edit.path: edit.after or "" for edit in edits}}
    after = Settings(new).tokens()
    if not (edits or unfinished(host) or stale(text, wish)):
        return Plan(wish, tuple(before), tuple(before))
    has_check = config and checker and host.commands.has(checker)
    return Plan(
        wish,
        tuple(before),
        tuple(after),
        (*edits, Run(tuple(command))),
        checks=(Run((checker, config)),) if has_check and checker and config else (),
        protects=(config, config + ".new") if config else (),
        space=((config.rpartition("/")[0], 2 * len(text or "")),) if config else (("/etc", SPARE),),
    )
