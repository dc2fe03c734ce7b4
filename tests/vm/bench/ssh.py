# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The way into the guest. Everything has a time-out: a connection can hang for good when the guest reboots under it."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "5",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "6",
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
    "IdentitiesOnly": "yes",
}


class GuestError(RuntimeError):
    """A command in the guest failed or did not end; the message holds what it said."""


@dataclass(frozen=True)
class Ssh:
    """Root's shell in one guest."""

    port: int
    key: Path
    shared: str = ""  # the socket of a connection that is open already

    def options(self) -> list[str]:
        """For ssh and for Ansible."""
        return [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]

    def command(self) -> list[str]:
        """What starts a shell, less the command to run."""
        share = ["-S", self.shared] if self.shared else []
        return ["ssh", *self.options(), *share, "-i", str(self.key), "-p", str(self.port), "root@127.0.0.1"]

    @contextmanager
    def connected(self, folder: Path, timeout_s: float = 60) -> Iterator[Ssh]:
        """One connection for all commands: each costs the guest a second. It does not outlive a reboot."""
        socket = folder / "ssh"
        master = [*replace(self, shared=str(socket)).command(), "-M", "-N"]
        # Started by itself, since one that ssh leaves behind keeps the pipes of the command that came first.
        with subprocess.Popen(master, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + timeout_s
                while not socket.exists():
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise GuestError("the guest answers no ssh")
                    time.sleep(0.1)
                yield replace(self, shared=str(socket))
            finally:
                process.terminate()

    def run(self, command: str, timeout_s: float = 60, check: bool = True, stdin: str = "") -> str:
        """Standard output of a shell command. Raises GuestError."""
        try:
            done = subprocess.run(
                [*self.command(), command],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as expired:
            raise GuestError(f"not done after {timeout_s} s: {command}") from expired
        if check and done.returncode:
            raise GuestError(f"status {done.returncode}: {command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """Run a command beside the test; the caller ends it."""
        return subprocess.Popen([*self.command(), command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def copy(self, source: Path, target: str, timeout_s: float = 120) -> None:
        """Copy a file or the contents of a folder into a folder of the guest."""
        names = [entry.name for entry in source.iterdir()] if source.is_dir() else [source.name]
        folder = source if source.is_dir() else source.parent
        unpack = f"mkdir -p {shlex.quote(target)} && tar -x -C {shlex.quote(target)}"
        with subprocess.Popen(["tar", "-C", str(folder), "-c", *names], stdout=subprocess.PIPE) as pack:
            subprocess.run([*self.command(), unpack], stdin=pack.stdout, timeout=timeout_s, check=True)

    def boot_id(self) -> str:
        """A name of this boot; empty while nobody answers."""
        try:
            return self.run("cat /proc/sys/kernel/random/boot_id", timeout_s=15).strip()
        except GuestError:
            return ""

    def wait_booted(self, before: str = "", timeout_s: float = 400) -> str:
        """Return the name of the boot when one other than `before` answers. Raises GuestError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if (now := self.boot_id()) not in ("", before):
                return now
            time.sleep(0.5)
        raise GuestError(f"the guest does not answer after {timeout_s} s")
