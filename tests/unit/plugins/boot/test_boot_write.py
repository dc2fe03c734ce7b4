# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Writing: whole files with owner and mode, copies, refusals beforehand, errors that say what is left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from boot_host import Described, FailingDisk, StandIns, host, marker, stand_ins, tree

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.errors import (
    CommandFailed,
    CommandMissing,
    Interrupted,
    NoSpace,
    NotWritable,
    Shadowed,
)
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Commands, Disk, Host, Result
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import VerifyMismatch

DESIRED = Desired(add=("intel_iommu=on",), remove=("iommu=pt",))
GRUB = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet iommu=pt"\nGRUB_CMDLINE_LINUX=""\n'
DEBIAN = ["update-grub", "grub-script-check"]


def debian(root: Path, disk: Disk | None = None, available: list[str] | None = None, text: str = GRUB) -> Host:
    (root / "etc/default").mkdir(parents=True)
    (root / "boot/grub").mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "etc/default/grub").write_text(text)
    (root / "proc/cmdline").write_text("BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro quiet iommu=pt\n")
    StandIns(root, [])._generate("boot/grub/grub.cfg")
    return host(root, available or DEBIAN, disk)


def change(machine: Host, desired: Desired = DESIRED, **options: bool) -> Configuration:
    configuration = Configuration(machine, desired)
    configuration.run(**options)
    return configuration


def test_result(tmp_path: Path) -> None:
    result = change(debian(tmp_path)).result()
    (backup,) = result["backup_files"]
    assert backup.startswith(str(tmp_path / "etc/default/grub."))
    assert backup.endswith("~")
    assert Path(backup).read_text() == GRUB
    assert result["before"] == "root=UUID=0a1b2c3d ro quiet iommu=pt"
    assert result["after"] == "root=UUID=0a1b2c3d ro quiet intel_iommu=on"
    assert result["running"].endswith("quiet iommu=pt")
    assert result["reboot_required"] is True
    assert result["loader"] == "grub-dropin"


