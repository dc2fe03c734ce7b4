# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB 2 where ``/etc/default/grub`` and the files it is joined by are turned into ``grub.cfg`` by a command.

The entry that boots by default gets GRUB_CMDLINE_LINUX and then GRUB_CMDLINE_LINUX_DEFAULT; the recovery entry gets the
first only, so what is added goes into the second, and a host can still be booted without it.
"""

from __future__ import annotations

from typing import Container, Mapping, NamedTuple, Optional, Sequence

from .cmdline import REFERENCE, TOKEN, Desired, Fate, normal
from .errors import Shadowed
from .shellfile import Assignment, assignments, replaced, spelled

COMMON = "GRUB_CMDLINE_LINUX"
DEFAULT = "GRUB_CMDLINE_LINUX_DEFAULT"
DEFAULTS = "/etc/default/grub"


class _Place(NamedTuple):
    """A token, where it stands: the file, the assignment and its number in there."""

    token: str
    path: str
    assignment: Assignment
    number: int


class Change(NamedTuple):
    """What a request makes of a chain: its tokens before and after, and the files that change, with their new text."""

    old: tuple[str, ...]
    new: tuple[str, ...]
    files: Mapping[str, str]


class Settings:
    """The variables of files that are read one after the other, as their reader sees them in the end."""

    def __init__(
        self,
        files: Mapping[str, str],
        variables: Sequence[str] = (COMMON, DEFAULT),
        setter: str = "export",
        plain_only: bool = False,
    ) -> None:
        self.files = dict(files)
        self.variables = variables
        self.setter = setter
        self.plain_only = plain_only
        self.found = [
            (path, assignment)
            for path, text in files.items()
            for assignment in assignments(text, variables, path, setter, plain_only)
        ]

    def tokens(self) -> list[str]:
        """The command line that the variables make together, in their order."""
        return [place.token for place in self._places()]

    def defines(self, variable: str) -> bool:
        """Whether an assignment to it was found."""
        return any(assignment.variable == variable for _path, assignment in self.found)

    def without(self, gone: Container[tuple[str, Optional[str]]]) -> dict[str, str]:
        """The files that change when tokens of these names and values go from every assignment."""
        files = dict(self.files)
        for path, text in self.files.items():
            values = {}
            for owner, assignment in self.found:
                tokens = assignment.tokens
                kept = tuple(None if normal(token) in gone else token for token in tokens)
                if owner == path and kept != tuple(tokens):
                    values[assignment] = assignment.changed(Fate(kept, ()))
            files[path] = replaced(text, values)
        return {path: text for path, text in files.items() if text != self.files[path]}

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

    def rewritten(self, desired: Desired, variable: str, home: Optional[str] = None) -> dict[str, str]:
        """The files that change, with their new text.

        What is added goes to the last assignment of ``variable``, in the file ``home`` if it is given; without such an
        assignment, to a new line at the end. Raises Shadowed when that would have no effect.
        """
        places = self._places()
        fate = desired.fate([place.token for place in places])
        kept: dict[tuple[str, Assignment], list[Optional[str]]] = {}
        for place, token in reversed(list(zip(places, fate.kept))):  # a place that is referred to twice keeps its first
            mine = kept.setdefault((place.path, place.assignment), list(place.assignment.tokens))
            mine[place.number] = token
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
            is_defined = bool(home) or self.defines(variable)
            files[last] = with_line(files[last], variable, new_line, is_defined, self.setter)
        if not self.plain_only:
            self._confirm(files, desired)
        return {path: text for path, text in files.items() if text != self.files[path]}

    def _confirm(self, files: Mapping[str, str], desired: Desired) -> None:
        unmet = desired.unmet(Settings(files, self.variables, self.setter).tokens())
        if unmet:
            raise Shadowed(
                "What would be written to %s would not be in force: %s." % (", ".join(files), ", ".join(unmet)),
                "Look there for a later assignment to %s, or for a -- that ends the kernel's part."
                % " or ".join(self.variables),
                files=list(files),
            )


def with_line(text: str, variable: str, tokens: Sequence[str], is_defined: bool = True, setter: str = "export") -> str:
    """A file with one more line, which adds tokens to what a variable has, if it ``is_defined``."""
    reference = "${%s} " % variable if is_defined else ""
    line = '%s%s="%s%s"\n' % ("set " if setter == "set" else "", variable, reference, spelled(" ".join(tokens), '"'))
    return text + ("" if not text or text.endswith("\n") else "\n") + line
