# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""The collection's playbooks, run through ansible-runner in a thread; the gate at which a change waits.

The answer is taken from the event that ends the module's task, not from the end of the run, which comes 0.3 s later.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible_runner

from . import processes
from .messages import Message, RunEnded, RunPlanned

CHANGE_PLAYBOOK = "confidential.gpu.cc_mode"
READ_PLAYBOOK = "confidential.gpu.cc_mode_info"
ACTIONS = ("confidential.gpu.cc_mode", "confidential.gpu.cc_mode_info")
FOLDER_PREFIX = "cc-manager-run-"
# A variable that all processes of a run have.
MARK = "CC_MANAGER_RUN"
LINE_MAX_BYTES = 4 << 20
GATE_TIMEOUT_S = 3600
SAID_MAX_CHARS = 2000


@dataclass(frozen=True)
class Job:
    """What to run: a reading, or a change to ``mode`` or ``modes``."""

    is_change: bool
    mode: str | None = None
    modes: Mapping[str, str] | None = None
    busy_timeout_s: float = 0  # 0: refuse when something uses a device


class Runner:
    """Starts runs; each tells what becomes of it to ``tell``."""

    def __init__(
        self,
        bus: str,
        state_folder: str,
        boot_timeout_s: float,
        tell: Callable[[Message], None],
        folder: str | None = None,
    ) -> None:
        self._bus = bus
        self._state_folder = state_folder
        self._boot_timeout_s = boot_timeout_s
        self._tell = tell
        self._folder = folder or tempfile.gettempdir()
        self._numbers = itertools.count(1)
        self._orphans = processes.Orphans(gets_them=os.getpid() == 1)
        _clear(Path(self._folder))

    def start(self, job: Job) -> PlaybookRun:
        """Start it. Raises OSError."""
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=self._folder))
        run = PlaybookRun(next(self._numbers), folder, job, self._variables(job), self._tell, self._orphans)
        run.start()
        return run

    def _variables(self, job: Job) -> dict[str, Any]:
        variables: dict[str, Any] = {
            "ansible_python_interpreter": sys.executable,
            "cc_mode_become": False,
            "cc_mode_bus": self._bus,
            "cc_mode_state_folder": self._state_folder,
            "cc_mode_boot_timeout": self._boot_timeout_s,
        }
        if job.is_change:
            variables.update(
                cc_mode_install_tool=False,
                cc_mode_fact_file="",
                cc_mode_busy="wait" if job.busy_timeout_s else "refuse",
                cc_mode_busy_timeout=job.busy_timeout_s,
                cc_mode_gate_timeout=GATE_TIMEOUT_S,
            )
            variables.update({"cc_mode_modes": dict(job.modes)} if job.modes else {"cc_mode_mode": job.mode})
        return variables


