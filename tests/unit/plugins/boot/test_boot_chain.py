# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Settings that only a shell can read: what adds to them goes through, and what cannot be changed is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from boot_host import StandIns, difference, host, stand_ins, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    CommandTimeout,
    NotUnderstood,
    Shadowed,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host

D = "GRUB_CMDLINE_LINUX_DEFAULT"
ADD = Desired(add=("intel_iommu=on",))
OURS = "etc/default/grub.d/99-confidential-gpu.cfg"
COMMANDS = {"boot/grub/grub.cfg": ["update-grub"], "boot/grub2/grub.cfg": ["grub2-mkconfig"]}


def machine(root: Path, text: str, config: str = "boot/grub/grub.cfg", **drop_ins: str) -> Host:
    """A host with settings of which the menu is made; ``{root}`` in them is its root."""
    (root / "etc/default/grub.d").mkdir(parents=True)
    (root / "etc/default/grub").write_text(text.replace("{root}", str(root)))
    for name, content in drop_ins.items():
        (root / "etc/default/grub.d" / (name + ".cfg")).write_text(content)
    (root / "extra").write_text('%s="$%s extra=1"\n' % (D, D))
    StandIns(root, [])._generate(config)
    return host(root, COMMANDS[config])


def change(made: Host, desired: Desired = ADD) -> list[str]:
    """The tokens that boot after it, which a check announced."""
    planned = Configuration(made, desired)
    planned.run(only_plan=True)
    real = Configuration(made, desired)
    real.run(keep_backups=False)
    assert real.result()["after"] == planned.result()["after"]
    calls = len(stand_ins(made).changing)
    Configuration(made, desired).run()
    assert len(stand_ins(made).changing) == calls
    after: list[str] = real.result()["after"].split()
    return after[2:]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        (f'{D}="a"\n. {{root}}/extra\n', ["a", "extra=1"]),
        (f'{D}="a"\n[ -e /none ] || . {{root}}/extra\n', ["a", "extra=1"]),
        (f'{D}="a"\nif [ -e {{root}}/extra ]; then . {{root}}/extra; fi\n', ["a", "extra=1"]),
        (f": ${{{D}:=a}}\n", ["a"]),
        (f'{D}="a"\nif true; then\n  {D}="${D} b"\nfi\n', ["a", "b"]),
        (f'{D}="a"\ntrue && {D}="${D} b"\n', ["a", "b"]),
        (f'{D}="a"\neval {D}=b\n', ["b"]),
        (f'X=c\n{D}="a $X"\n', ["a", "c"]),
        (f'{D}="a $(echo b)"\n', ["a", "b"]),
        (f'{D}="a"\nunset {D}\n', []),
        (f'{D}="intel_iommu=on"\n: ${{{D}:=a}}\n', ["intel_iommu=on"]),
    ],
)
def test_what_only_adds_goes_through(text: str, after: list[str], tmp_path: Path) -> None:
    made = machine(tmp_path / "debian", text)
    (tmp_path / "debian/etc/default/grub").chmod(0o640)
    before = tree(made.root)
    wanted = after if "intel_iommu=on" in after else [*after, "intel_iommu=on"]
    assert change(made) == wanted
    assert difference(before, {**tree(made.root), "boot/grub/grub.cfg": before["boot/grub/grub.cfg"]}) == (
        ""
        if wanted == after
        else '-- %s\n+# Kept by the Ansible module confidential.gpu.kernel_cmdline.\n+%s="${%s} intel_iommu=on"\n'
        % (OURS, D, D)
    )
    assert sorted(change(machine(tmp_path / "suse", text, "boot/grub2/grub.cfg"))) == sorted(wanted)


