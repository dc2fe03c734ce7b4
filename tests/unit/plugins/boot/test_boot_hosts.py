# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Every kind of host: found, read, changed, left alone when it is right, and put back when anything fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_host import Described, FailingDisk, difference, host, marker, names, stand_ins, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.change import RESTORED
from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired, split
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import (
    MAKERS,
    NAMES,
    Configuration,
    choose,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    NOTHING_CHANGED,
    BootError,
    CommandFailed,
    CommandTimeout,
    NoSpace,
    UnknownLoader,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Host, Result

# What commands write and make again, or drop, themselves.
BY_COMMANDS = (".snapshots/2/snapshot/boot/grub2/grub.cfg", "default-snapshot")

STANDARD = Desired(
    add=("intel_iommu=on", "kvm_intel.tdx=1", "nohibernate", "quiet"),
    remove=("iommu=pt", "amd_iommu"),
    replace=("mitigations=auto",),
)


def laid_out(name: str, root: Path, disk: FailingDisk | None = None) -> tuple[Described, Host]:
    described = Described(name)
    described.build(root)
    return described, host(root, described.commands, disk)


def asked_back(machine: Host, desired: Desired = STANDARD) -> list[str]:
    """What a new run finds missing; and it must find nothing to do when that is nothing."""
    again = Configuration(machine, desired)
    again.run(only_plan=True)
    assert not again.is_change
    return desired.unmet(split(again.result()["after"]))


def test_there_is_a_host_of_every_loader() -> None:
    assert {Described(name).loader for name in names()} == set(NAMES)


@pytest.mark.parametrize("name", names())
def test_standard_request(name: str, tmp_path: Path) -> None:
    described, machine = laid_out(name, tmp_path)
    before = tree(tmp_path)
    planned = Configuration(machine, STANDARD)
    planned.run(only_plan=True)
    assert tree(tmp_path) == before
    assert stand_ins(machine).changing == []

    real = Configuration(machine, STANDARD)
    real.run()
    assert real.loader is not None
    assert real.loader.name == described.loader
    assert stand_ins(machine).changing == real.result()["commands"] == planned.result()["commands"]
    assert sorted(split(real.result()["after"])) == sorted(split(planned.result()["after"]))
    assert real.is_change
    assert real.diff() == planned.diff()
    assert difference(before, tree(tmp_path)) == described.expected["@diff"]
    assert asked_back(machine) == []
    assert not marker(machine).exists()


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    "desired",
    [STANDARD, Desired(add=("console=ttyS9",)), Desired(replace=("console=ttyS9",))],
    ids=["standard", "one more value", "one value"],
)
def test_what_is_told_to_be_there_after_was_read_back(name: str, desired: Desired, tmp_path: Path) -> None:
    _described, machine = laid_out(name, tmp_path)
    planned = Configuration(machine, desired)
    planned.run(only_plan=True)
    real = Configuration(machine, desired)
    real.run()
    assert real.loader is not None
    assert split(real.result()["after"]) == real.loader.read()
    assert sorted(split(planned.result()["after"])) == sorted(real.loader.read())


