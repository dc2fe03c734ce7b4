# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""GRUB's script language as far as ``grub.cfg`` has to be read: statements, their words, and the blocks they stand in.

Rules of GRUB (grub-core/script/yylex.l, parser.y): a line break or ``;`` ends a statement, ``{`` and ``}`` standing
alone open and close a block; between single quotes everything is text, between double quotes ``$`` refers to a
variable and a backslash takes ``$``, ``"`` and itself; outside of quotes a backslash takes any character.
"""

from __future__ import annotations

import re
from typing import Iterator, Mapping, NamedTuple, Optional, Sequence

from .errors import NotUnderstood

_SPACE = re.compile(r"(?:[ \t\r]|\\\r?\n)+")
_COMMENT = re.compile(r"#[^\n]*")
_PLAIN = re.compile(r"[^\s;{}|&<>'\"\\$]+")
_SINGLE = re.compile(r"'([^']*)'")
_REFERENCE = re.compile(r"\$(?:\{([A-Za-z0-9_?@*#]+)\}|([A-Za-z_][A-Za-z0-9_]*|[0-9?@*#]))")
_IN_DOUBLE = re.compile(r'[^"\\$]+')
# Words before which, and behind which, a command may stand on the same line.
_KEYWORDS = ("then", "else", "do", "!", "time")
_ENDS = ";\n{}|&<>"


class Part(NamedTuple):
    """A piece of a word: text, or the name of a variable; ``quoted`` parts are not split at white space."""

    text: str
    is_reference: bool = False
    quoted: bool = False


Word = tuple[Part, ...]


class Statement(NamedTuple):
    """A command with its words. ``block`` counts the blocks around it, innermost last, by their place in the file."""

    words: tuple[Word, ...]
    line: int
    block: tuple[int, ...]
    is_conditional: bool
    opens: int = 0

    @property
    def command(self) -> str:
        """The first word, a variable in it as ``$name``."""
        return spelled(self.words[0])


def spelled(word: Word) -> str:
    """A word as text; variables as ``$name``."""
    return "".join("$" + part.text if part.is_reference else part.text for part in word)


def words_of(words: Sequence[Word], variables: Mapping[str, str]) -> list[str]:
    """Words with their variables put in, as GRUB gives them to a command; one that is not known stays ``$name``."""
    found: list[str] = []
    for word in words:
        text: Optional[str] = None
        for part in word:
            value = variables.get(part.text) if part.is_reference else part.text
            if value is None:
                text = (text or "") + "$" + part.text
            elif part.is_reference and not part.quoted:
                pieces = value.split()
                if len(pieces) > 1:
                    found += [(text or "") + pieces[0], *pieces[1:-1]]
                    text = ""
                text = (text or "") + pieces[-1] if pieces else text
            else:
                text = (text or "") + value
        if text is not None:
            found.append(text)
    return found


def statements(text: str, path: str) -> Iterator[Statement]:
    """Every statement of a script, in order. Raises NotUnderstood, naming path and line, where a quote has no end."""
    return _Reader(text, path).statements()


class _Reader:
    def __init__(self, text: str, path: str) -> None:
        self.text = text
        self.path = path
        self.at = 0
        self.line = 1
        self.counted = 0

    def statements(self) -> Iterator[Statement]:
        blocks: list[int] = []
        depth = 0
        number = 0
        words: list[Word] = []
        line = 1
        while True:
            end = self._skip()
            if end is None:
                if not words:
                    line = self._line()
                words.append(self._word())
                continue
            while words and spelled(words[0]) in _KEYWORDS:
                words.pop(0)
            first = spelled(words[0]) if words else ""
            depth += 1 if first in ("if", "for", "while", "until") else -1 if first in ("fi", "done") else 0
            if words:
                number += 1
                opens = number if end == "{" else 0
                yield Statement(tuple(words), line, tuple(blocks), depth > 0, opens)
            if end == "{":
                number += 1
                blocks.append(number - 1 if words else number)
            elif end == "}" and blocks:
                blocks.pop()
            words = []
            if not end:
                return

    def _line(self) -> int:
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def _skip(self) -> Optional[str]:
        """Go to the next word; instead, what ends the statement: a character, or nothing at the end of the text."""
        match = _SPACE.match(self.text, self.at)
        self.at = match.end() if match else self.at
        if self.at < len(self.text) and self.text[self.at] == "#":
            match = _COMMENT.match(self.text, self.at)
            self.at = match.end() if match else self.at
        if self.at >= len(self.text):
            return ""
        if self.text[self.at] in _ENDS:
            self.at += 1
            return self.text[self.at - 1]
        return None

    def _word(self) -> Word:
        parts: list[Part] = []
        while self.at < len(self.text) and self.text[self.at] not in " \t\r" + _ENDS:
            plain = _PLAIN.match(self.text, self.at)
            character = self.text[self.at]
            if plain:
                parts.append(Part(plain.group()))
                self.at = plain.end()
            elif character == "'":
                single = _SINGLE.match(self.text, self.at)
                if not single:
                    raise self._endless()
                parts.append(Part(single.group(1), quoted=True))
                self.at = single.end()
            elif character == '"':
                self._double(parts)
            elif character == "\\":
                parts.append(Part(self.text[self.at + 1 : self.at + 2], quoted=True))
                self.at += 2
            else:
                self._dollar(parts, False)
        return tuple(parts)

    def _double(self, parts: list[Part]) -> None:
        start = self.at
        self.at += 1
        parts.append(Part("", quoted=True))
        while self.text[self.at : self.at + 1] != '"':
            plain = _IN_DOUBLE.match(self.text, self.at)
            if plain:
                parts.append(Part(plain.group(), quoted=True))
                self.at = plain.end()
            elif self.at >= len(self.text):
                self.at = start
                raise self._endless()
            elif self.text[self.at] == "\\":
                taken = self.text[self.at + 1 : self.at + 2]
                kept = taken if taken in ("$", '"', "\\") else "" if taken == "\n" else "\\" + taken
                parts.append(Part(kept, quoted=True))
                self.at += 2
            else:
                self._dollar(parts, True)
        self.at += 1

    def _dollar(self, parts: list[Part], quoted: bool) -> None:
        match = _REFERENCE.match(self.text, self.at)
        if match:
            parts.append(Part(match.group(1) or match.group(2), True, quoted))
            self.at = match.end()
        else:
            parts.append(Part("$", quoted=quoted))
            self.at += 1

    def _endless(self) -> NotUnderstood:
        line = self._line()
        return NotUnderstood(
            "%s, line %d: what opens here has no end." % (self.path, line),
            "Make the file again with its generator, then run again.",
            path=self.path,
            line=line,
        )
