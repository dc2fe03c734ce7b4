# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The kernel command line as an ordered list of tokens, and what is desired of it. Nothing here reaches a file.

Rules of the kernel (lib/cmdline.c, kernel/params.c): white space separates tokens except between double quotes;
``-`` and ``_`` are the same in a parameter's name; quotes around a value, or around the whole token, do not belong to
it; after ``--`` come the arguments of init.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Callable, NamedTuple, Optional, Sequence

from .._core.errors import InvalidRequest
from .errors import NOTHING_CHANGED, InvalidToken

END = "--"

# COMMAND_LINE_SIZE of x86, less the closing zero; what is longer is cut off without a word.
LONGEST = 2047

GAP = "gap"
TOKEN = "token"
REFERENCE = "reference"

_SPACE = " \t\n\r\f\v"
_SHAPE = re.compile(r'[^\s"=]+(=([^\s"]*|"[^"]*"))?')
# What a shell, GRUB's script language or a generator of their files would expand, and never needs to be in a token.
_EXPANDED = "$`\\'*?[]{}()<>|&;#"


def split(text: str) -> list[str]:
    """The tokens of a text, as the kernel separates them, with their quotes."""
    return [piece.text for piece in pieces(text) if piece.kind == TOKEN]


def join(tokens: Sequence[str]) -> str:
    """The tokens as one line."""
    return " ".join(tokens)


def normal(token: str) -> tuple[str, Optional[str]]:
    """Name and value as the kernel compares them; None for a token without ``=``."""
    text = token
    if text.startswith('"'):
        text = text[1:]
        text = text[:-1] if text.endswith('"') else text
    name, equals, value = text.partition("=")
    if value.startswith('"'):
        value = value[1:]
        value = value[:-1] if value.endswith('"') else value
    return name.replace("-", "_"), value if equals else None


def validate(token: str) -> None:
    """Raise InvalidToken when the token cannot be written safely into every boot loader's files."""
    for problem, remedy in _problems(token):
        raise InvalidToken("%r is not a kernel parameter: %s." % (token, problem), remedy, token=token)


def _problems(token: str) -> list[tuple[str, str]]:
    found = []
    control = [character for character in token if ord(character) < 32 or ord(character) > 126]
    expanded = [character for character in token if character in _EXPANDED]
    if not token:
        found.append(("it is empty", "Leave it out."))
    elif control:
        found.append(("it holds the character %r" % control[0], "Use printable ASCII characters only."))
    elif "*" in token or "?" in token:
        found.append(("wildcards are not supported", "Name each token; removing a name removes all of its values."))
    elif expanded:
        found.append(("a boot loader would expand the character %s in it" % expanded[0], "Use tokens without it."))
    elif token.startswith("-"):
        found.append(("it starts with -", "Arguments of init cannot be set here."))
    elif not _SHAPE.fullmatch(token):
        found.append(
            (
                "it must be one name or name=value, with double quotes around the whole of a value that holds spaces",
                'Write it as in name="first second", and each parameter as a list item of its own.',
            )
        )
    return found


class Fate(NamedTuple):
    """What becomes of each token (None: it goes), and what comes in addition, in front of a ``--``."""

    kept: tuple[Optional[str], ...]
    added: tuple[str, ...]

    def applied(self) -> list[str]:
        """The tokens that result."""
        result = [token for token in self.kept if token is not None]
        at = result.index(END) if END in result else len(result)
        return [*result[:at], *self.added, *result[at:]]


