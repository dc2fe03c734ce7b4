# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A request carried out on entries of the Boot Loader Specification: each by itself, and what they share.

The tokens of an entry are those of its ``options``, with the value of GRUB's variable kernelopts in its place. Each
token goes where it stands. One that is added goes to kernelopts when every entry that uses it lacks the token, else to
the entry's own last line of options.
"""

from __future__ import annotations

from typing import Mapping, NamedTuple, Optional, Sequence

from .bls import BlsFile, expanded, parse
from .cmdline import TOKEN, Desired, Fate, normal, pieces, rewrite, split
from .errors import NotUnderstood, Shadowed
from .grubenv import KERNELOPTS

_NAMES = ("$kernelopts", "${kernelopts}")


class _Place(NamedTuple):
    """A token: in the entry's own options (``own``), in kernelopts (``shared``), or of another variable (neither)."""

    token: str
    own: Optional[int] = None
    shared: Optional[int] = None
    variable: str = ""


def changed(
    files: Sequence[BlsFile], variables: Mapping[str, str], desired: Desired
) -> tuple[dict[str, str], Optional[str]]:
    """The texts of the files that change, and the new value of kernelopts (None: it stays).

    Raises NotUnderstood when entries want different things of kernelopts, Shadowed when another variable is in the way.
    """
    return _Change(files, variables, desired).result()


class _Change:
    def __init__(self, files: Sequence[BlsFile], variables: Mapping[str, str], desired: Desired) -> None:
        self.variables = variables
        self.desired = desired
        self.places = {file: self._places(file) for file in files}
        self.fates = {file: desired.fate([place.token for place in places]) for file, places in self.places.items()}

    def _places(self, file: BlsFile) -> list[_Place]:
        found = []
        for number, token in enumerate(split(file.options)):
            if token in _NAMES:
                shared = split(self.variables.get(KERNELOPTS, ""))
                found += [_Place(one, shared=index) for index, one in enumerate(shared)]
            elif token.startswith("$"):
                value = split(expanded(token, self.variables))
                found += [_Place(one, own=None if value else number, variable=token) for one in value or [token]]
            else:
                found.append(_Place(token, own=number))
        return found

    def result(self) -> tuple[dict[str, str], Optional[str]]:
        sharing = [file for file in self.places if any(name in split(file.options) for name in _NAMES)]
        together = self._lacked_by_all(sharing)
        value = self._shared(sharing, together)
        texts = {}
        for file, fate in self.fates.items():
            taken = {normal(token) for token in together} if file in sharing else set()
            text = self._own(file, tuple(token for token in fate.added if normal(token) not in taken))
            if text != file.text:
                texts[file.path] = text
        self._confirm(texts, value)
        return texts, value

    def _lacked_by_all(self, sharing: Sequence[BlsFile]) -> tuple[str, ...]:
        if not sharing or any(split(file.options).count(name) > 1 for file in sharing for name in _NAMES):
            return ()
        lacked = [{normal(token) for token in self.fates[file].added} for file in sharing]
        return tuple(token for token in self.fates[sharing[0]].added if all(normal(token) in one for one in lacked))

    def _shared(self, sharing: Sequence[BlsFile], together: tuple[str, ...]) -> Optional[str]:
        old = self.variables.get(KERNELOPTS, "")
        wanted: dict[int, Optional[str]] = {}
        for file in sharing:
            for place, kept in zip(self.places[file], self.fates[file].kept):
                if place.shared is not None and wanted.setdefault(place.shared, kept) != kept:
                    raise NotUnderstood(
                        "%s: its own options and those of kernelopts set %s differently." % (file.path, place.token),
                        "Leave that parameter in one of both, then run again.",
                        path=file.path,
                        token=place.token,
                    )
        layout = pieces(old)
        tokens = [piece.text for piece in layout if piece.kind == TOKEN]
        fate = Fate(tuple(wanted.get(index, token) for index, token in enumerate(tokens)), together)
        new = "".join(piece.raw for piece in rewrite(layout, fate))
        return new if new != old else None

    def _own(self, file: BlsFile, added: tuple[str, ...]) -> str:
        """The text of a file after the fates of its own tokens, line by line."""
        kept_by_number: dict[int, Optional[str]] = {}
        for place, kept in zip(self.places[file], self.fates[file].kept):
            if place.own is not None:
                kept_by_number[place.own] = kept
            elif place.shared is None and kept != place.token:
                raise Shadowed(
                    "%s: %s comes from %s, which another program sets." % (file.path, place.token, place.variable),
                    "Change it there (tuned: its profile), then run again.",
                    path=file.path,
                    token=place.token,
                )
        text, number = [], 0
        end = 0
        lines = file.spans
        ending = next((index for index, (start, stop) in enumerate(lines) if "--" in split(file.text[start:stop])), -1)
        for index, (start, stop) in enumerate(lines):
            layout = pieces(file.text[start:stop])
            tokens = [piece.text for piece in layout if piece.kind == TOKEN]
            mine = tuple(kept_by_number.get(number + place, token) for place, token in enumerate(tokens))
            number += len(tokens)
            is_home = index == (ending if ending >= 0 else len(lines) - 1)
            new = "".join(piece.raw for piece in rewrite(layout, Fate(mine, added if is_home else ())))
            text += [file.text[end:start], new]
            end = stop
        text.append(file.text[end:])
        if added and not lines:
            text.append("%soptions %s\n" % ("" if file.text.endswith("\n") else "\n", " ".join(added)))
        return "".join(text)

    def _confirm(self, texts: Mapping[str, str], value: Optional[str]) -> None:
        variables = {**self.variables, **({} if value is None else {KERNELOPTS: value})}
        for file in self.fates:
            entry = parse(file.path, texts.get(file.path, file.text)).entry(variables)
            unmet = self.desired.unmet(entry.tokens)
            if unmet:
                raise Shadowed(
                    "What would be written to %s would not be in force: %s." % (entry.where, ", ".join(unmet)),
                    "Look there for a -- that ends the kernel's part, or for a variable that sets the parameter too.",
                    path=file.path,
                )
