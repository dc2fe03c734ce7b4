#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Check who imports whom. The table is [tool.layers] in pyproject.toml; here is what it means.

- ``order``: packages whose files stand in rows. A file imports only files of earlier rows, and every file has a row.
  A package within such a package has a row there as a whole, and may have rows of its own.
- ``below``: what else of the collection the files of such a package may import: packages and files.
- ``only``: names that only the given files may import (a folder ends with a slash).
- ``never``: names that the files below a folder may not import.
- ``standard_library``: folders whose files import the standard library, the collection, and what ``only`` allows them.
- ``computed``: files that may import by a name that is computed, which no rule can check.

A name stands for everything below it: ``ansible`` for ``ansible.module_utils.basic``. Imports inside functions count,
and so do ``import_module("name")`` and its like.
"""

from __future__ import annotations

import argparse
import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

COLLECTION = "ansible_collections.confidential.gpu"
BY_NAME = {"import_module", "__import__", "find_spec"}
COMPUTED = "<computed>"


@dataclass(frozen=True)
class Table:
    """The declared layers. Paths are relative to the repository's root, with slashes."""

    order: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    below: Mapping[str, Sequence[str]] = field(default_factory=dict)
    only: Mapping[str, Sequence[str]] = field(default_factory=dict)
    never: Mapping[str, Sequence[str]] = field(default_factory=dict)
    standard_library: Sequence[str] = ()
    computed: Sequence[str] = ()
    roots: Sequence[str] = ()

    @classmethod
    def read(cls, pyproject: Path) -> Table:
        """The table of a pyproject.toml."""
        declared: dict[str, Any] = tomllib.loads(pyproject.read_text())["tool"]["layers"]
        return cls(**declared)


class Import(NamedTuple):
    """One import: the full dotted name, and the line."""

    name: str
    line: int


class Breach(NamedTuple):
    """An import that breaks a rule."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}"


def check(root: Path, table: Table) -> list[Breach]:
    """All breaches below ``root``, in order of file and line."""
    breaches = []
    for folder in table.roots:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            imports = list(imports_of(path, file.read_text()))
            for rule in (_order, _only, _computed, _never, _standard_library):
                breaches += [Breach(path, *found) for found in rule(path, imports, table)]
    return sorted(set(breaches))


def imports_of(path: str, source: str) -> Iterator[Import]:
    """Every import of a file, with relative ones made absolute; ``from a import b`` is ``a.b``."""
    here = dotted(path).split(".")
    package = here if path.endswith("/__init__.py") else here[:-1]
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + ([node.module] if node.module else [])
            if base == ["__future__"]:
                continue
            yield from (Import(".".join([*base, alias.name]), node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in BY_NAME:
                name = node.args[0]
                literal = isinstance(name, ast.Constant) and isinstance(name.value, str)
                yield Import(str(name.value) if isinstance(name, ast.Constant) and literal else COMPUTED, node.lineno)


def dotted(path: str) -> str:
    """The name under which a file is imported; plugins by their collection, others by their path."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join([COLLECTION, *parts] if parts[0] == "plugins" else parts)


def _within(name: str, owner: str) -> bool:
    return name == owner or name.startswith(owner + ".")


def _covers(places: Sequence[str], path: str) -> bool:
    return any(path.startswith(place) if place.endswith("/") else path == place for place in places)


def _order(path: str, imports: Sequence[Import], table: Table) -> Iterator[tuple[int, str]]:
    for folder, rows in table.order.items():
        if not path.startswith(folder):
            continue
        row_of = {name: number for number, row in enumerate(rows) for name in row}
        package = dotted(folder.rstrip("/"))
        below = [dotted(place.rstrip("/")) for place in table.below.get(folder, ())]
        inner = next(
            (one for one in table.order if one.startswith(folder) and one != folder and path.startswith(one)), ""
        )
        # A package within, with rows of its own, stands as a whole in a row of the outer one.
        own = (inner or path)[len(folder) :].removesuffix(".py").rstrip("/")
        if own == "__init__":
            yield from ((found.line, f"__init__ of {folder} imports nothing") for found in imports)
            continue
        if own not in row_of:
            yield 1, f"{own} has no row in [tool.layers] order of pyproject.toml"
            continue
        for found in imports:
            if not _within(found.name, package):
                known = any(_within(found.name, name) for name in below)
                if _within(found.name, COLLECTION) and not known:
                    yield found.line, f"{folder} knows only itself and what is below it, not {found.name}"
                continue
            other = found.name[len(package) + 1 :].partition(".")[0]
            if inner and other == own:
                continue  # its own table says
            if other not in row_of:
                yield found.line, f"{own} imports {other or 'the whole package'}, which has no row"
            elif row_of[other] >= row_of[own]:
                yield found.line, f"{own} must not import {other}: it stands in the same row or a later one"


def _only(path: str, imports: Sequence[Import], table: Table) -> Iterator[tuple[int, str]]:
    for name, places in table.only.items():
        if _covers(places, path):
            continue
        for found in imports:
            if _within(found.name, name):
                yield found.line, f"{name} is imported only by {', '.join(places)}"


def _computed(path: str, imports: Sequence[Import], table: Table) -> Iterator[tuple[int, str]]:
    for found in imports:
        if found.name == COMPUTED and not _covers(table.computed, path):
            yield found.line, "an import by a computed name cannot be checked: write the name"


def _never(path: str, imports: Sequence[Import], table: Table) -> Iterator[tuple[int, str]]:
    for folder, names in table.never.items():
        if path.startswith(folder):
            for found in imports:
                for name in names:
                    if _within(found.name, name):
                        yield found.line, f"{folder} must not import {name}"


def _standard_library(path: str, imports: Sequence[Import], table: Table) -> Iterator[tuple[int, str]]:
    if not _covers(table.standard_library, path):
        return
    for found in imports:
        top = found.name.partition(".")[0]
        allowed = any(_within(found.name, name) and _covers(places, path) for name, places in table.only.items())
        known = top in sys.stdlib_module_names or _within(found.name, COLLECTION) or found.name == COMPUTED
        if not (allowed or known):
            yield found.line, f"{top} is not in the standard library: hosts have nothing else"


def main() -> int:
    """Print the breaches; return 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check the import layers declared in pyproject.toml.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    root: Path = parser.parse_args().root
    breaches = check(root, Table.read(root / "pyproject.toml"))
    for breach in breaches:
        print(breach)
    print(f"import layers: {len(breaches)} imports out of place" if breaches else "import layers: kept")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
