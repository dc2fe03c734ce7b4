# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Variables of files that a shell (``/etc/default/grub``) or GRUB (``grub.cfg``) reads, changed one by one.

An assignment is understood when it stands alone on its line, outside of every if, loop and function, and its value is
made of text and references to the variables that are looked for: ``$X``, ``${X}``, and ``${X:+$X }``, with which tuned
puts its parameters behind others. Anything else is refused with its line.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn, Optional, Sequence

from .cmdline import REFERENCE, TOKEN, Fate, Piece, group, rewrite
from .errors import NotUnderstood

_OPENING = ("if", "for", "while", "until", "case", "select", "function", "menuentry", "submenu")
_CLOSING = ("fi", "done", "esac")
_BLANK = " \t"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The variable and a space behind it, if it is not empty.
_WITH_SPACE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*):\+(?:\$(?P=name)|\$\{(?P=name)\}) \}")
_STOPS = "|&<>()"
_QUOTED = re.compile(r"'[^']*'|`[^`]*`|\"(?:[^\"\\]|\\.)*\"|\$\([^)]*\)")
_READS_ANOTHER = re.compile(r"(?:^|[\s;&|{(!])(?:\.|source|eval)\s")


class Assignment(NamedTuple):
    """One assignment: the variable, its value in pieces, how it was quoted, and where the value stands in the text."""

    variable: str
    pieces: tuple[Piece, ...]
    quote: str
    start: int
    end: int
    line: int

    @property
    def tokens(self) -> list[str]:
        """The tokens of the value, references left out."""
        return [piece.text for piece in self.pieces if piece.kind == TOKEN]

    def changed(self, fate: Fate) -> str:
        """How the value is spelled after a fate of its tokens."""
        quote = self.quote if self.quote in ("'", '"') else '"'
        new = rewrite(_respelled(self.pieces, self.quote, quote), fate, lambda token: spelled(token, quote))
        return quote + "".join(piece.raw for piece in new) + quote


def spelled(token: str, quote: str) -> str:
    """A token inside of quotes of that kind."""
    return re.sub(r'([\\"$`])', r"\\\1", token) if quote == '"' else token


def _respelled(old: Sequence[Piece], before: str, after: str) -> list[Piece]:
    if before == after:
        return list(old)
    new = []
    for piece in old:
        raw = "${%s}" % piece.text if piece.kind == REFERENCE else spelled(piece.text, after)
        new.append(Piece(piece.kind, piece.text, raw))
    return new


def replaced(text: str, values: dict[Assignment, str]) -> str:
    """The text with the values of assignments exchanged, everything else as it was."""
    for assignment in sorted(values, key=lambda one: one.start, reverse=True):
        text = text[: assignment.start] + values[assignment] + text[assignment.end :]
    return text


def assignments(
    text: str, variables: Sequence[str], path: str, setter: str = "export", plain_only: bool = False
) -> list[Assignment]:
    """Every assignment to one of the variables, in order; ``setter`` is the word that may stand before it.

    Raises NotUnderstood, naming path and line. With ``plain_only`` what is not understood is left out instead, as far
    as it can be told where it ends.
    """
    return _Reader(text, variables, path, setter, plain_only).assignments()