def test_it_is_taken_out_of_the_assignments_that_are_plain(tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="iommu=pt a"\n', nvidia=f'if true; then {D}="${D} b"; fi\n')
    assert change(made, Desired(add=("intel_iommu=on",), remove=("iommu=pt",))) == ["a", "intel_iommu=on", "b"]
    assert (tmp_path / "etc/default/grub").read_text() == f'{D}="a"\n'
    assert change(made, Desired(replace=("intel_iommu=off",))) == ["a", "intel_iommu=off", "b"]
    assert change(made, Desired(remove=("intel_iommu",))) == ["a", "b"]


@pytest.mark.parametrize("desired", [Desired(remove=("b",)), Desired(remove=("b=1",)), Desired(replace=("b=2",))])
def test_what_brings_a_token_that_shall_go_is_named(desired: Desired, tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="a"\n', nvidia=f'# b=1\nif true; then\n  {D}="${D} b=1"\nfi\n')
    before = tree(tmp_path)
    with pytest.raises(NotUnderstood, match=r"^/etc/default/grub.d/nvidia.cfg, line 3: b=1 is set there.*Nothing was"):
        change(made, desired)
    assert tree(tmp_path) == before
    assert change(made) == ["a", "intel_iommu=on", "b=1"]


def test_a_file_that_is_read_is_named_where_it_is(tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="a"\n\n. {{root}}/extra\n')
    with pytest.raises(NotUnderstood, match=r"^/etc/default/grub, line 3: extra=1 is set there"):
        change(made, Desired(remove=("extra",)))


def test_a_later_file_that_forgets_what_was_before_is_named(tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="a"\n', zz=f'# last\n{D}="last"\n')
    with pytest.raises(Shadowed, match=r"^/etc/default/grub.d/zz.cfg, line 2: .*intel_iommu=on is lost.*sorts earlier"):
        change(made)


def test_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    made = machine(tmp_path, "GRUB_TIMEOUT=1\n")
    (tmp_path / "etc/default/grub").write_text("\ufeffGRUB_TIMEOUT=1\n", encoding="utf-8")
    with pytest.raises(NotUnderstood, match=r"^/etc/default/grub starts with a byte order mark.* sed -i '1s"):
        change(made)


def test_a_folder_among_the_drop_ins(tmp_path: Path) -> None:
    made = machine(tmp_path, "GRUB_TIMEOUT=1\n")
    (tmp_path / "etc/default/grub.d/x.cfg").mkdir()
    with pytest.raises(NotUnderstood, match=r"^/etc/default/grub.d/x.cfg is a folder.* does not end in .cfg"):
        change(made)


@pytest.mark.parametrize("text", ["exit 0\n", "exit 3\n", "if\n", ". /none/such\n"])
def test_a_file_that_ends_the_shell_is_named(text: str, tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="a"\n')
    (tmp_path / "etc/default/grub").write_text(f": ${{{D}:=a}}\n")
    (tmp_path / "etc/default/grub.d/bad.cfg").write_text(text)
    with pytest.raises(NotUnderstood, match=r"^/etc/default/grub.d/bad.cfg ends the shell that reads it"):
        change(made)


def test_a_file_that_waits_is_not_waited_for(tmp_path: Path) -> None:
    made = machine(tmp_path, f'{D}="a"\n')
    (tmp_path / "etc/default/grub").write_text(f": ${{{D}:=a}}\nsleep 60\n")
    with pytest.raises(CommandTimeout, match="did not come to the end of /etc/default/grub, .*option timeout"):
        Configuration(Host(made.root, made.commands, made.disk, timeout_s=0.2), ADD).run()


def test_the_environment_of_the_run_does_not_take_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "x=1")
    made = machine(tmp_path, f'{D}="a $FROM_OUTSIDE"\n')
    assert change(made) == ["a", "intel_iommu=on"]


def test_a_plain_chain_asks_no_shell(tmp_path: Path) -> None:
    made = machine(tmp_path, f'GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${{NAME}} )`\n{D}="a"\n')
    asked: list[str] = []
    commands: Any = made.commands
    run = commands.run

    def watched(argv: Any, timeout: float) -> Any:
        asked.append(argv[0])
        return run(argv, timeout)

    commands.run = watched
    change(made)
    assert set(asked) == {"update-grub"}
