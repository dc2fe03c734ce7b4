# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The menu of a ``grub.cfg``: which entries start this system's kernel, with what, and which one boots by default.

grub-mkconfig writes ``### BEGIN /etc/grub.d/... ###`` before what each of its scripts made. Entries of this system are
those of ``NN_linux`` and its kin (``10_linux_zfs``, ``20_linux_xen``), and all of a file without such lines; what
os-prober, memtest or a person added is left out. A default entry that is left out is an error: no setting reaches it.
"""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple, Optional, Sequence

from .cmdline import normal
from .entry import Entry
from .errors import Shadowed
from .grub_script import Part, Statement, Word, spelled, statements, words_of

_SECTION = re.compile(r"^### (BEGIN|END) (\S+) ###[ \t]*$", re.MULTILINE)
_OURS = re.compile(r".*/\d+_linux(_\w+)?")
# linux, linux16 (BIOS), linuxefi, and spellings with a variable behind.
_LINUX = re.compile(r"linux(16|efi|\$\w+)?")
_XEN = ("multiboot", "multiboot2", "xen_hypervisor")
_XEN_KERNEL = ("module", "module2", "xen_module")
_WITH_VALUE = ("--class", "--users", "--hotkey", "--id", "--source")
_ID_OPTIONS = ("--id", "$menuentry_id_option")
# What grub-mkconfig's own reduced entries have; a person's have it too.
_RECOVERY_TOKENS = ("single", "recovery", "rescue", "emergency")


class Start(NamedTuple):
    """A statement that loads a kernel: its line, and the words that the kernel gets."""

    line: int
    words: tuple[Word, ...]

    def tokens(self) -> tuple[str, ...]:
        """The kernel's tokens.

        GRUB puts quotes around a word that holds white space (lib/cmdline.c there); to the kernel that is the same as
        quotes around the value, which is how this collection spells it.
        """
        return tuple(_with_quotes(word) for word in words_of(self.words, {}) if word)


class Item:
    """An entry of the menu, or a submenu with its own."""

    def __init__(self, title: str, name: str, line: int, section: str, is_submenu: bool = False) -> None:
        self.title = title
        self.id = name
        self.line = line
        self.section = section
        self.items: list[Item] = []
        self.starts: list[Start] = []
        self.is_submenu = is_submenu

    @property
    def is_ours(self) -> bool:
        """Whether it is made of this system's settings, as far as the file says it."""
        return not self.section or bool(_OURS.fullmatch(self.section))


