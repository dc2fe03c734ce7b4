# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A run that is killed, at each write and in each command: the host boots as before or as asked for, never by halves.

The run is a process of its own, which ends there without a chance to undo anything. The next run makes the rest good.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from boot_host import Described, FailingDisk, StandIns, names, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration, choose
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host, Result

DESIRED = Desired(
    add=("intel_iommu=on", "nohibernate"), remove=("iommu=pt", "amd_iommu"), replace=("mitigations=auto",)
)
WRITE, BEFORE, MIDDLE, BEHIND = "write", "before", "middle", "behind"


def die() -> None:
    """As after SIGKILL: nothing is caught, nothing is put back."""
    os._exit(9)


class MortalDisk(FailingDisk):
    """A disk during whose n-th write the process ends."""

    def _count(self) -> None:
        self.writes += 1
        if self.writes == self.fails_at:
            die()


class MortalPrograms(StandIns):
    """Programs with the n-th of which the process ends: before it, in its middle, or behind it."""

    def __init__(self, root: Path, available: Sequence[str], at: int, when: str) -> None:
        super().__init__(root, available)
        self.at = at
        self.when = when
        self.count = 0

    def run(self, argv: Sequence[str], timeout_s: float) -> Result:
        """Run it, or end."""
        self.count += 1
        if self.count == self.at and self.when == BEFORE:
            die()
        before = tree(self.root)
        answer = super().run(argv, timeout_s)
        if self.count == self.at:
            if self.when == MIDDLE:
                self._half(before)
            die()
        return answer

    def _half(self, before: dict[str, bytes]) -> None:
        """grub-mkconfig 2.06 and 2.12 write grub.cfg in place: ``cat grub.cfg.new > grub.cfg``.

        So do the makers of entries: by ``>`` (kernel-install, proxmox-boot-tool), cp (sdbootutil), open (kernelstub).
        """
        for name, content in tree(self.root).items():
            if before.get(name) != content and name.endswith(("grub.cfg", ".conf", ".efi")):
                if name.endswith("grub.cfg"):
                    (self.root / (name + ".new")).write_bytes(content)
                (self.root / name).write_bytes(content[: len(content) // 2])


def alive(root: Path, described: Described) -> Host:
    return Host(root, StandIns(root, described.commands), FailingDisk(), timeout_s=5)


def lives(machine: Host) -> bool:
    """Whether a run on it comes to its end, in a process of its own."""
    child = os.fork()
    if child == 0:
        try:
            Configuration(machine, DESIRED).run()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 0


def deaths(described: Described, folder: Path) -> Iterator[tuple[str, Path]]:
    """Every point at which a run can be killed, and what it left."""
    for when in (WRITE, BEFORE, MIDDLE, BEHIND):
        for at in range(1, 40):
            root = folder / ("%s-%d" % (when, at))
            described.build(root)
            disk = MortalDisk(at) if when == WRITE else FailingDisk()
            programs = StandIns(root, described.commands)
            programs = programs if when == WRITE else MortalPrograms(root, described.commands, at, when)
            if lives(Host(root, programs, disk, timeout_s=5)):
                break
            yield when, root


def boots(machine: Host) -> list[tuple[str, ...]]:
    return [entry.tokens for entry in choose(machine).entries() if not entry.is_recovery]


def kept(root: Path) -> dict[str, bytes]:
    """The tree, without what generators leave in the middle, and without snapshots, of which each run makes one."""
    left = {name: content for name, content in tree(root).items() if not name.endswith("grub.cfg.new")}
    return {k: v for k, v in left.items() if not k.startswith((".snapshots/", "default-snapshot"))}


@pytest.mark.parametrize("name", names())
def test_killed_at_any_point(name: str, tmp_path: Path) -> None:
    described = Described(name)
    described.build(tmp_path / "old")
    old = boots(alive(tmp_path / "old", described))
    described.build(tmp_path / "new")
    counting = MortalPrograms(tmp_path / "new", described.commands, 0, BEFORE)
    Configuration(Host(tmp_path / "new", counting, FailingDisk(), timeout_s=5), DESIRED).run(keep_backups=False)
    new, whole = boots(alive(tmp_path / "new", described)), kept(tmp_path / "new")
    found = {WRITE: 0, BEFORE: 0, MIDDLE: 0, BEHIND: 0}
    for when, root in deaths(described, tmp_path):
        found[when] += 1
        machine = alive(root, described)
        # In the middle the menu itself is half: by the program, which the next run calls again. And an image whose
        # build was killed boots nothing.
        if when != MIDDLE and described.loader != "bootc":
            assert all(now in (a, b) for now, a, b in zip(boots(machine), old, new, strict=True))
        Configuration(machine, DESIRED).run()
        assert boots(machine) == new
        assert kept(root) == whole
        again = Configuration(machine, DESIRED)
        again.run()
        assert not again.is_change
    assert found == {WRITE: found[WRITE], BEFORE: counting.count, MIDDLE: counting.count, BEHIND: counting.count}
    assert found[WRITE] >= (1 if described.loader in ("bootc", "flatcar") else 2)
