# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""grub.cfg: which entries start this system's kernel, with what, and which one boots."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest
from boot_host import BLS_CFG, host
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import split
from ansible_collections.confidential.gpu.plugins.module_utils._boot.entry import Entry, default
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import NothingBoots, NotUnderstood, Shadowed
from ansible_collections.confidential.gpu.plugins.module_utils._boot.grub_plan import entries

CONFIG = "/boot/grub/grub.cfg"


def read(tmp_path: Path, text: str, environment: str = "") -> list[Entry]:
    folder = tmp_path / "boot/grub"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grub.cfg").write_text(text)
    (folder / "grubenv").write_text("# GRUB Environment Block\n" + environment)
    return entries(host(tmp_path, []), CONFIG)


def tokens(tmp_path: Path, line: str, before: str = "") -> tuple[str, ...]:
    (entry,) = read(tmp_path, before + "menuentry 'x' {\n  linux /vmlinuz %s\n}\n" % line)
    return entry.tokens


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ro  quiet", ("ro", "quiet")),
        ("ro quiet # why", ("ro", "quiet")),
        ("a='b c' d", ('a="b c"', "d")),
        ('a="b c" d', ('a="b c"', "d")),
        ('"a=b" c', ("a=b", "c")),
        (r"a\ b c\"d", ('"a b"', 'c"d')),
        ("a=b#c", ("a=b#c",)),
        ("a \\\n  b", ("a", "b")),
        ("a $unset b", ("a", "$unset", "b")),
        ("'$kept' \"\\$kept\"", ("$kept", "$kept")),
        ("a=1; echo b", ("a=1",)),
        ("crashkernel=2G-4G:320M,4G-:512M", ("crashkernel=2G-4G:320M,4G-:512M",)),
        ("a='' ''", ("a=",)),
    ],
)
def test_words_are_those_that_grub_gives_the_kernel(line: str, found: tuple[str, ...], tmp_path: Path) -> None:
    assert tokens(tmp_path, line) == found


def test_variables_that_are_set_in_the_file_or_its_environment(tmp_path: Path) -> None:
    sets = 'set one="a b"\nset two=$one\nif [ x = y ]; then set three=c; fi\nfunction f {\n set four=d\n}\n'
    found = tokens(tmp_path, "ro $two ${three} $four pre$one", sets)
    assert found == ("ro", "a", "b", "$three", "$four", "prea", "b")
    (entry,) = read(tmp_path, "menuentry x {\n linux /v $tuned_params ro\n}\n", "tuned_params=isolcpus=1 nohz=on\n")
    assert entry.tokens == ("isolcpus=1", "nohz=on", "ro")


@pytest.mark.parametrize("command", ["linux", "linux16", "linuxefi", "linux$suffix"])
def test_every_command_that_loads_a_kernel(command: str, tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "menuentry x {\n\t%s\t/vmlinuz ro a\n}\n" % command)
    assert (entry.tokens, entry.line) == (("ro", "a"), 2)


XEN = """\
menuentry 'Xen' {
	insmod multiboot2
	multiboot2	/boot/xen.gz placeholder dom0_mem=4G ${xen_rm_opts}
	module2	/boot/vmlinuz placeholder root=/dev/sda1 ro quiet
	module2	--nounzip   /boot/initrd.img
}
"""


def test_xen_gives_the_kernel_the_words_of_its_first_module(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, XEN)
    assert (entry.tokens, entry.line) == (("root=/dev/sda1", "ro", "quiet"), 4)


def test_a_file_of_a_persons_hand_is_read(tmp_path: Path) -> None:
    (entry,) = read(tmp_path, "set timeout=0\nlinux /vmlinuz root=LABEL=x ro\ninitrd /i\nboot\n")
    assert (entry.tokens, entry.is_default) == (("root=LABEL=x", "ro"), True)


MENU = """\
set default="%s"
### BEGIN /etc/grub.d/10_linux ###
menuentry 'One' --class gnu $menuentry_id_option 'id-one' {
	linux /a one
}
submenu 'More >' $menuentry_id_option 'id-more' {
	menuentry 'Two' --unrestricted --id id-two {
		if [ a = b ]; then insmod c; fi
		linux /a two
	}
	menuentry 'Two (recovery mode)' $menuentry_id_option 'gnulinux-6-recovery-0a' {
		linux /a three
	}
}
### END /etc/grub.d/10_linux ###
### BEGIN /etc/grub.d/20_memtest86+ ###
menuentry 'Memory test' {
	linux /memtest86+x64.bin
}
### END /etc/grub.d/20_memtest86+ ###
### BEGIN /etc/grub.d/40_custom ###
menuentry 'Mine' {
	linux /b four
}
menuentry 'Windows' {
	chainloader +1
}
"""


