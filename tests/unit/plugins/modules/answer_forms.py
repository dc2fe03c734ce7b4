# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What a TypedDict of ``_core/answers.py`` says, beside a value and beside the documentation of a module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

PLAIN = {"str": str, "int": int, "float": float, "bool": bool}


def amiss(value: object, hint: Any, where: str = "answer") -> Iterator[str]:
    """Where a value is not as the hint says."""
    hint, may_be_none = _inner(hint)
    if hint is Any or (value is None and may_be_none):
        return
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        if not isinstance(value, dict):
            yield f"{where}: no {hint.__name__}"
            return
        yield from (f"{where}: {key} is missing" for key in hint.__required_keys__ - set(value))
        yield from (f"{where}: {key} is not a key of {hint.__name__}" for key in set(value) - set(hints))
        for key in set(value) & set(hints):
            yield from amiss(value[key], hints[key], f"{where}.{key}")
    elif get_origin(hint) is list and isinstance(value, list):
        for number, one in enumerate(value):
            yield from amiss(one, get_args(hint)[0], f"{where}[{number}]")
    elif get_origin(hint) is dict and isinstance(value, dict):
        for key, one in value.items():
            yield from amiss(one, get_args(hint)[1], f"{where}.{key}")
    elif type(value) is not hint and not (hint is float and type(value) is int):
        yield f"{where}: {value!r} is not {hint}"


def undocumented(documented: Mapping[str, Any], hint: Any, apart: set[str], where: str = "answer") -> Iterator[str]:
    """Where ``contains`` of a documentation has other keys, types or samples; ``apart`` is left out of the keys."""
    hints = get_type_hints(hint)
    yield from (f"{where}: only one of both has {key}" for key in sorted((set(hints) ^ set(documented)) - apart))
    for key in set(hints) & set(documented):
        about, (inner, _may_be_none), here = documented[key], _inner(hints[key]), f"{where}.{key}"
        if get_origin(inner) is list:
            (element,) = get_args(inner)
            yield from _other_type(about["type"], list, here)
            yield from _other_type(about["elements"], element, here)
        else:
            element = inner
            yield from _other_type(about["type"], inner, here)
        if "contains" in about:
            yield from undocumented(about["contains"], element, set(), here)
        if "sample" in about:
            yield from amiss(about["sample"], hints[key], f"sample of {here}")
        elif "contains" not in about:
            yield f"{here}: no sample"


def _other_type(name: str, hint: Any, where: str) -> Iterator[str]:
    if is_typeddict(hint) or get_origin(hint) is dict:
        hint = dict
    if {**PLAIN, "dict": dict, "list": list}[name] is not hint:
        yield f"{where}: documented as {name}, and {hint} in answers.py"


def _inner(hint: Any) -> tuple[Any, bool]:
    """The hint without None, and whether it has it."""
    if get_origin(hint) is not Union:
        return hint, False
    (inner,) = (one for one in get_args(hint) if one is not type(None))
    return inner, True