class PlaybookRun:
    """One run. ``number`` names it in messages."""

    def __init__(
        self,
        number: int,
        folder: Path,
        job: Job,
        variables: Mapping[str, Any],
        tell: Callable[[Message], None],
        orphans: processes.Orphans,
    ) -> None:
        self.number = number
        self._folder = folder
        self._claim = _claimed(folder)
        self._orphans = orphans
        self._job = job
        self._tell = tell
        self._variables = dict(variables)
        self._answer: Mapping[str, Any] | None = None
        self._killed = threading.Event()
        self._over = threading.Event()
        self._gate: ListeningGate | None = None
        if job.is_change:
            self._gate = ListeningGate(str(folder / "gate"), lambda: tell(RunPlanned(number)))
            self._variables["cc_mode_gate"] = self._gate.path

    def start(self) -> None:
        """Begin, in a thread."""
        threading.Thread(target=self._run, name=f"run {self.number}", daemon=True).start()

    def open_gate(self) -> None:
        """Let it write."""
        if self._gate is not None:
            self._gate.open()

    def close_gate(self) -> None:
        """Let it end without a write."""
        if self._gate is not None:
            self._gate.close()

    def kill(self) -> None:
        """End its processes, whatever they do: those that do not within a second are killed."""
        self.close_gate()
        if not self._killed.is_set():
            self._killed.set()
            arguments = (f"{MARK}={self._folder}".encode(), self._over)
            threading.Thread(target=processes.end, args=arguments, name=f"end {self.number}", daemon=True).start()

    def _run(self) -> None:
        with self._orphans.someone_waits():
            said = self._said()
        self._over.set()
        if self._gate is not None:
            self._gate.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._claim is not None:
            os.close(self._claim)
        if self._answer is None:
            self._tell(RunEnded(self.number, {"msg": f"The playbook gave no answer: {said}"}, failed=True))

    def _said(self) -> str:
        """Run it, to its end; what it printed."""
        try:
            runner = ansible_runner.run(
                private_data_dir=str(self._folder),
                playbook=CHANGE_PLAYBOOK if self._job.is_change else READ_PLAYBOOK,
                inventory=["localhost,"],
                extravars=self._variables,
                cmdline="--connection=local",
                envvars=self._environment(),
                event_handler=self._take,
                cancel_callback=self._killed.is_set,
                suppress_env_files=True,
                quiet=True,
            )
            return f"{runner.status} (status {runner.rc}): {_tail(runner)}"
        except Exception as error:  # noqa: BLE001  (whatever ansible-runner raises: the run has failed, and must be told)
            return f"{type(error).__name__}: {error}"

    def _take(self, event: Mapping[str, Any]) -> bool:
        data = event.get("event_data") or {}
        result = data.get("res")
        over = event.get("event") in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable")
        if over and self._answer is None and isinstance(result, dict) and data.get("task_action") in ACTIONS:
            self._answer = result
            self._tell(RunEnded(self.number, result, failed=event["event"] != "runner_on_ok"))
        return False  # nothing of it is kept in files

    def _environment(self) -> dict[str, str]:
        """Of ansible-playbook: beside this Python, without a configuration or a home of somebody's."""
        folder = str(self._folder)
        settings = self._folder / "ansible.cfg"
        settings.touch()
        return {
            MARK: folder,
            "PATH": f"{os.path.dirname(sys.executable)}:{os.environ.get('PATH', os.defpath)}",
            "ANSIBLE_CONFIG": str(settings),
            "ANSIBLE_HOME": folder,
            "ANSIBLE_LOCAL_TEMP": folder,
            "ANSIBLE_REMOTE_TEMP": folder,
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_INVENTORY_ENABLED": "host_list",
            "ANSIBLE_VARS_ENABLED": "",
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }


def _claimed(folder: Path) -> int | None:
    """The folder, open and locked: it is somebody's. None when somebody else has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _clear(folder: Path) -> None:
    """Remove what runs of a process that was killed have left. Others may write here: no link is followed."""
    for left in folder.glob(FOLDER_PREFIX + "*"):
        with contextlib.suppress(OSError):  # not a folder, or not ours
            if left.lstat().st_uid != os.geteuid():
                continue
            claim = _claimed(left)
            if claim is not None:
                shutil.rmtree(left, ignore_errors=True)
                os.close(claim)


def _tail(runner: Any) -> str:
    try:
        with runner.stdout as file:
            said: str = file.read()
    except Exception as error:  # noqa: BLE001  (ansible-runner's own, when there is no output)
        return f"no output ({error})"
    return " ".join(said[-SAID_MAX_CHARS:].split())


class ListeningGate:
    """The unix socket to which the module's option ``gate`` connects."""

    def __init__(self, path: str, planned: Callable[[], None]) -> None:
        self.path = path
        self._planned = planned
        self._lock = threading.Lock()
        self._closed = False
        self._connection: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(1)
        threading.Thread(target=self._serve, name="gate", daemon=True).start()

    def _serve(self) -> None:
        try:
            connection, _address = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        with self._lock:
            if self._closed:
                connection.close()
                return
            self._connection = connection
        try:
            with connection.makefile("rb") as lines:
                line = lines.readline(LINE_MAX_BYTES)
        except OSError:
            return
        if line.endswith(b"\n"):
            self._planned()

    def open(self) -> None:
        """Say the word. A run that is gone meanwhile tells so itself."""
        with self._lock, contextlib.suppress(OSError):
            if self._connection is not None and not self._closed:
                self._connection.sendall(b"go\n")

    def close(self) -> None:
        """Close it, without the word if that has not been said."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for one in (self._listener, self._connection):
                if one is not None:
                    with contextlib.suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                    one.close()
