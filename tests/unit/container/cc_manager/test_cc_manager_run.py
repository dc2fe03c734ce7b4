# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Runs through ansible-runner itself, where no device is needed: an answer, no answer, an end from outside."""

from __future__ import annotations

import queue
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cc_manager.messages import Message, RunEnded
from cc_manager.run import Job, Runner

ROOT = Path(__file__).resolve().parents[4]
SOON_S = 60.0


@pytest.fixture
def heard() -> queue.SimpleQueue[Message]:
    return queue.SimpleQueue()


@pytest.fixture
def runner(tmp_path: Path, heard: queue.SimpleQueue[Message], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """On a folder without sockets: a node without devices."""
    link = tmp_path / "collections/ansible_collections/confidential/gpu"
    link.parent.mkdir(parents=True)
    link.symlink_to(ROOT)
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", str(tmp_path / "collections"))
    for name in ("sockets", "runs"):
        (tmp_path / name).mkdir()
    return Runner(f"vfio-user:{tmp_path / 'sockets'}", str(tmp_path), 1, heard.put, str(tmp_path / "runs"))


def ended(heard: queue.SimpleQueue[Message]) -> RunEnded:
    message = heard.get(timeout=SOON_S)
    assert isinstance(message, RunEnded)
    return message


@pytest.fixture
def left(tmp_path: Path) -> Callable[[], list[Path]]:
    """What runs have left of their files."""
    return lambda: list((tmp_path / "runs").iterdir())


def test_the_answer_is_the_modules(runner: Runner, heard: queue.SimpleQueue[Message]) -> None:
    run = runner.start(Job(False))
    message = ended(heard)
    assert (message.run, message.failed) == (run.number, False)
    assert message.result["devices"] == []
    assert set(message.result["host"]) >= {"tdx", "sev_snp"}


def test_a_modules_error_comes_with_its_kind(runner: Runner, heard: queue.SimpleQueue[Message]) -> None:
    runner.start(Job(True, "on"))
    message = ended(heard)
    assert message.failed
    assert message.result["error"]["kind"] == "NoDevices"


def test_what_a_killed_process_left_is_removed_and_nothing_else(
    runner: Runner, tmp_path: Path, heard: queue.SimpleQueue[Message], left: Callable[[], list[Path]]
) -> None:
    runs, victim = tmp_path / "runs", tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    dead = runs / "cc-manager-run-dead"
    (dead / "inner").mkdir(parents=True)
    (dead / "inner" / "out").symlink_to(victim)
    (runs / "cc-manager-run-link").symlink_to(victim)
    (runs / "other").mkdir()
    runner.start(Job(False))
    (alive,) = set(left()) - {dead, runs / "cc-manager-run-link", runs / "other"}
    Runner(f"vfio-user:{tmp_path / 'sockets'}", str(tmp_path), 1, heard.put, str(runs))
    assert set(left()) == {alive, runs / "cc-manager-run-link", runs / "other"}
    assert (victim / "file").exists()
    assert not ended(heard).failed


def test_runs_are_numbered(runner: Runner, heard: queue.SimpleQueue[Message]) -> None:
    numbers = {runner.start(Job(False)).number for _count in range(2)}
    assert {ended(heard).run for _count in range(2)} == numbers


def test_without_the_playbook_there_is_no_answer_and_nothing_is_left(
    runner: Runner,
    heard: queue.SimpleQueue[Message],
    left: Callable[[], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", "/nonexistent")
    runner.start(Job(False))
    message = ended(heard)
    assert message.failed
    assert "gave no answer" in message.result["msg"]
    assert "cc_mode_info" in message.result["msg"]
    assert left() == []


def test_a_run_that_is_killed_ends_soon_without_an_answer(
    runner: Runner, heard: queue.SimpleQueue[Message], left: Callable[[], list[Path]], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as device:  # that takes calls and says nothing: in use, and waited for
        device.bind(str(tmp_path / "sockets/0000:17:00.0.sock"))
        device.listen()
        device.settimeout(SOON_S)
        run = runner.start(Job(True, "on", busy_timeout_s=SOON_S))
        silent, _address = device.accept()
        began = time.monotonic()
        run.kill()
        message = ended(heard)
        silent.close()
    assert time.monotonic() - began < 5  # ansible-runner itself asks every 5 s whether it shall end
    assert (message.run, message.failed) == (run.number, True)
    assert "gave no answer: canceled" in message.result["msg"]
    assert left() == []
