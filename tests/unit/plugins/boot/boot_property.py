# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What has to hold of every loader, whatever its files hold. A loader takes part with a strategy in ``KINDS``.

A strategy draws a ``Case``: files of a host that the loader accepts, and what makes of them what boots. A folder is a
host for one example.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from boot_host import BLS_CFG, GENERATED, StandIns, host, tree
from hypothesis import strategies as st
from test_boot_cmdline import TOKENS
from test_boot_shellfile import shell_files

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import END, Desired, normal, split
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration, choose
from ansible_collections.confidential.gpu.plugins.module_utils._boot.entry import Entry, default
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import BootError
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import ExplainedError, InvalidRequest

D = "GRUB_CMDLINE_LINUX_DEFAULT"
# Patterns of what is made of the files.
OUTPUTS = ("boot/grub/grub.cfg", "boot/grub2/grub.cfg")
BY_GENERATOR = ("root=UUID=0a1b2c3d", "ro", "single")
CHAIN = 'for f in "$0/etc/default/grub" "$0"/etc/default/grub.d/*.cfg; do [ ! -e "$f" ] || . "$f"; done 2>/dev/null; '


@dataclass
class Case:
    """Files of a host, the commands that it has, and how its menu is made at first.

    ``of_generator`` are tokens that the menu's generator adds itself: asked for, they are there twice. ``outside``
    gives what of a text is not its tokens, where that can be told from it.
    """

    files: dict[str, str]
    commands: Sequence[str]
    prepare: Callable[[StandIns], None] = lambda _programs: None
    shell_reads: bool = False
    of_generator: Sequence[str] = ()
    outputs: Sequence[str] = OUTPUTS
    outside: Callable[[str], object] | None = None

    def build(self, root: Path) -> Host:
        """The host, in an empty folder."""
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        machine = host(root, self.commands)
        assert isinstance(machine.commands, StandIns)
        self.prepare(machine.commands)
        return machine


@st.composite
def grub_dropin(draw: st.DrawFn) -> Case:
    """Debian: the file, and drop-ins before and behind ours."""
    files = {"etc/default/grub": draw(plain_files())}
    for name in draw(st.lists(st.sampled_from(["10-a", "50-b", "99-z", "zz"]), unique=True, max_size=3)):
        tokens = " ".join(token.replace('"', '\\"') for token in draw(st.lists(TOKENS, max_size=3)))
        files["etc/default/grub.d/%s.cfg" % name] = draw(
            st.sampled_from(['%s="$%s %s"\n', 'if true; then\n  %s="${%s} %s"\nfi\n'])
        ) % (D, D, tokens)
    return Case(
        files, ["update-grub"], lambda programs: programs._generate(GENERATED["grub-dropin"]), True, BY_GENERATOR
    )


@st.composite
def grub(draw: st.DrawFn) -> Case:
    """SUSE: the one file."""
    files = {"etc/default/grub": draw(plain_files())}
    return Case(files, ["grub2-mkconfig"], lambda programs: programs._generate(GENERATED["grub"]), True, BY_GENERATOR)


def plain_files() -> st.SearchStrategy[str]:
    """Shell files that a shell without lsb_release reads too."""
    return shell_files().map(lambda text: text.replace("`lsb_release -i`", "z").replace("\xff", "\udcff"))


OPTIONS = st.lists(TOKENS | st.sampled_from(["$kernelopts", "$tuned_params"]), max_size=5).map("  ".join)


@st.composite
def grubby(draw: st.DrawFn) -> Case:
    """RHEL: entries with their own options, several lines of them, and what they share."""
    files = {"boot/grub2/grub.cfg": BLS_CFG, "etc/default/grub": draw(plain_files())}
    shared = " ".join(draw(st.lists(TOKENS, max_size=4)))
    block = "# GRUB Environment Block\nsaved_entry=a-1\nkernelopts=%s\n" % shared
    files["boot/grub2/grubenv"] = block.ljust(1024, "#")
    for number in range(draw(st.integers(1, 3))):
        lines = draw(st.lists(OPTIONS, max_size=2))
        files["boot/loader/entries/a-%d.conf" % number] = "title Linux %d\n# x\nlinux /v\n%sgrub_class kernel\n" % (
            number,
            "".join("options %s\n" % line for line in lines),
        )
    if draw(st.booleans()):
        files["etc/kernel/cmdline"] = draw(OPTIONS).replace("$", "") + "\n"
    return Case(files, ["grubby"])


KINDS: dict[str, st.SearchStrategy[Case]] = {"grub-dropin": grub_dropin(), "grub": grub(), "grubby": grubby()}


@st.composite
def desired_modes(draw: st.DrawFn, present: Sequence[str]) -> Desired:
    """A request that touches what is there, and what is not."""
    some = TOKENS | st.sampled_from(list(present)) if present else TOKENS
    lists = [tuple(draw(st.lists(some, max_size=2))) for _kind in range(3)]
    try:
        return Desired(lists[0], lists[1], tuple(token for token in lists[2] if normal(token)[1] is not None))
    except (InvalidRequest, BootError):
        return Desired(lists[0])