class Menu:
    """A ``grub.cfg`` as it was read. Raises NotUnderstood when a quote in it has no end."""

    def __init__(self, text: str, path: str) -> None:
        self.path = path
        self.items: list[Item] = []
        self.variables: dict[str, str] = {}
        self.fallbacks: dict[str, str] = {}  # set under a condition
        self.uses_bls = False
        self._default: Optional[Word] = None
        self._sections = [
            (text.count("\n", 0, match.start()) + 1, match.group(2) if match.group(1) == "BEGIN" else "")
            for match in _SECTION.finditer(text)
        ]
        self._read(text)

    def _read(self, text: str) -> None:
        open_items: dict[int, Item] = {}
        without = Item("", "", 0, "")  # a kernel that is started without a menu
        has_xen: set[int] = set()
        for statement in statements(text, self.path):
            around = [open_items[number] for number in statement.block if number in open_items]
            owner = around[-1] if around else without
            command = statement.command
            if command in ("menuentry", "submenu"):
                item = self._item(statement)
                (owner.items if around else self.items).append(item)
                if statement.opens:
                    open_items[statement.opens] = item
            elif _LINUX.fullmatch(command) and len(statement.words) > 1:
                owner.starts.append(Start(statement.line, statement.words[2:]))
            elif command in _XEN:
                has_xen.add(id(owner))
            elif command in _XEN_KERNEL and id(owner) in has_xen:
                has_xen.discard(id(owner))  # the first module is the kernel
                words = [word for word in statement.words[1:] if not spelled(word).startswith("--")]
                rest = words[2:] if len(words) > 1 and spelled(words[1]) == "placeholder" else words[1:]
                owner.starts.append(Start(statement.line, tuple(rest)))
            elif command == "blscfg":
                self.uses_bls = True
            elif command == "set" or "=" in command:
                self._set(statement, bool(around))
        if without.starts:
            without.line = without.starts[0].line
            without.section = self._section(without.line)
            self.items.append(without)

    def _section(self, line: int) -> str:
        return next((name for begins, name in reversed(self._sections) if begins <= line), "")

    def _item(self, statement: Statement) -> Item:
        title, name = "", ""
        words = list(statement.words[1:])
        at = 0
        while at < len(words):
            word = spelled(words[at])
            if word in _ID_OPTIONS or word in _WITH_VALUE:
                at += 1
                name = spelled(words[at]) if word in _ID_OPTIONS and at < len(words) else name
            elif not word.startswith("--") and not title:
                title = word
            at += 1
        is_submenu = statement.command == "submenu"
        return Item(title, name, statement.line, self._section(statement.line), is_submenu=is_submenu)

    def _set(self, statement: Statement, inside: bool) -> None:
        words = statement.words[1:] if statement.command == "set" else statement.words
        assigned = words[0] if words else ()
        name, equals, first = assigned[0].text.partition("=") if assigned else ("", "", "")
        if not equals or inside or statement.block:
            return
        value: Word = (Part(first), *assigned[1:])
        if name == "default":
            if spelled(value) != "$next_entry":
                self._default = value
        elif not statement.is_conditional:
            self.variables[name] = "".join(words_of([_quoted(value)], self.variables))
        else:
            self.variables.pop(name, None)  # one value or another: not known
            self.fallbacks[name] = "".join(words_of([_quoted(value)], self.variables))

    def default_name(self, environment: Mapping[str, str]) -> str:
        """Number, title or id of what boots by default. ``environment`` are the variables of grubenv."""
        return environment.get("next_entry") or "".join(
            words_of([self._default or ()], {"saved_entry": "", **environment})
        )

    def default(self, environment: Mapping[str, str]) -> Optional[Item]:
        """The item that boots by default; None in an empty menu."""
        found = self._chosen(self.items, self.default_name(environment)) or next(iter(self.items), None)
        while found and found.is_submenu:
            found = next(iter(found.items), None)
        return found

    def _chosen(self, items: Sequence[Item], path: str) -> Optional[Item]:
        # ``>`` leads into a submenu, ``>>`` is the character itself.
        first, _mark, rest = path.replace(">>", "\0").partition(">")
        first, rest = first.replace("\0", ">"), rest.replace("\0", ">>")
        for number, item in enumerate(items):
            if first and first in (item.title, item.id, str(number)):
                return self._chosen(item.items, rest) if rest and item.is_submenu else item
        return None

    def entries(self, environment: Mapping[str, str]) -> list[Entry]:
        """Every entry of this system, submenus included; variables stay in the tokens as ``$name``.

        Those that blscfg adds (``uses_bls``) are not among them. Raises Shadowed when the default entry is none of this
        system's.
        """
        chosen = None if self.uses_bls else self.default(environment)
        found = [entry for item in self.items for entry in self._entries(item, chosen)]
        if found and chosen and not chosen.is_ours:
            raise Shadowed(
                "%s, line %d: the entry that boots by default (%s) is made by %s, which no setting reaches."
                % (self.path, chosen.line, chosen.title, chosen.section),
                "Set the parameters there by hand, or make another entry the default.",
                path=self.path,
                line=chosen.line,
            )
        return found

    def _entries(self, item: Item, chosen: Optional[Item]) -> list[Entry]:
        found = []
        for start in item.starts if item.is_ours else ():
            tokens = start.tokens()
            is_default = item is chosen
            is_recovery = "-recovery-" in item.id or any(normal(token)[0] in _RECOVERY_TOKENS for token in tokens)
            found.append(Entry(self.path, item.title, tokens, start.line, is_recovery and not is_default, is_default))
        return found + [entry for one in item.items for entry in self._entries(one, chosen)]


def as_booted(word: str) -> str:
    """A token of the settings as GRUB hands it to the kernel: with quotes where white space makes them necessary."""
    return _with_quotes(word.replace('"', ""))


def _with_quotes(word: str) -> str:
    if not re.search(r"\s", word):
        return word
    name, equals, value = word.partition("=")
    return '"%s"' % word if not equals or re.search(r"\s", name) else '%s="%s"' % (name, value)


def _quoted(word: Word) -> Word:
    """A word whose variables are not split, as in an assignment."""
    return tuple(Part(part.text, part.is_reference, True) for part in word)
