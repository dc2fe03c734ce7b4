# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A configuration file, read key by key: what nobody asked for is refused with the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from .refusal import BadConfig

MAX_BYTES = 1 << 20


class Keys:
    """One mapping of a file. Whoever has taken what it knows calls ``done``."""

    def __init__(self, value: object, file: str, where: str = "") -> None:
        if not isinstance(value, Mapping):
            raise BadConfig(file, where, f"is {_kind(value)}", "Give keys and values.")
        self._value = value
        self._file = file
        self._where = where
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def wrong(self, key: str, problem: str, remedy: str) -> BadConfig:
        """What to raise about a key; "" is the whole."""
        return BadConfig(self._file, self._at(key), problem, remedy)

    def text(self, key: str, default: str | None = None) -> str:
        """A string, which is not empty."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"is {_kind(value)}", 'Give a text, if need be in quotes: "0750".')
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """true or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, f"is {_kind(value)}", "Give true or false.")
        return value

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int:
        """A whole number within bounds."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, f"is {_kind(value)}", f"Give a whole number from {least} to {most}.")
        if not least <= value <= most:
            raise self.wrong(key, f"is {value}", f"Give a whole number from {least} to {most}.")
        return value

    def one_of(self, key: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of some words."""
        value = self.text(key, default)
        if value not in choices:
            raise self.wrong(key, f"is {value!r}", f"Give one of {', '.join(choices)}.{_nearest(value, choices)}")
        return value

    def texts(self, key: str, default: Sequence[str] | None = None) -> list[str]:
        """A list of strings, at least one."""
        value = self._take(key, default)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self.wrong(key, f"is {_kind(value)}", "Give a list with at least one text.")
        for number, one in enumerate(value):
            if not isinstance(one, str) or not one:
                raise self.wrong(f"{key}[{number}]", f"is {_kind(one)}", "Give a text.")
        return list(value)

    def words(self, key: str, default: Sequence[str] | None = None) -> list[str]:
        """A text or a whole number, or a list of such, at least one."""
        value = self._take(key, default)
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(one, str | int) or isinstance(one, bool) or one == "":
                at = f"{key}[{number}]" if isinstance(value, list) else key
                raise self.wrong(at, f"is {_kind(one)}", "Give a text or a whole number.")
        if value == []:
            raise self.wrong(key, "is an empty list", "Give at least one entry.")
        return [str(one) for one in value] if isinstance(value, list) else [str(value)]

    def within(self, key: str) -> Keys:
        """A mapping; an absent one is empty."""
        return Keys(self._take(key, {}), self._file, self._at(key))

    def each(self, key: str) -> Iterator[Keys]:
        """A list of mappings, at least one."""
        value = self._take(key, None)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, f"is {_kind(value)}", "Give a list with at least one entry.")
        for number, one in enumerate(value):
            yield Keys(one, self._file, f"{self._at(key)}[{number}]")

    def done(self) -> None:
        """Raises BadConfig for the first key that was not asked for."""
        for key in self._value:
            if key not in self._known:
                hint = _nearest(str(key), self._known) or f" There are: {', '.join(self._known)}."
                raise self.wrong(str(key), "there is no such key", f"Remove it.{hint}")

    def _take(self, key: str, default: object) -> Any:
        self._known.append(key)
        if key in self._value:
            return self._value[key]
        if default is None:
            raise self.wrong(key, "is not there", "Give it.")
        return default

    def _at(self, key: str) -> str:
        return ".".join(filter(None, (self._where, key)))


def read(text: str, file: str) -> Keys:
    """The keys of a YAML text. Raises BadConfig."""
    if len(text) > MAX_BYTES:
        raise BadConfig(file, "", f"has {len(text)} characters", f"Give at most {MAX_BYTES}.")
    try:
        value = yaml.load(text, _Loader)  # a safe one, see below
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise BadConfig(file, "", f"is no YAML: {problem}", "Mend the file.") from error
    except RecursionError as error:
        raise BadConfig(file, "", "is nested too deeply", "Mend the file.") from error
    return Keys(value, file)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's own loader takes the last."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            word = str(key.value)
            if word in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {word!r} is there twice", key.start_mark)
            seen.add(word)
        return super().construct_mapping(node, deep)


def _nearest(word: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {found[0]}?" if found else ""


def _kind(value: object) -> str:
    if value is None:
        return "empty"
    return f"{value!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"