def holds(case: Case, root: Path, draw: Callable[[st.SearchStrategy[Desired]], Desired]) -> None:
    """Everything that has to hold of one run, the check before it and the run behind it."""
    machine = case.build(root)
    before = {(entry.path, entry.title): entry for entry in choose(machine).entries()}
    tokens = {token for entry in before.values() for token in entry.tokens}
    present = sorted(token for token in tokens if token not in case.of_generator and _can_be_asked_for(token))
    desired = draw(desired_modes(present))
    old = tree(root)
    planned = Configuration(machine, desired)
    refusal = _refusal(planned)
    assert tree(root) == old, "a check changed something"
    if refusal:
        assert refusal.state == "Nothing was changed."
        return
    real = Configuration(machine, desired)
    real.run(keep_backups=False)
    new = tree(root)
    assert real.result()["after"] == planned.result()["after"]
    assert real.diff() == planned.diff()
    for entry in choose(machine).entries():
        if not entry.is_recovery:
            # A new deployment or snapshot stands in another place.
            exactly(desired, before.get((entry.path, entry.title), default(list(before.values()))), entry)
    changed = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    announced = {edit.path.lstrip("/") for edit in real.planned.edits} if real.planned else set()
    changed = {name for name in changed if not any(fnmatch.fnmatchcase(name, output) for output in case.outputs)}
    assert changed <= announced, "more changed than was announced"
    for name in announced:
        if case.outside is None:
            words = split if name.endswith("cmdline") else _words
            only_tokens_differ(desired, old.get(name, b""), new.get(name, b""), words)
        elif name in old and name in new:
            assert case.outside(old[name].decode()) == case.outside(new[name].decode())
    if case.shell_reads:
        shells_agree(machine)
    again = Configuration(machine, desired)
    again.run()
    assert not again.is_change
    assert tree(root) == new


def _refusal(planned: Configuration) -> ExplainedError | None:
    try:
        planned.run(only_plan=True)
    except (BootError, InvalidRequest) as error:
        return error
    return None


def _can_be_asked_for(token: str) -> bool:
    try:
        Desired(add=(token,))
    except (BootError, InvalidRequest):
        return False
    return True


def exactly(desired: Desired, old: Entry, new: Entry) -> None:
    """The old tokens in their order, changed as desired, and the added ones anywhere between them.

    A value that replaces others stands in the place of one of them: the first, or one in a file for a shell alone.
    """
    replaced = {normal(token)[0] for token in desired.replace}
    last = old.tokens.index(END) if END in old.tokens else len(old.tokens)
    stays = [token for token in old.tokens[:last] if normal(token)[0] not in replaced]
    fate = desired.fate([*stays, *old.tokens[last:]])
    end = new.tokens.index(END) if END in new.tokens else len(new.tokens)
    left = [normal(token) for token in new.tokens[:end] if normal(token)[0] not in replaced]
    once = sorted(normal(token) for token in new.tokens[:end] if normal(token)[0] in replaced)
    assert once == sorted({normal(token) for token in desired.replace})
    for token in (token for token in fate.added if normal(token)[0] not in replaced):
        left.reverse()  # what is added comes behind what is there, if it is there too
        left.remove(normal(token))
        left.reverse()
    left += [normal(token) for token in new.tokens[end:]]
    assert left == [normal(token) for token in fate.kept if token is not None]
    assert desired.unmet(new.tokens) == []


def only_tokens_differ(desired: Desired, old: bytes, new: bytes, words: Callable[[str], list[str]]) -> None:
    """Two texts are the same but for tokens of the names that are desired, and the layout around them."""
    names = {normal(token)[0] for token in (*desired.add, *desired.remove, *desired.replace)}

    def others(text: bytes) -> list[str]:
        found = words(text.decode("utf-8", "surrogateescape"))
        return [word for word in found if normal(word)[0] not in names]

    assert others(old) == others(new)


def _words(text: str) -> list[str]:
    """Of a shell's file or an entry: its words without its layout."""
    decoded = text.replace("\\", "").rstrip("#")
    decoded = re.sub(r"^# Kept by the Ansible module.*\n", "", decoded, flags=re.MULTILINE)
    decoded = re.sub(r'(?m)^%s="\$\{%s\} ?' % (D, D), "", decoded)
    decoded = re.sub(r"\b(GRUB_CMDLINE_LINUX(_DEFAULT)?=|kernelopts=|options\b)", " ", decoded)
    return re.findall(r"[^\s\"'=]+(?:=\"[^\"\n]*\"|=[^\s\"']*)?", decoded)


def shells_agree(machine: Host) -> None:
    """dash and bash get from the files what the entry that boots has behind ``ro``."""
    (entry,) = [entry for entry in choose(machine).entries() if entry.is_default]
    for shell in ("dash", "bash"):
        script = CHAIN + 'printf "%s %s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
        done = subprocess.run(
            [shell, "-c", script, str(machine.root)], capture_output=True, text=True, check=True, env={}
        )
        assert list(map(normal, split(done.stdout))) == list(map(normal, entry.tokens[2:])), shell