@pytest.mark.parametrize("name", names())
def test_added_tokens_are_removed_without_a_trace(name: str, tmp_path: Path) -> None:
    _described, machine = laid_out(name, tmp_path)
    Configuration(machine, Desired(add=("nohibernate", "a.b=c"))).run()
    first, before = tree(tmp_path), Configuration(machine, Desired())
    before.run()
    Configuration(machine, Desired(add=("d=e", "f"))).run()
    Configuration(machine, Desired(remove=("d=e", "f"))).run()
    last, after = tree(tmp_path), Configuration(machine, Desired())
    after.run()
    assert before.result()["after"] == after.result()["after"]
    # Each change of some loaders is a new snapshot.
    new = [name for name in {*first, *last} if name.startswith((".snapshots/", "default-snapshot"))]
    assert {k: v for k, v in last.items() if k not in new} == {k: v for k, v in first.items() if k not in new}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("stop", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"])
def test_a_failure_at_any_write_leaves_everything_as_it_was(name: str, stop: BaseException, tmp_path: Path) -> None:
    writes = 0
    while True:
        writes += 1
        root = tmp_path / str(writes)
        disk = FailingDisk(writes, stop)
        _described, machine = laid_out(name, root, disk)
        before = tree(root)
        try:
            Configuration(machine, STANDARD).run(keep_backups=False)
        except NoSpace as error:
            left = error.state
        except KeyboardInterrupt:
            left = RESTORED
        else:
            if marker(machine).exists() or list(root.rglob("*~")):
                continue  # all is done but for tidying up
            break
        assert left in (NOTHING_CHANGED, RESTORED)
        after = tree(root)
        unprotected = set(BY_COMMANDS)
        assert {k: v for k, v in after.items() if k not in unprotected} == {
            k: v for k, v in before.items() if k not in unprotected
        }
        assert not list(root.rglob("*~"))
    assert asked_back(machine) == []
    assert disk.writes < 20


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Result(1, "", "it broke"), CommandFailed),
        (Result(1, "", "cp: No space left on device"), NoSpace),
        (TimeoutError(), CommandTimeout),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["failed", "full", "timeout", "stopped"],
)
def test_a_command_that_fails_leaves_everything_as_it_was(
    name: str, failure: Result | BaseException, kind: type[BaseException], tmp_path: Path
) -> None:
    described, machine = laid_out(name, tmp_path)
    planned = Configuration(machine, STANDARD)
    planned.run(only_plan=True)
    before = tree(tmp_path)
    for number in range(1, len(planned.result()["commands"]) + 1):
        stand_ins(machine).calls.clear()
        stand_ins(machine).failing = {number: failure}
        with pytest.raises(kind) as caught:
            Configuration(machine, STANDARD).run()
        if isinstance(caught.value, BootError):
            assert caught.value.state == RESTORED
        after = tree(tmp_path)
        for written in (*BY_COMMANDS, "etc/kernel/cmdline"):
            after.pop(written, None)
            before.pop(written, None)
        grub_cfg = "boot/grub/grub.cfg" if described.loader == "grub-dropin" else "boot/grub2/grub.cfg"
        if grub_cfg not in before:
            assert grub_cfg not in after
        assert after == before


@pytest.mark.parametrize("name", names())
def test_what_a_killed_run_left_is_completed(name: str, tmp_path: Path) -> None:
    """Killed between the files and the command: the files are right, the command never ran."""
    described, machine = laid_out(name, tmp_path)
    Configuration(machine, STANDARD).run(keep_backups=False)
    needs_command = bool(stand_ins(machine).changing)
    stand_ins(machine).calls.clear()
    marker(machine).parent.mkdir(parents=True, exist_ok=True)
    marker(machine).touch()
    Configuration(machine, STANDARD).run()
    if needs_command and described.loader not in ("grubby", "rpm-ostree"):
        assert stand_ins(machine).changing
        assert not marker(machine).exists()


@pytest.mark.parametrize("name", names())
def test_a_loader_that_is_not_loaded_would_not_be_found(name: str, tmp_path: Path) -> None:
    described, machine = laid_out(name, tmp_path)
    for maker in MAKERS:
        loader = maker.load()(machine)
        assert loader.name == maker.name
        assert maker.may_be(machine) or not loader.found()
    assert [maker.name for maker in MAKERS if maker.may_be(machine)].count(described.loader) >= 1


def test_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('PRETTY_NAME="Plan 9"\n')
    with pytest.raises(UnknownLoader, match=r"Plan 9.*update-grub.*Nothing was changed.*by hand"):
        choose(host(tmp_path, []))


def test_named_loader(tmp_path: Path) -> None:
    _described, machine = laid_out("debian-12", tmp_path)
    assert choose(machine, "grub-dropin").name == "grub-dropin"
    words = r"grubby does not make what boots .*bookworm.*: the command grubby\. Nothing"
    with pytest.raises(UnknownLoader, match=words):
        choose(machine, "grubby")
