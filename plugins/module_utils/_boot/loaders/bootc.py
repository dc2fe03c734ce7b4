# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Images for bootc: TOML files in /usr/lib/bootc/kargs.d, read when the image is installed or updated.

Meant for building an image, where nothing boots yet and the files are all there is. On a host that was booted from one
/usr is read-only: what boots is read from its deployment, and a change is refused: the tokens belong into its image.
A file with ``match-architectures`` counts for these processors alone.
"""

from __future__ import annotations

import json
import platform
import re
from typing import NoReturn

from .. import ostree
from ..cmdline import Desired, Fate, join, split
from ..entry import Entry, default
from ..errors import NothingBoots, NotUnderstood, NotWritable
from ..loader import ReadsSettings
from ..plan import Edit, Plan

FOLDER = "/usr/lib/bootc/kargs.d"
OURS = FOLDER + "/99-confidential-gpu.toml"
HEADER = "# Kept by the Ansible module confidential.gpu.kernel_cmdline.\n"

_STRING = r"\"(?:[^\"\\\n]|\\[\"\\])*\"|'[^'\n]*'"
_SKIP = r"(?:\s|#[^\n]*\n)*"
_ARRAY = re.compile(r"\[%s(?:(?:%s)%s(?:,%s|(?=\])))*\]" % (_SKIP, _STRING, _SKIP, _SKIP))
_MACHINES = re.compile(r"^[ \t]*match-architectures[ \t]*=[ \t]*\[([^\]]*)\]", re.MULTILINE)
_KEY = re.compile(r"^[ \t]*kargs[ \t]*=[ \t]*", re.MULTILINE)


class Bootc(ReadsSettings):
    """What is added stands in our file; what is removed is removed from every file."""

    name = "bootc"
    looked_for = "the command bootc with /usr/lib/bootc"

    def found(self) -> bool:
        """The tool and its folder."""
        return self.host.commands.has("bootc") and self.host.exists("/usr/lib/bootc")

    def read(self) -> list[str]:
        """The tokens of all files, in their order."""
        return [token for tokens in self._files().values() for token in tokens]

    def entries(self) -> list[Entry]:
        """While an image is built, its files; on a booted host, the deployment that boots next."""
        if not ostree.is_booted(self.host):
            return super().entries()
        entry = ostree.first(self.host)
        if ostree.is_staged(self.host) or entry is None:
            raise NothingBoots(
                "The arguments of the deployment that boots next cannot be read: %s."
                % ("it is staged" if entry else "no ostree-*.conf in /boot/loader/entries"),
                "Reboot into it first, or install rpm-ostree, which can tell.",
            )
        return [entry]

    def _files(self) -> dict[str, list[str]]:
        names = sorted({*self.host.names(FOLDER, ".toml"), OURS})
        texts = {name: self.host.text(name) for name in names}
        return {name: _read(text, name)[0] for name, text in texts.items() if _is_for_this_machine(text or "")}

    def plan(self, desired: Desired) -> Plan:
        """Rewrite the arrays that change. Raises NotWritable on a host that was booted from an image."""
        if ostree.is_booted(self.host):
            return self._only_read(desired)
        files = self._files()
        before = [token for tokens in files.values() for token in tokens]
        desired.check_length(before)
        fate = desired.fate(before)
        kept = iter(fate.kept)
        edits = []
        after = []
        for name, tokens in files.items():
            mine = Fate(tuple(next(kept) for _token in tokens), fate.added if name == OURS else ()).applied()
            after += mine
            if mine != tokens:
                edits.append(self._edit(name, mine))
        return Plan(desired, tuple(before), tuple(after), tuple(edits))

    def _only_read(self, desired: Desired) -> Plan:
        before = default(self.entries()).tokens
        if desired.unmet(before):
            raise NotWritable(
                "This host was booted from an image of bootc, whose /usr is read-only: %s."
                % ", ".join(desired.unmet(before)),
                "Build the image with this module and loader: bootc, then bootc upgrade and reboot; or install"
                " rpm-ostree, which changes the arguments of one host.",
                before=join(before),
            )
        return Plan(desired, before, before)

    def _edit(self, name: str, tokens: list[str]) -> Edit:
        def change(now: object) -> object:
            if now is None:
                return "%skargs = %s\n" % (HEADER, json.dumps(tokens))
            if name == OURS and not tokens:
                return None
            text = str(now)
            _tokens, start, end = _read(text, name)
            return "%s%s%s" % (text[:start], json.dumps(tokens), text[end:])

        return Edit(name, self.host.text(name), change)  # type: ignore[arg-type]


def _is_for_this_machine(text: str) -> bool:
    found = _MACHINES.search(text)
    return not found or platform.machine() in re.findall(r"[\w-]+", found.group(1))


def _refuse(path: str) -> NoReturn:
    raise NotUnderstood(
        "%s: the value of kargs is not one plain list of strings." % path,
        "Write it as kargs = [...] with one string for each token.",
        path=path,
    )


def _read(text: object, path: str) -> tuple[list[str], int, int]:
    """The tokens of a file, and where its array starts and ends."""
    keys = list(_KEY.finditer(str(text))) if text is not None else []
    if not keys:
        if text is not None and str(text).strip() and "kargs" in re.sub(r"#[^\n]*", "", str(text)):
            _refuse(path)
        return [], 0, 0
    array = _ARRAY.match(str(text), keys[0].end())
    if len(keys) > 1 or not array:
        _refuse(path)
    without_comments = re.sub(r"(%s)|#[^\n]*" % _STRING, lambda match: match.group(1) or "", array.group())
    strings = [
        re.sub(r"\\(.)", r"\1", string[1:-1]) if string.startswith('"') else string[1:-1]
        for string in re.findall(_STRING, without_comments)
    ]
    return [token for string in strings for token in split(string)], array.start(), array.end()
