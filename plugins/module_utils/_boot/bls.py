# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Entries of the Boot Loader Specification, type 1: one file ``*.conf`` for each, in a folder ``loader/entries``.

A line is a key, white space and a value; a line that starts with ``#`` is a comment. ``options`` may be there several
times: its values are one command line, in their order. GRUB of RHEL and Fedora (its command blscfg) puts the values of
its variables in place of ``$kernelopts`` and ``$tuned_params``; systemd-boot does not, so it takes no variables here.
"""

from __future__ import annotations

import re
from typing import Callable, Mapping, NamedTuple, Optional, Sequence

from .cmdline import split
from .entry import Entry
from .host import Host

FOLDERS = ("/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries")

_LINE = re.compile(r"^[ \t]*(?P<key>[^\s#]\S*)(?P<gap>[ \t]+)(?P<value>[^\n]*?)[ \t\r]*$", re.MULTILINE)
_REFERENCE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# dracut's rescue image is of this version, and kernel-install's plug-in names its entry so.
_RESCUE = re.compile(r"(?:^|-)0-rescue(?:-|$)")


class BlsFile(NamedTuple):
    """One file: its name, its keys with their values in order, and the spans of its ``options`` values in the text."""

    path: str
    text: str
    fields: tuple[tuple[str, str], ...]
    spans: tuple[tuple[int, int], ...]

    def value(self, key: str) -> str:
        """The last value of a key; empty when it is not there."""
        return next((value for name, value in reversed(self.fields) if name == key), "")

    @property
    def id(self) -> str:
        """What the file is called, without its ending; boot counters (``+3-1``) do not belong to it."""
        return re.sub(r"\+\d+(-\d+)?$", "", self.path.rpartition("/")[2][: -len(".conf")])

    @property
    def boots_linux(self) -> bool:
        """Whether it starts a kernel with ``options``, and not another program of the firmware."""
        return bool(self.value("linux") or self.value("uki") or (self.value("efi") and self.spans))

    @property
    def options(self) -> str:
        """The values of ``options`` as one line, as they stand there."""
        return " ".join(self.text[start:end] for start, end in self.spans)

    def entry(self, variables: Optional[Mapping[str, str]], is_default: bool = False) -> Entry:
        """What it boots with. Of variables that are not given, nothing is left; with None they stay as they are."""
        is_recovery = bool(_RESCUE.search(self.id) or _RESCUE.search(self.value("version")))
        return Entry(
            self.path,
            self.value("title") or self.id,
            tuple(split(self.options if variables is None else expanded(self.options, variables))),
            self.text.count("\n", 0, self.spans[0][0]) + 1 if self.spans else 0,
            is_recovery,
            is_default,
        )


def parse(path: str, text: str) -> BlsFile:
    """One file, from its text."""
    matches = list(_LINE.finditer(text))
    spans = tuple(match.span("value") for match in matches if match.group("key") == "options")
    return BlsFile(path, text, tuple((match.group("key"), match.group("value")) for match in matches), spans)


def files(host: Host, folders: Sequence[str] = FOLDERS) -> list[BlsFile]:
    """Every file that starts a kernel, by folder and name; a folder that two names reach counts once."""
    found = []
    seen = set()
    for folder in folders:
        real = host.path(folder).resolve()
        if real not in seen:
            seen.add(real)
            found += [parse(path, host.text(path) or "") for path in host.names(folder, ".conf")]
    return [file for file in found if file.boots_linux]


def newest_first(found: Sequence[BlsFile]) -> list[BlsFile]:
    """In the order of GRUB's menu: by name, compared as rpm compares versions, the newest first."""
    return sorted(found, key=lambda file: _version(file.id), reverse=True)


def default_of(ordered: Sequence[BlsFile], name: str) -> Optional[BlsFile]:
    """The file that boots by default in a menu, by number, id or title; else the first."""
    for number, file in enumerate(ordered):
        if name in (file.id, file.value("title")) or name == str(number):
            return file
    return next(iter(ordered), None)


def _version(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts as rpmvercmp does: numbers behind words, the longer behind the shorter, ``~`` before all."""
    key = []
    for part in re.findall(r"\d+|[A-Za-z]+|~", name):
        key.append((-1, 0, "") if part == "~" else (2, int(part), "") if part.isdigit() else (1, 0, part))
    return [*key, (0, 0, "")]


def expanded(options: str, variables: Mapping[str, str], unknown: Optional[Callable[[str], str]] = None) -> str:
    """Options with the values of GRUB's variables put in; one that is not set is empty, as it is for GRUB.

    ``unknown`` says otherwise what stands for it, given how it is spelled.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        return variables[name] if name in variables else unknown(match.group()) if unknown else ""

    return _REFERENCE.sub(value, options)