@pytest.mark.parametrize(
    ("name", "environment", "chosen"),
    [
        ("0", "", "one"),
        ("One", "", "one"),
        ("1>0", "", "two"),
        ("1>1", "", "three"),
        ("1", "", "two"),
        ("More >>>Two", "", "two"),
        ("id-more>id-two", "", "two"),
        ("id-gone", "", "one"),
        ("${saved_entry}", "saved_entry=id-more>id-two\n", "two"),
        ("${saved_entry}", "", "one"),
        ("0", "next_entry=1>0\n", "two"),
    ],
)
def test_the_entry_that_boots_by_default(name: str, environment: str, chosen: str, tmp_path: Path) -> None:
    found = read(tmp_path, MENU % name, environment)
    assert [entry.tokens for entry in found] == [("one",), ("two",), ("three",)]
    assert default(found).tokens == (chosen,)
    assert [entry.title for entry in found if entry.is_recovery] == ([] if chosen == "three" else [found[2].title])


@pytest.mark.parametrize(
    ("name", "title", "line"),
    [("Mine", "Mine", 22), ("3", "Mine", 22), ("2", "Memory test", 17), ("Windows", "Windows", 25)],
)
def test_a_default_entry_that_no_setting_reaches_is_refused(name: str, title: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(Shadowed, match=r"grub.cfg, line %d: .*\(%s\) is made by /etc/grub.d/" % (line, title)):
        read(tmp_path, MENU % name)


def test_an_empty_environment_does_not_choose(tmp_path: Path) -> None:
    text = (MENU % "id-two").replace(
        "set ", 'if [ "${next_entry}" ] ; then\n set default="${next_entry}"\nelse\nset ', 1
    )
    assert default(read(tmp_path, text.replace("### BEGIN", "fi\n### BEGIN", 1))).tokens == ("one",)


def test_nothing_boots(tmp_path: Path) -> None:
    with pytest.raises(NothingBoots, match=r"^/boot/grub/grub.cfg does not exist"):
        entries(host(tmp_path, []), CONFIG)
    for text in ("", "menuentry 'Windows' {\n chainloader +1\n}\n", BLS_CFG, (MENU % 0).replace("_linux", "_x")):
        with pytest.raises(NothingBoots, match=r"^/boot/grub/grub.cfg starts no kernel of this system"):
            read(tmp_path, text)


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_quote_without_end_is_told_with_its_line(quote: str, tmp_path: Path) -> None:
    with pytest.raises(NotUnderstood, match=r"grub.cfg, line 2: what opens here has no end"):
        read(tmp_path, "set a=b\nlinux /vmlinuz %sro\n" % quote)


def test_blscfg_takes_the_files_newest_first(tmp_path: Path) -> None:
    folder = tmp_path / "boot/loader/entries"
    folder.mkdir(parents=True)
    for version in ("5.14.0-9.el9", "5.14.0-70.el9", "5.14.0-70~rc1.el9", "0-rescue"):
        (folder / ("0a-%s.conf" % version)).write_text("title %s\nlinux /v\noptions %s\n" % (version, version))
    found = read(tmp_path, BLS_CFG)
    versions = ["5.14.0-70.el9", "5.14.0-70~rc1.el9", "5.14.0-9.el9", "0-rescue"]
    assert [entry.title for entry in found] == versions
    assert [entry.title for entry in found if entry.is_default] == versions[:1]
    for name, index in (("0a-5.14.0-9.el9", 2), ("1", 1), ("0-rescue", 3)):
        found = read(tmp_path, BLS_CFG, "saved_entry=%s\n" % name)
        assert [entry.is_default for entry in found].index(True) == index


TOKEN = st.from_regex(r"[a-z][a-z0-9_.]{0,6}(=[a-z0-9,:/-]{0,6}|=\"[a-z +]{1,6}\")?", fullmatch=True)


@settings(max_examples=100)
@given(st.lists(TOKEN, max_size=6))
def test_a_shell_takes_the_same_words(found: list[str]) -> None:
    """GRUB's language has the shell's quotes: dash is asked what the words are."""
    line = " ".join(found)
    script = "for word in %s; do printf '%%s\\n' \"$word\"; done" % line if found else "true"
    words = subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    with tempfile.TemporaryDirectory() as folder:
        assert [token.replace('"', "") for token in tokens(Path(folder), line)] == words
    assert len(split(line)) == len(words)