def test_reboot_is_required_by_the_running_kernel_alone(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    change(machine)
    machine.path("/proc/cmdline").write_text("BOOT_IMAGE=/x ro intel-iommu=on something=else\n")
    again = change(machine)
    assert not again.is_change
    assert again.diff() == []
    assert again.result()["reboot_required"] is False


def test_reboot_is_required_though_nothing_changed(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    change(machine)
    assert change(machine).result()["reboot_required"] is True


def test_without_backup(tmp_path: Path) -> None:
    assert change(debian(tmp_path), keep_backups=False).result()["backup_files"] == []
    assert not list(tmp_path.rglob("*~"))


def test_mode_and_link_are_kept(tmp_path: Path) -> None:
    machine = debian(tmp_path, Disk())
    path = tmp_path / "etc/default/grub"
    real = tmp_path / "etc/default/grub.real"
    path.rename(real)
    real.chmod(0o640)
    path.symlink_to(real)
    change(machine)
    assert path.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "iommu=pt" not in real.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owner_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12, 34)
    Disk().replace(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (12, 34)


def test_a_disk_that_fails_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        Disk().replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"


def test_disk(tmp_path: Path) -> None:
    disk = Disk()
    assert disk.read(tmp_path / "none") is None
    assert disk.writable(tmp_path / "a/b/c")
    assert disk.free(tmp_path / "a/b/c") > 0
    disk.remove(tmp_path / "none")


def test_a_read_only_file(tmp_path: Path) -> None:
    disk = FailingDisk()
    disk.read_only = {"99-confidential-gpu.cfg"}
    with pytest.raises(NotWritable, match=r"99-confidential-gpu.cfg cannot be written. Nothing was changed. Run as"):
        change(debian(tmp_path, disk))
    assert disk.writes == 0


def test_a_full_file_system_is_seen_beforehand(tmp_path: Path) -> None:
    disk = FailingDisk(room=1000)
    with pytest.raises(NoSpace, match=r"/boot/grub has 1000 bytes free, and \d+ are needed. Nothing was changed."):
        change(debian(tmp_path, disk))
    assert disk.writes == 0


def test_a_missing_command_is_seen_beforehand(tmp_path: Path) -> None:
    disk = FailingDisk()
    machine = debian(tmp_path, disk)
    configuration = Configuration(machine, DESIRED)
    configuration.run(only_plan=True)
    stand_ins(machine).available.remove("update-grub")
    assert configuration.loader is not None
    assert configuration.planned is not None
    with pytest.raises(CommandMissing, match=r"update-grub was not found.*Nothing was changed"):
        configuration.loader.write(configuration.planned)
    assert disk.writes == 0


def test_what_the_disk_refuses(tmp_path: Path) -> None:
    with pytest.raises(NotWritable, match=r"EACCES \(Permission denied\). Nothing was changed"):
        change(debian(tmp_path, FailingDisk(2, PermissionError(13, "Permission denied", "/etc/x"))))


@pytest.mark.parametrize(
    ("refusal", "remedy"),
    [
        (PermissionError(13, "Permission denied", "/boot/grub/grub.cfg"), "Run as root"),
        (IsADirectoryError(21, "Is a directory", "/boot/grub/grub.cfg"), "Look what is there"),
    ],
)
@pytest.mark.parametrize("only_plan", [True, False])
def test_a_file_that_cannot_be_read_is_an_error_with_words(
    refusal: OSError, remedy: str, only_plan: bool, tmp_path: Path
) -> None:
    """Ubuntu's grub.cfg is for root alone: without become not even a plan can be made."""

    class Unreadable(FailingDisk):
        def read(self, path: Path) -> bytes | None:
            if path.name == "grub.cfg":
                raise refusal
            return super().read(path)

    with pytest.raises(
        NotWritable,
        match=r"^/boot/grub/grub.cfg could not be read or written: E.*Nothing was changed. " + remedy,
    ):
        change(debian(tmp_path, Unreadable()), only_plan=only_plan)


def test_the_loaders_own_check_fails(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    before = tree(tmp_path)
    configuration = Configuration(machine, Desired(add=("BROKEN",)))
    with pytest.raises(
        CommandFailed, match=r"grub-script-check .* said: syntax error. Every file was put back"
    ) as caught:
        configuration.run()
    assert "after" not in configuration.result()
    assert configuration.result()["before"] == "root=UUID=0a1b2c3d ro quiet iommu=pt"
    assert caught.value.as_dict()["seen"]["code"] == 1
    assert tree(tmp_path) == before
    assert not list(tmp_path.rglob("*~"))


class Stubborn(FailingDisk):
    """Once the command ran, nothing can be written."""

    calls: Sequence[object] = ()

    def replace(self, path: Path, content: bytes, like: Path | None = None) -> None:
        if self.calls:
            raise OSError(30, "Read-only file system", str(path))
        super().replace(path, content, like)

    remove = Disk.remove


def test_a_file_that_cannot_be_put_back_is_named_with_its_copy(tmp_path: Path) -> None:
    disk = Stubborn()
    machine = debian(tmp_path, disk)
    disk.calls = stand_ins(machine).calls
    stand_ins(machine).failing = {1: Result(1, "", "")}
    with pytest.raises(
        CommandFailed, match=r"said: nothing\..*grub could not be put back; copies of the former"
    ) as caught:
        change(machine)
    copy = caught.value.state.split(": ")[-1].rstrip(".")
    assert Path(copy).read_text() == GRUB


def test_an_unfinished_run_is_marked_until_it_is_completed(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    seen: list[bool] = []
    commands: Any = machine.commands
    run = commands.run

    def watched(argv: Any, timeout: float) -> Any:
        seen.append(marker(machine).exists())
        return run(argv, timeout)

    commands.run = watched
    change(machine)
    assert seen == [True, True]
    assert not marker(machine).exists()


def test_a_grub_cfg_that_was_never_made_is_made(tmp_path: Path) -> None:
    machine = debian(tmp_path, text='GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on"\n')
    machine.path("/boot/grub/grub.cfg").write_text("linux /vmlinuz root=UUID=0a1b2c3d ro quiet\n")
    assert change(machine).result()["commands"] == [["update-grub"], ["grub-script-check", "/boot/grub/grub.cfg"]]
    assert not change(machine).is_change


@pytest.mark.parametrize("desired", [Desired(remove=("ro",)), Desired(replace=("root=/dev/sdb1",))])
def test_what_the_generator_adds_by_itself_cannot_be_asked_for(desired: Desired, tmp_path: Path) -> None:
    with pytest.raises(Shadowed, match=r"grub.cfg, line 14 \(GNU/Linux\): ro\w*\S* is there without any setting"):
        change(debian(tmp_path), desired)
    assert change(debian(tmp_path / "2"), Desired(add=("ro",))).is_change


def test_a_token_that_an_administrator_took_out_is_not_missed(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    machine.path("/etc/default/grub").write_text(GRUB.replace("quiet ", ""))
    assert change(machine).result()["after"] == "root=UUID=0a1b2c3d ro intel_iommu=on"


class Forgetful(StandIns):
    """A generator that leaves a token out."""

    def _generate(self, name: str) -> None:
        super()._generate(name)
        path = self.root / name
        path.write_text(path.read_text().replace(" quiet", ""))


def test_a_token_of_the_settings_that_the_generator_loses_is_noticed(tmp_path: Path) -> None:
    machine = debian(tmp_path)
    before = tree(tmp_path)
    with pytest.raises(VerifyMismatch, match=r"grub.cfg, line 14 .*: quiet was lost. Every file was put back"):
        change(Host(tmp_path, Forgetful(tmp_path, DEBIAN), machine.disk))
    assert tree(tmp_path) == before


def test_a_repair_that_fails_is_told(tmp_path: Path) -> None:
    described = Described("tumbleweed-grub2-bls")
    described.build(tmp_path)
    machine = host(tmp_path, described.commands)
    before = tree(tmp_path)
    stand_ins(machine).failing = {1: Result(1, "no", ""), 2: Result(2, "", "again")}
    with pytest.raises(CommandFailed, match=r"put back as it was. But .* may be left: .* said: again"):
        change(machine)
    assert {k: v for k, v in tree(tmp_path).items() if k.startswith("etc")} == {
        k: v for k, v in before.items() if k.startswith("etc")
    }


def test_real_commands(tmp_path: Path) -> None:
    commands = Commands()
    assert commands.has("sh")
    assert not commands.has("no-such-command")
    assert commands.run(["sh", "-c", "echo $LC_ALL; echo e >&2; exit 3"], 10) == Result(3, "C\n", "e\n")
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        commands.run(["sh", "-c", "sleep 60 & sleep 60"], 0.2)
    assert time.monotonic() - started < 10


def test_an_interrupted_command_is_ended(tmp_path: Path) -> None:
    def stop(_number: int, _frame: object) -> None:
        raise Interrupted("Stopped.", "Again.")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(Interrupted):
            Commands().run(["sleep", "60"], 30)
    finally:
        signal.signal(signal.SIGALRM, previous)
