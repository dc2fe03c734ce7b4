# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings from the environment and the command line, which wins. Each variable has a flag of the same name."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class BadSetting(ValueError):
    """A setting has a value that it cannot have; the text names the setting, the value and what is possible."""


class Option(NamedTuple):
    """One setting: the environment variable, its default, and how its text is read (ValueError: what is possible).

    ``prefix``: what of the variable's name the flag does not have.
    """

    variable: str
    field: str
    default: str
    parse: Callable[[str], Any]
    help: str
    short: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def flag(self) -> str:
        """--node-name for NODE_NAME."""
        return "--" + self.variable.removeprefix(self.prefix).lower().replace("_", "-")


def parse(
    program: str, about: str, options: Sequence[Option], arguments: Sequence[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Field to value, ``debug`` among them. Raises BadSetting; ends the process for --help and unknown flags."""
    parser = argparse.ArgumentParser(prog=program, description=about, allow_abbrev=False)
    for option in options:
        parser.add_argument(*option.short, option.flag, dest=option.field, metavar="VALUE", help=option.help)
    parser.add_argument("--debug", action="store_true", help="log more")
    given = vars(parser.parse_args(arguments))
    values: dict[str, Any] = {"debug": given["debug"]}
    for option in options:
        values[option.field] = _value(option, given[option.field], environment)
    return values


def _value(option: Option, given: str | None, environment: Mapping[str, str]) -> Any:
    text = environment.get(option.variable, option.default) if given is None else given
    try:
        return option.parse(text)
    except ValueError as error:
        raise BadSetting(f"{option.variable} is {text!r}. Give {error}.") from error


# --- how a text is read -----------------------------------------------------------------------------------------------


def text(value: str) -> str:
    """Any."""
    return value.strip()


def flag(value: str) -> bool:
    """Yes or no."""
    if value.strip().lower() in ("true", "1", "yes"):
        return True
    if value.strip().lower() in ("false", "0", "no", ""):
        return False
    raise ValueError("true or false")


def seconds(value: str) -> float:
    """A time."""
    with contextlib.suppress(ValueError):
        found = float(value)
        if 0 <= found < float("inf"):
            return found
    raise ValueError("seconds, 0 or more")


def count(value: str) -> int:
    """A number of things, at least one."""
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    raise ValueError("1 or more")


def port(value: str) -> int:
    """Of TCP."""
    if value.isdecimal() and int(value) < 65536:
        return int(value)
    raise ValueError("a port, or 0 for none")


def path(value: str) -> Path:
    """Of a file or a folder."""
    if not value.startswith("/"):
        raise ValueError("an absolute path")
    return Path(value)


def one_of(*choices: str) -> Callable[[str], str]:
    """One of some words."""

    def parse_choice(value: str) -> str:
        if value.strip() not in choices:
            raise ValueError("one of " + ", ".join(choices))
        return value.strip()

    return parse_choice


def is_json(value: str) -> bool:
    """Whether log lines are JSON: ``text`` or ``json``."""
    return one_of("text", "json")(value) == "json"
