# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Start the emulator as a process of its own and end it again, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .control import ControlClient

PACKAGE_PARENT = Path(__file__).resolve().parent.parent


class LaunchError(RuntimeError):
    """The emulator did not become ready; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator."""

    sockets: Path
    control: ControlClient
    # For more controllers: `ControlClient(control_path)`.
    control_path: Path
    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """The process, by whose id alone it is ended."""
        return self.process.pid


@contextlib.contextmanager
def launch(
    node: str | Path | Mapping[str, Any],
    *,
    sockets: str | Path | None = None,
    faults: str | Path | Sequence[Mapping[str, Any]] | None = None,
    log: str | Path | None = None,
    state: str | Path | None = None,
    boot_s: float | None = None,
    flr_s: float | None = None,
    rpc_s: float | None = None,
    timeout_s: float = 20.0,
) -> Iterator[Emulator]:
    """Run `python -m emulator`; node and faults may be given as data instead of files."""
    with tempfile.TemporaryDirectory(prefix="emulator-") as scratch_name:
        scratch = Path(scratch_name)
        folder = Path(sockets) if sockets is not None else scratch / "sockets"
        control = scratch / "control.sock"
        command = [sys.executable, "-m", "emulator", _as_file(node, scratch / "node.yaml")]
        command += ["--sockets", str(folder.resolve()), "--control", str(control)]
        if faults is not None:
            command += ["--faults", _as_file(faults, scratch / "faults.yaml")]
        for option, path in (("--log", log), ("--state", state)):
            command += [] if path is None else [option, str(Path(path).resolve())]
        for option, seconds in (("--boot-s", boot_s), ("--flr-s", flr_s), ("--rpc-s", rpc_s)):
            command += [] if seconds is None else [option, str(seconds)]
        process = subprocess.Popen(
            command, cwd=PACKAGE_PARENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            _wait_ready(process, timeout_s)
            with ControlClient(control) as client:
                yield Emulator(folder, client, control, process)
        finally:
            _end(process)


def _as_file(value: object, path: Path) -> str:
    """Data is written to a file; a file's path is made independent of the working directory."""
    if isinstance(value, (str, Path)):
        return str(Path(value).resolve()) if Path(value).exists() else str(value)
    plain = dict(value) if isinstance(value, Mapping) else list(value)  # type: ignore[call-overload]
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    return str(path)


def _wait_ready(process: subprocess.Popen[str], timeout_s: float) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        line = process.stdout.readline()
        if line.startswith("ready:"):
            return
        if not line:
            raise LaunchError(f"the emulator ended with status {process.wait()}: {process.stderr.read().strip()}")
    raise LaunchError(f"the emulator was not ready after {timeout_s} s")


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