class _Reader:
    def __init__(self, text: str, variables: Sequence[str], path: str, setter: str, plain_only: bool) -> None:
        self.text = text
        self.variables = variables
        self.path = path
        names = "|".join(re.escape(name) for name in variables)
        self.plain = re.compile(r"(?:%s[ \t]+)?(%s)=" % (setter, names))
        self.hidden = re.compile(r"(?<![\w$])(?:%s)[+:]?=|\bunset\b.*\b(?:%s)\b" % (names, names))
        self.may_hide = setter == "export"
        self.plain_only = plain_only

    def refuse(self, at: int, what: str) -> NoReturn:
        line = self.text.count("\n", 0, at) + 1
        raise NotUnderstood(
            "%s, line %d: %s." % (self.path, line, what),
            "Write the value as plain text in one assignment, then run again.",
            path=self.path,
            line=line,
        )

    def assignments(self) -> list[Assignment]:
        found = []
        at, depth = 0, 0
        while at < len(self.text):
            character = self.text[at]
            if character in " \t\r\n;":
                at += 1
            elif character == "#":
                at = self._end_of_line(at)
            else:
                one = self._plain_one(at) if depth == 0 else None
                if one:
                    found.append(one)
                    at = one.end
                else:
                    end = self._end_of_statement(at)
                    statement = self.text[at:end]
                    self._refuse_what_is_hidden(statement, at)
                    depth = max(0, depth + _nesting(statement))
                    at = max(end, at + 1)
        return found

    def _plain_one(self, at: int) -> Optional[Assignment]:
        match = self.plain.match(self.text, at)
        try:
            return self._assignment(match.group(1), match.end()) if match else None
        except NotUnderstood:
            if not self.plain_only:
                raise
            return None

    def _refuse_what_is_hidden(self, statement: str, at: int) -> None:
        if self.plain_only:
            return
        if self.hidden.search(statement):
            self.refuse(at, "the assignment is conditional, or not a plain one")
        if self.may_hide and _READS_ANOTHER.search(_QUOTED.sub("", statement)):
            self.refuse(at, "another file or text is read here, which may set the command line")

    def _end_of_line(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end

    def _end_of_statement(self, at: int) -> int:
        start = at
        while at < len(self.text) and self.text[at] not in "\n;":
            if self.text.startswith("<<", at):
                self.refuse(at, "here-documents are not understood")
            if self.text[at] == "#" and self.text[at - 1] in _BLANK and at > start:
                return self._end_of_line(at)
            at = self._skip(at)
        return at

    def _skip(self, at: int) -> int:
        """Behind the character, escape, quoted text or substitution at a place."""
        character = self.text[at]
        if character == "\\":
            return at + 2
        if character == "'":
            return self._behind(self.text.find("'", at + 1), at)
        if character == "`":
            return self._behind(self.text.find("`", at + 1), at)
        closing = {'"': '"', "$(": ")"}
        for opening, end in closing.items():
            if self.text.startswith(opening, at):
                inside = at + len(opening)
                while inside < len(self.text) and self.text[inside] != end:
                    inside = inside + 1 if end == '"' and self.text[inside] == "'" else self._skip(inside)
                return self._behind(inside if inside < len(self.text) else -1, at)
        return at + 1

    def _behind(self, end: int, start: int) -> int:
        if end < 0:
            self.refuse(start, "what opens here has no end")
        return end + 1

    def _assignment(self, variable: str, start: int) -> Assignment:
        at = start
        characters: list[tuple[str, str]] = []
        quotes = []
        while at < len(self.text) and self.text[at] not in " \t\n;":
            quote = self.text[at] if self.text[at] in "'\"" else ""
            quotes.append(quote)
            at = self._segment(at + len(quote), quote, characters)
        self._alone(at)
        quote = quotes[0] if len(quotes) == 1 else "mixed" if quotes else ""
        line = self.text.count("\n", 0, start) + 1
        return Assignment(variable, tuple(self._pieces(characters, start)), quote, start, at, line)

    def _alone(self, at: int) -> None:
        behind = at
        while behind < len(self.text) and self.text[behind] in _BLANK:
            behind += 1
        if behind < len(self.text) and self.text[behind] not in "\n;" and not self.text.startswith("#", behind):
            self.refuse(at, "something follows the value")

    def _segment(self, at: int, quote: str, characters: list[tuple[str, str]]) -> int:
        """Read up to the closing quote, or without quotes up to one or the end of the value; the place behind it."""
        while at < len(self.text):
            character = self.text[at]
            if quote and character == quote:
                return at + 1
            if not quote and character in " \t\n;'\"":
                return at
            if ord(character) < 32 and character not in "\t\n":
                self.refuse(at, "the value holds the control character %r" % character)
            if quote == "'":
                characters.append((character, character))
                at += 1
            elif character == "\\":
                at = self._escape(at, quote, characters)
            elif character == "$":
                at = self._reference(at, characters)
            elif character == "`" or (not quote and character in _STOPS):
                self.refuse(at, "the value holds %s, which the shell would act on" % character)
            else:
                characters.append((character, character))
                at += 1
        if quote:
            self.refuse(at - 1, "the quoted value has no end")
        return at

    def _escape(self, at: int, quote: str, characters: list[tuple[str, str]]) -> int:
        raw = self.text[at : at + 2]
        if len(raw) < 2:
            self.refuse(at, "the value ends in a backslash")
        if raw[1] == "\n":
            characters.append(("", raw))
        elif quote and raw[1] not in '$`"\\':
            characters += [("\\", "\\"), (raw[1], raw[1])]
        else:
            characters.append((raw[1], raw))
        return at + 2

    def _reference(self, at: int, characters: list[tuple[str, str]]) -> int:
        with_space = _WITH_SPACE.match(self.text, at)
        if with_space and with_space.group("name") in self.variables:
            characters += [("$" + with_space.group("name"), with_space.group()), (" ", "")]
            return with_space.end()
        braced = self.text.startswith("${", at)
        match = _NAME.match(self.text, at + (2 if braced else 1))
        end = match.end() if match else at
        if not match or match.group() not in self.variables or (braced and not self.text.startswith("}", end)):
            unknown = re.split(r"[\s\"';]", self.text[at:], maxsplit=1)[0]
            self.refuse(at, "the value holds %s, which is not known here" % unknown)
        end += 1 if braced else 0
        characters.append(("$" + match.group(), self.text[at:end]))
        return end

    def _pieces(self, characters: Sequence[tuple[str, str]], start: int) -> list[Piece]:
        found = []
        parts = [text for text, _raw in characters if text.startswith("$") and len(text) > 1]
        for piece in group(characters):
            is_reference = piece.text in parts
            if not is_reference and any(part in piece.text for part in parts):
                self.refuse(start, "text is joined to a reference without a space")
            found.append(Piece(REFERENCE, piece.text[1:], piece.raw) if is_reference else piece)
        return found


def _nesting(statement: str) -> int:
    words = statement.split()
    first = words[0] if words else ""
    if first in _OPENING or re.match(r"\w+\s*\(\)", statement):
        return 1
    if first in _CLOSING:
        return -1
    return (1 if first == "{" else 0) - (1 if first == "}" else 0)