@dataclass(frozen=True)
class Desired:
    """Tokens to have (``add``), tokens or names not to have (``remove``), names with one value only (``replace``)."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for token in (*self.add, *self.remove, *self.replace):
            validate(token)
        for token in self.replace:
            if normal(token)[1] is None:
                raise InvalidRequest(
                    "%r in replace has no value." % token, "Write name=value, or use add.", NOTHING_CHANGED
                )
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        values: dict[str, Optional[str]] = {}
        for token in self.replace:
            name, value = normal(token)
            if values.setdefault(name, value) != value:
                raise _contradiction(token, "replace asks for another value of it")
        for token in self.add:
            name, value = normal(token)
            if name in values and values[name] != value:
                raise _contradiction(token, "replace asks for another value of it")
        for wanted in (*self.add, *self.replace):
            for unwanted in self.remove:
                if _matches(wanted, unwanted):
                    raise _contradiction(wanted, "remove asks for %s to go" % unwanted)

    def fate(self, tokens: Sequence[str]) -> Fate:
        """What the request makes of a command line: only what has to change does."""
        end = tokens.index(END) if END in tokens else len(tokens)
        kept: list[Optional[str]] = list(tokens)
        for index in range(end):
            if any(_matches(tokens[index], unwanted) for unwanted in self.remove):
                kept[index] = None
        added: list[str] = []
        for token in self.replace:
            places = [index for index in range(end) if normal(tokens[index])[0] == normal(token)[0]]
            for index in places:
                kept[index] = None
            if places:
                first = places[0]
                kept[first] = tokens[first] if normal(tokens[first]) == normal(token) else token
            elif not any(normal(token) == normal(other) for other in added):
                added.append(token)
        present = [normal(token) for token in (*kept[:end], *added) if token is not None]
        for token in self.add:
            if normal(token) not in present:
                added.append(token)
                present.append(normal(token))
        return Fate(tuple(kept), tuple(added))

    def applied(self, tokens: Sequence[str]) -> list[str]:
        """The command line that the request makes of another."""
        return self.fate(tokens).applied()

    def unmet(self, tokens: Sequence[str]) -> list[str]:
        """What of the request a command line does not have, in words; empty when it has all."""
        fate = self.fate(tokens)
        gone = [token for token, kept in zip(tokens, fate.kept) if kept != token]
        come = [kept for token, kept in zip(tokens, fate.kept) if kept is not None and kept != token]
        return ["%s is missing" % token for token in (*come, *fate.added)] + ["%s is present" % token for token in gone]

    def check_length(self, tokens: Sequence[str]) -> None:
        """Raise InvalidRequest when the kernel would cut off what the request makes of a command line."""
        after = join(self.applied(tokens))
        if len(after) > max(LONGEST, len(join(tokens))):
            raise InvalidRequest(
                "The command line would be %d characters long; the kernel reads %d." % (len(after), LONGEST),
                "Remove tokens that are not needed.",
                NOTHING_CHANGED,
                length=len(after),
            )


def _matches(token: str, unwanted: str) -> bool:
    name, value = normal(token)
    unwanted_name, unwanted_value = normal(unwanted)
    return name == unwanted_name and (unwanted_value is None or value == unwanted_value)


def _contradiction(token: str, other: str) -> InvalidRequest:
    return InvalidRequest(
        "%r is asked for, but %s." % (token, other),
        "Ask for one of the two; to give a parameter one value only, name it in replace alone.",
        NOTHING_CHANGED,
        token=token,
    )


class Piece(NamedTuple):
    """A part of a value: white space, a token, or a reference to a variable; ``raw`` is how the file spells it."""

    kind: str
    text: str
    raw: str


def pieces(text: str) -> list[Piece]:
    """A plain text as pieces; together their ``raw`` is the text."""
    return group([(character, character) for character in text])


def group(characters: Sequence[tuple[str, str]]) -> list[Piece]:
    """Characters, each with its spelling, as pieces; what only the spelling has (no text) belongs to its neighbour."""
    found: list[tuple[str, list[str], list[str]]] = []
    quoted = False
    for text, raw in characters:
        if text == '"':
            quoted = not quoted
        kind = GAP if text in _SPACE and not quoted else TOKEN
        if not text:
            kind = found[-1][0] if found else GAP
        if not found or found[-1][0] != kind:
            found.append((kind, [], []))
        found[-1][1].append(text)
        found[-1][2].append(raw)
    return [Piece(kind, "".join(texts), "".join(raws)) for kind, texts, raws in found]


# A piece that is no gap, with the gap before it.
_Entries = list[tuple[str, Piece]]


def rewrite(old: Sequence[Piece], fate: Fate, spell: Callable[[str], str] = str) -> list[Piece]:
    """The pieces after a fate of their tokens; gaps stay as they are, so that adding and removing restores the text.

    "a  b -- c", without b and with d: "a d -- c".
    """
    entries, trailing = _survivors(old, fate.kept, spell)
    first = next((at for at, (_gap, piece) in enumerate(entries) if piece.text == END), len(entries))
    for at, token in enumerate(fate.added, first):
        trailing = _insert(entries, at, Piece(TOKEN, token, spell(token)), trailing)
    return _joined(entries, trailing)


def _survivors(
    old: Sequence[Piece], kept: Sequence[Optional[str]], spell: Callable[[str], str]
) -> tuple[_Entries, str]:
    """What stays, each with the gap before it, and the gap after the last.

    "a  b c" without b: "a" after "", "c" after " ", and no gap after it.
    """
    entries: _Entries = []
    gap = ""
    fates = iter(kept)
    orphan: Optional[str] = None  # the gap before first tokens that go
    for piece in old:
        if piece.kind == GAP:
            gap += piece.raw
            continue
        if orphan is not None and not entries:
            gap, orphan = _inherited(orphan, gap), None
        text = next(fates) if piece.kind == TOKEN else piece.text
        if text is not None:
            entries.append((gap, piece if text == piece.text else Piece(TOKEN, text, spell(text))))
        elif not entries:
            orphan = gap
        gap = gap if text is None and entries and "#" in gap else ""
    return entries, gap if entries else (orphan or "") + gap


def _inherited(orphan: str, gap: str) -> str:
    """The gap of the first token that stays, when those before it go: theirs; a comment stays.

    "" and " " give "", so that "a b" without a is "b".
    """
    return orphan + gap.lstrip() if "#" in gap else orphan


def _insert(entries: _Entries, at: int, new: Piece, trailing: str) -> str:
    """Put a token in its place; what is left of the gap after the last.

    "b" at 1 of "a": "a b". At 0 of " -- c": " b -- c". Behind a comment alone: on the line after it.
    """
    if not entries and "#" in trailing:
        entries.append((trailing, new))
        return ""
    if at == 0 and entries:
        entries[0:1] = [(entries[0][0], new), (" ", entries[0][1])]
    else:
        entries.insert(at, (" " if entries else "", new))
    return trailing


def _joined(entries: _Entries, trailing: str) -> list[Piece]:
    """Gaps and tokens in their order; empty gaps are none.

    "a" after "", "b" after "  ", and "\\n" at the end: a, two spaces, b, a newline.
    """
    result: list[Piece] = []
    for gap, piece in entries:
        result += [Piece(GAP, gap, gap), piece] if gap else [piece]
    return [*result, Piece(GAP, trailing, trailing)] if trailing else result
