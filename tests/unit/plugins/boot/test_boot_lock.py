# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Two runs at once do not interleave: the second one is refused, and nothing of it happens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from boot_host import FailingDisk, StandIns, host, stand_ins, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot import lock
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host, Result
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import (
    ExplainedError,
    NotPermitted,
    RunInProgress,
)

DESIRED = Desired(add=("intel_iommu=on",))


@pytest.fixture
def machine(tmp_path: Path) -> Host:
    for folder in ("etc/default", "boot/grub", "proc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/default/grub").write_text('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n')
    (tmp_path / "proc/cmdline").write_text("quiet\n")
    StandIns(tmp_path, [])._generate("boot/grub/grub.cfg")
    return host(tmp_path, ["update-grub"])


def test_a_second_run_is_refused_while_the_first_is_at_work(machine: Host, tmp_path: Path) -> None:
    before = tree(tmp_path)
    with lock.held(machine), pytest.raises(RunInProgress) as caught:
        Configuration(machine, DESIRED).run()
    assert "process %d (" % os.getpid() in caught.value.cause
    assert (caught.value.state, caught.value.retryable) == ("Nothing was changed.", True)
    assert isinstance(caught.value, ExplainedError)
    assert tree(tmp_path) == before
    assert stand_ins(machine).calls == []


def test_a_second_run_in_the_middle_of_the_first(machine: Host) -> None:
    """It comes while the first one's update-grub runs, and the first one is not disturbed."""
    refused: list[Any] = []

    class Meanwhile:
        def has(self, name: str) -> bool:
            return commands.has(name)

        def run(self, argv: list[str], timeout_s: float) -> Result:
            second = Configuration(Host(machine.root, commands, machine.disk), Desired(add=("nohibernate",)))
            with pytest.raises(RunInProgress) as caught:
                second.run()
            refused.append(caught.value)
            return commands.run(argv, timeout_s)

    commands = stand_ins(machine)
    first = Configuration(Host(machine.root, Meanwhile(), machine.disk), DESIRED)  # type: ignore[arg-type]
    first.run()
    assert len(refused) == 1
    assert first.result()["after"] == "root=UUID=0a1b2c3d ro quiet intel_iommu=on"
    assert "nohibernate" not in (machine.root / "boot/grub/grub.cfg").read_text()


def test_a_plan_and_a_run_without_change_take_no_lock(machine: Host) -> None:
    with lock.held(machine):
        Configuration(machine, DESIRED).run(only_plan=True)
    Configuration(machine, DESIRED).run()
    with lock.held(machine):
        again = Configuration(machine, DESIRED)
        again.run()
    assert not again.is_change


class ReadBeforeAnother(FailingDisk):
    """Between the first reading of GRUB's settings and what follows, another run begins and ends."""

    def __init__(self, other: Configuration) -> None:
        super().__init__()
        self.others = [other]

    def read(self, path: Path) -> bytes | None:
        """What was there before the other run."""
        content = super().read(path)
        if path.name == "grub" and self.others:
            self.others.pop().run()
        return content


def test_what_another_run_did_meanwhile_is_not_done_twice(machine: Host) -> None:
    late = Configuration(
        Host(machine.root, machine.commands, ReadBeforeAnother(Configuration(machine, DESIRED))), DESIRED
    )
    late.run()
    assert not late.is_change
    assert stand_ins(machine).changing == [["update-grub"]]


def test_the_lock_outlives_nobody(machine: Host) -> None:
    for _run in range(2):
        with lock.held(machine):
            pass


def test_a_lock_that_cannot_be_made(machine: Host, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    before = tree(tmp_path)
    with pytest.raises(NotPermitted, match=r"EEXIST .*Nothing was changed"):
        Configuration(machine, DESIRED).run()
    assert tree(tmp_path) == before
