# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""RHEL and Fedora: each entry by itself, kernelopts of RHEL 8, tuned's variable, the files for kernels to come."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_host import BLS_CFG, difference, host, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    NoSpace,
    NothingBoots,
    NotUnderstood,
    Shadowed,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host

DESIRED = Desired(add=("intel_iommu=on",), remove=("iommu=pt",))


def fedora(root: Path, *entries: str, environment: str = "", config: str = BLS_CFG, **files: str) -> Host:
    """A host with entries 0, 1, ... of which the last boots; each is its lines of options."""
    texts = {"boot/grub2/grub.cfg": config, **{name.replace("__", "/"): text for name, text in files.items()}}
    if environment:
        texts["boot/grub2/grubenv"] = ("# GRUB Environment Block\n" + environment).ljust(1024, "#")
    for number, options in enumerate(entries):
        lines = "".join("options %s\n" % line for line in options.split("\n") if line)
        texts["boot/loader/entries/a-%d.conf" % number] = "title Linux %d\nlinux /v\n%sgrub_class kernel\n" % (
            number,
            lines,
        )
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return host(root, ["grubby"])


def change(machine: Host, desired: Desired = DESIRED) -> str:
    """What differs after it; and nothing is left to do."""
    before = tree(machine.root)
    planned = Configuration(machine, desired)
    planned.run(only_plan=True)
    assert tree(machine.root) == before
    real = Configuration(machine, desired)
    real.run(keep_backups=False)
    assert real.result()["after"] == planned.result()["after"]
    assert real.diff() == planned.diff()
    assert desired.unmet(real.result()["after"].split()) == []
    again = Configuration(machine, desired)
    again.run()
    assert not again.is_change
    return difference(before, tree(machine.root))


@pytest.mark.parametrize(
    ("options", "desired", "after"),
    [
        ("ro x=1 x=1 $tuned_params", Desired(replace=("x=1",)), "ro x=1 $tuned_params"),
        ("ro x=1 x=1 q", Desired(remove=("x=1",)), "ro q"),
        ("ro console=tty0 q", Desired(add=("console=ttyS0",)), "ro console=tty0 q console=ttyS0"),
        ("ro console=tty0 console=ttyS0 q", Desired(remove=("console=tty0",)), "ro console=ttyS0 q"),
        ("ro a a=1 ab=1", Desired(remove=("a",)), "ro ab=1"),
        ("ro axb a.b", Desired(remove=("a.b",)), "ro axb"),
        ('ro dyndbg="file x +p" q', Desired(add=('dyndbg="file y +p"',)), 'ro dyndbg="file x +p" q dyndbg="file y +p"'),
        ('ro dyndbg="file x +p" q', Desired(remove=("dyndbg",)), "ro q"),
        ("ro  a\t b ", Desired(add=("c",)), "ro  a\t b c"),
        ("ro -- single", Desired(add=("c",)), "ro c -- single"),
    ],
)
def test_nothing_of_an_entry_changes_but_what_is_desired(
    options: str, desired: Desired, after: str, tmp_path: Path
) -> None:
    machine = fedora(tmp_path, options)
    Configuration(machine, desired).run()
    entry = (tmp_path / "boot/loader/entries/a-0.conf").read_text()
    assert entry.splitlines()[2].rstrip() == "options " + after
    again = Configuration(machine, desired)
    again.run()
    assert not again.is_change


def test_each_entry_is_changed_by_itself(tmp_path: Path) -> None:
    """An intel_iommu=off of one is not given to the others, where it would win."""
    machine = fedora(tmp_path, "ro intel_iommu=off a", "ro iommu=pt b", "ro intel_iommu=on c")
    assert change(machine, Desired(add=("intel_iommu=on",), remove=("iommu=pt",))) == (
        "-- boot/loader/entries/a-0.conf\n-options ro intel_iommu=off a\n+options ro intel_iommu=off a intel_iommu=on\n"
        "-- boot/loader/entries/a-1.conf\n-options ro iommu=pt b\n+options ro b intel_iommu=on\n"
    )


def test_several_lines_of_options(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "root=/dev/x ro iommu=pt\n\n\na b")
    assert change(machine) == (
        "-- boot/loader/entries/a-0.conf\n-options root=/dev/x ro iommu=pt\n-options a b\n"
        "+options root=/dev/x ro\n+options a b intel_iommu=on\n"
    )


def test_an_entry_without_options(tmp_path: Path) -> None:
    assert change(fedora(tmp_path, "")) == "-- boot/loader/entries/a-0.conf\n+options intel_iommu=on\n"


