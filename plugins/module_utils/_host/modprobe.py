# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What modprobe is told about vfio's modules, and which of it wins over what the role ``vfio`` wrote.

Rules of kmod (libkmod/libkmod-config.c and libkmod-module.c; tried with kmod 30):

- files ending in ``.conf`` or ``.alias`` of all folders are read by name; of two of one name the earlier folder's
  counts.
- ``options`` add up in that order, then come those of the kernel command line (``vfio-pci.ids=``), and the kernel takes
  the last value of a name.
- of ``softdep`` and ``install`` the first whose pattern fits the module counts.
- ``alias`` wins over a module of that name; ``blacklist`` counts for what loads modules at boot (udev,
  systemd-modules-load), not for modprobe by hand. ``modprobe.blacklist=`` on the kernel command line adds to it.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from .._boot.cmdline import normal, split
from .._pci.kernel import built_in
from .parameters import VFIO_MODULES, heeded

FOLDERS = ("etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
ENDINGS = (".conf", ".alias")
# What the role vfio writes.
OURS = "/etc/modprobe.d/confidential-gpu-vfio.conf"
CMDLINE = "/proc/cmdline"
# What lines of these kinds do to modules.
KEEPING_AWAY = {
    "blacklist": "%s is not loaded at boot",
    "install": "modprobe runs this in place of loading %s",
    "alias": "modprobe loads this in place of %s",
}


class Statement(NamedTuple):
    """One line that says something: where it is, and its words."""

    file: str
    line: int
    words: tuple[str, ...]

    @property
    def module(self) -> str:
        """The module, or the pattern of modules, that it is about."""
        return _name(self.words[1])


class Rival(NamedTuple):
    """A line that wins over ours, or keeps one of vfio's modules from being loaded."""

    file: str
    line: int
    text: str
    why: str

    def words(self) -> str:
        """For a message."""
        return "%s, line %d (%s): %s" % (self.file, self.line, self.text, self.why)


def read(root: Path) -> list[Statement]:
    """Everything that modprobe reads, in its order."""
    files: dict[str, Path] = {}
    for folder in FOLDERS:
        for name in _names(root / folder):
            files.setdefault(name, root / folder / name)
    return [one for name in sorted(files, key=os.fsencode) for one in _statements(files[name], root)]


def rivals(root: Path, driver: str) -> list[Rival]:
    """What of it is in the way of a driver's module at its next load. One built into the kernel is never loaded."""
    modules = [one for one in dict.fromkeys([*VFIO_MODULES, _name(driver)]) if not built_in(root, one)]
    statements = read(root)
    found = [*_keeping_away(statements, modules), *_on_command_line(root, modules)]
    if _name(driver) in modules:
        found += [*_before_ours(statements), *_after_ours(statements, root)]
    return list(dict.fromkeys(found))


def _keeping_away(statements: Sequence[Statement], modules: Sequence[str]) -> Iterator[Rival]:
    """Lines by which modules are not loaded, or not as themselves."""
    first: dict[tuple[str, str], Statement] = {}
    kept: dict[Statement, list[str]] = {}
    for one in statements:
        kind = one.words[0]
        for module in modules:
            fits = one.module == module if kind == "blacklist" else fnmatch.fnmatchcase(module, one.module)
            if kind not in KEEPING_AWAY or not fits:
                continue
            if kind == "blacklist" or first.setdefault((kind, module), one) is one:
                kept.setdefault(one, []).extend([module] if kind != "alias" or _name(one.words[-1]) != module else [])
    for one, concerned in kept.items():
        if concerned:
            yield _rival(one, KEEPING_AWAY[one.words[0]] % ", ".join(concerned))


def _before_ours(statements: Sequence[Statement]) -> Iterator[Rival]:
    """Of softdep the first counts."""
    for mine in statements:
        if mine.file != OURS or mine.words[0] != "softdep":
            continue
        first = next((one for one in statements if _is_softdep_of(one, mine.module)), mine)
        if not {_name(word) for word in mine.words[2:]} <= {_name(word) for word in first.words}:
            yield _rival(first, "it comes before %s, and only the first softdep of %s counts" % (OURS, mine.module))


def _after_ours(statements: Sequence[Statement], root: Path) -> Iterator[Rival]:
    """Of an option the last value counts."""
    mine: dict[tuple[str, str], str] = {}
    later: list[tuple[Statement, str]] = []
    for one in statements:
        if one.words[0] != "options":
            continue
        for word in one.words[2:]:
            key, value = normal(word)
            if one.file == OURS:
                mine[one.module, key] = value or ""
            elif mine.get((one.module, key), value or "") != (value or ""):
                later.append((one, key))
    for other, key in later:
        yield _rival(other, "it comes after %s, and its %s counts" % (OURS, key))
    for token in _kernel_tokens(root):
        name, value = normal(token)
        module, _dot, key = name.partition(".")
        if mine.get((module, key), value or "") != (value or ""):
            yield Rival(CMDLINE, 1, token, "its %s counts, and not that of %s" % (key, OURS))


def _on_command_line(root: Path, modules: Sequence[str]) -> Iterator[Rival]:
    by_kernel: list[Rival] = []
    for token in _kernel_tokens(root):
        name, value = normal(token)
        listed = (value or "").split(",")
        if name == "modprobe.blacklist":
            named = [one for one in modules if one in map(_name, listed)]
            if named:
                yield Rival(CMDLINE, 1, token, KEEPING_AWAY["blacklist"] % ", ".join(named))
        elif name == "module_blacklist":  # the last one counts, and names letter by letter
            named = [one for one in modules if one in listed]
            by_kernel = [Rival(CMDLINE, 1, token, "the kernel does not load %s" % ", ".join(named))] if named else []
    yield from by_kernel


def _kernel_tokens(root: Path) -> Sequence[str]:
    return heeded(split(_text(root / CMDLINE.lstrip("/"))))


def _rival(statement: Statement, why: str) -> Rival:
    return Rival(statement.file, statement.line, " ".join(statement.words), why)


def _is_softdep_of(statement: Statement, module: str) -> bool:
    return statement.words[0] == "softdep" and fnmatch.fnmatchcase(module, statement.module)


def _name(text: str) -> str:
    return text.replace("-", "_")


def _statements(file: Path, root: Path) -> Iterator[Statement]:
    text, first = "", 0
    for number, line in enumerate(_text(file).splitlines(), 1):
        first = first if text else number
        text += line
        if line.endswith("\\"):
            text = text[:-1]
            continue
        words, text = tuple(text.split()), ""
        if len(words) > 1 and not words[0].startswith("#"):
            yield Statement("/%s" % file.relative_to(root), first, words)


def _names(folder: Path) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.endswith(ENDINGS)]
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="backslashreplace")
    except OSError:
        return ""
