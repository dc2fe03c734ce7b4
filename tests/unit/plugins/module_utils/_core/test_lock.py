# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""One run at a time."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.confidential.gpu.plugins.module_utils._core import lock
from ansible_collections.confidential.gpu.plugins.module_utils._core.errors import NotPermitted, RunInProgress


def test_the_holder_is_named_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run" / "gpu.lock"
    with lock.held(str(path), 0):
        holder = json.loads(path.read_text())
        assert holder["pid"] == os.getpid()
        assert holder["command"] == os.path.basename(sys.argv[0])
        assert holder["since"].endswith("Z")


def test_a_second_run_is_refused_and_told_who_is_at_work(tmp_path: Path, clock: Any) -> None:
    path = str(tmp_path / "gpu.lock")
    with lock.held(path, 0), pytest.raises(RunInProgress) as caught, lock.held(path, 0, clock):
        raise AssertionError("two at once")
    assert "process %d (" % os.getpid() in caught.value.cause
    assert path in caught.value.cause
    assert "busy: wait" in caught.value.remedy
    assert caught.value.seen["holder"]["pid"] == os.getpid()
    assert clock.sleeps == []


def test_a_second_run_waits(tmp_path: Path, clock: Any) -> None:
    path = str(tmp_path / "gpu.lock")
    first = lock.held(path, 0)
    first.__enter__()
    clock.at(3, lambda: first.__exit__(None, None, None))
    with lock.held(path, 10, clock):
        assert 3 <= clock.now() < 3.1


def test_a_second_run_does_not_wait_for_ever(tmp_path: Path, clock: Any) -> None:
    path = str(tmp_path / "gpu.lock")
    with lock.held(path, 0), pytest.raises(RunInProgress), lock.held(path, 5, clock):
        raise AssertionError("two at once")
    assert 5 <= clock.now() < 5.1


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"pid": 1}'])
def test_a_holder_that_wrote_nothing_readable(tmp_path: Path, content: str) -> None:
    path = tmp_path / "gpu.lock"
    path.write_text(content)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(RunInProgress, match="an unnamed process holds"), lock.held(str(path), 0):
            raise AssertionError("two at once")


def test_a_holder_that_is_killed_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "gpu.lock"
    program = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunInProgress), lock.held(str(path), 0):
            raise AssertionError("two at once")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        with lock.held(str(path), 0):
            pass


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "gpu.lock")
    with pytest.raises(KeyError), lock.held(path, 0):
        raise KeyError
    with lock.held(path, 0):
        pass


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "gpu.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(NotPermitted, match="cannot be opened: ELOOP"), lock.held(str(tmp_path / "gpu.lock"), 0):
        raise AssertionError("followed")
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotPermitted, match="root"), lock.held(str(tmp_path / "file" / "gpu.lock"), 0):
        raise AssertionError("locked")


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "gpu.lock"
    with lock.held(str(path), 0):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_fifo_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gpu.lock")
    with pytest.raises(NotPermitted, match="is not a file"), lock.held(str(tmp_path / "gpu.lock"), 0):
        raise AssertionError("locked")