def test_kernelopts_is_changed_once_for_all_that_use_it(tmp_path: Path) -> None:
    machine = fedora(
        tmp_path, "$kernelopts $tuned_params", "$kernelopts x", "ro iommu=pt", environment="kernelopts=ro iommu=pt q \n"
    )
    changed = [line for line in change(machine).splitlines() if "###" not in line]
    assert changed == [
        "-- boot/grub2/grubenv",
        "-kernelopts=ro iommu=pt q ",
        "+kernelopts=ro q intel_iommu=on ",
        "-- boot/loader/entries/a-2.conf",
        "-options ro iommu=pt",
        "+options ro intel_iommu=on",
    ]
    assert (tmp_path / "boot/grub2/grubenv").stat().st_size == 1024


def test_what_one_of_them_has_already_is_added_to_the_other_alone(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "$kernelopts", "$kernelopts intel_iommu=on", environment="kernelopts=ro\n")
    assert change(machine) == (
        "-- boot/loader/entries/a-0.conf\n-options $kernelopts\n+options $kernelopts intel_iommu=on\n"
    )


def test_entries_that_want_different_things_of_kernelopts_are_told(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "x=1 $kernelopts", "$kernelopts", environment="kernelopts=ro x=1\n")
    with pytest.raises(NotUnderstood, match=r"a-1.conf: its own options and those of kernelopts set x=1 differently"):
        change(machine, Desired(replace=("x=2",)))


def test_a_full_environment_block(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "$kernelopts", environment="kernelopts=ro %s\n" % ("a" * 970))
    before = tree(tmp_path)
    with pytest.raises(NoSpace, match=r"grubenv holds 1024 bytes, and \d+ more .* behind \$kernelopts"):
        change(machine)
    assert tree(tmp_path) == before
    machine.path("/boot/loader/entries/a-0.conf").write_text("linux /v\noptions $kernelopts iommu=pt intel_iommu=on\n")
    assert "+options $kernelopts intel_iommu=on" in change(machine)


def test_kernelopts_that_only_grub_cfg_sets(tmp_path: Path) -> None:
    config = BLS_CFG + 'if [ -z "${kernelopts}" ]; then\n  set kernelopts="root=/dev/x ro iommu=pt"\nfi\n'
    machine = fedora(tmp_path, "$kernelopts", config=config)
    with pytest.raises(NotUnderstood, match="which /boot/grub2/grubenv does not have: only /boot/grub2/grub.cfg sets"):
        change(machine)


def test_what_tuned_sets_is_left_to_tuned(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "ro $tuned_params", environment="tuned_params=iommu=pt isolcpus=1\n")
    with pytest.raises(Shadowed, match=r"a-0.conf: iommu=pt comes from \$tuned_params, .*tuned: its profile"):
        change(machine)
    assert "+options ro $tuned_params intel_iommu=on" in change(machine, Desired(add=("intel_iommu=on", "isolcpus=1")))


DEFAULTS = """\
# GRUB_CMDLINE_LINUX="comment iommu=pt"
GRUB_CMDLINE_LINUX="rhgb iommu=pt quiet"
GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT:+$GRUB_CMDLINE_LINUX_DEFAULT }\\$tuned_params"
GRUB_ENABLE_BLSCFG=true
"""


def test_the_files_for_kernels_to_come(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "ro", etc__default__grub=DEFAULTS, etc__kernel__cmdline="ro iommu=pt\nq\n")
    assert change(machine) == (
        "-- boot/loader/entries/a-0.conf\n-options ro\n+options ro intel_iommu=on\n"
        '-- etc/default/grub\n-GRUB_CMDLINE_LINUX="rhgb iommu=pt quiet"\n'
        '+GRUB_CMDLINE_LINUX="rhgb quiet intel_iommu=on"\n'
        "-- etc/kernel/cmdline\n-ro iommu=pt\n-q\n+ro\n+q intel_iommu=on\n"
    )


def test_entries_that_grub_does_not_read(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "ro", config="menuentry x {\n linux /v ro\n}\n")
    with pytest.raises(Shadowed, match=r"grub.cfg has entries of its own and does not read .*option loader \(grub\)"):
        change(machine)


def test_nothing_that_boots(tmp_path: Path) -> None:
    with pytest.raises(NothingBoots, match=r"/boot/grub2/grub.cfg does not exist"):
        change(host(tmp_path, ["grubby"]))
    with pytest.raises(NothingBoots, match=r"/boot/grub2/grub.cfg starts no kernel"):
        change(fedora(tmp_path))


def test_the_grub_cfg_on_the_efi_partition(tmp_path: Path) -> None:
    machine = fedora(tmp_path, "ro iommu=pt")
    (tmp_path / "boot/efi/EFI/redhat").mkdir(parents=True)
    (tmp_path / "boot/grub2/grub.cfg").rename(tmp_path / "boot/efi/EFI/redhat/grub.cfg")
    (tmp_path / "boot/efi/EFI/BOOT").mkdir()
    assert "+options ro intel_iommu=on" in change(machine)
