# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Network, pid and mount namespaces of their own, and processes in them.

The first process of a pid namespace takes all others with it when it ends, and their mounts go with the mount
namespace. So ending that one process, or the process that made it, leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.needs import PATH

ADDRESS = "10.199.0.2"
GATEWAY = "10.199.0.1"
# The first process adopts what containers leave behind, so it has to wait for children: a shell that sleeps does not.
FIRST = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print("ready", flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.sigwait([signal.SIGCHLD])
"""
# A bridge, because every kernel has it; the default route goes nowhere.
SET_UP = f"""
set -e
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
# Where every kubelet has its device plugins, whatever its own folder is: two would remove each other's sockets.
mkdir -p /var/lib/kubelet
mount -t tmpfs tmpfs /var/lib/kubelet
mkdir -p /run/nvidia /run/lock
mount --bind "$1/nvidia" /run/nvidia
mount --make-shared /run/nvidia
ip link set lo up
ip link add node0 type bridge
ip address add {ADDRESS}/24 dev node0
ip link set node0 up
ip route add default via {GATEWAY}
echo 1 > /proc/sys/net/ipv4/ip_forward
exec "$2" -c "$3"
"""


class SpaceError(RuntimeError):
    """The namespaces could not be made, or a program in them ended; the message holds what it said."""


class Process:
    """A program in the namespaces. Its words go to a file."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as words:
            self._outer = subprocess.Popen(
                command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=words, stderr=subprocess.STDOUT
            )

    @property
    def pid(self) -> int:
        """The program itself, as this process sees it: nsenter's child."""
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if found := children.read_text().split():
                    return int(found[0])
            self.check()
            time.sleep(0.005)  # between nsenter's start and its fork, nothing tells
        raise SpaceError(f"{self.name} did not start")

    def check(self) -> None:
        """Raises SpaceError when it has ended."""
        if self._outer.poll() is not None:
            raise SpaceError(f"{self.name} ended with status {self._outer.returncode}: {self.words()}")

    def words(self, size: int = 3000) -> str:
        """The end of what it said."""
        return self._log.read_text(errors="replace")[-size:]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 20.0) -> None:
        """Send a signal and wait for the end; kill what does not end."""
        if self._outer.poll() is not None:
            return
        os.kill(self.pid, number)
        try:
            self._outer.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            self._outer.wait(timeout_s)

    def reap(self, timeout_s: float = 20.0) -> None:
        """Wait for the end that something else brought."""
        self._outer.wait(timeout_s)


class Space:
    """The namespaces, from ``start`` to ``end``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._first: subprocess.Popen[str] | None = None
        self._pid = 0
        self._processes: list[Process] = []

    def start(self) -> None:
        """Make them. The folder's part ``nvidia`` becomes /run/nvidia. Raises SpaceError."""
        (self.folder / "nvidia").mkdir(parents=True, exist_ok=True)
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        command += [
            "--mount-proc",
            "--propagation",
            "private",
            "sh",
            "-c",
            SET_UP,
            "space",
            str(self.folder),
            sys.executable,
            FIRST,
        ]
        self._first = subprocess.Popen(
            command,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._first.stdout is not None
        if self._first.stdout.readline() != "ready\n":
            words = self._first.communicate(timeout=30)[1]
            raise SpaceError(f"the namespaces could not be made: {words}")
        self._pid = int(Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()[0])

    def end(self) -> None:
        """End everything in them."""
        if self._first is not None and self._first.poll() is None:
            if self._pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            else:
                self._first.kill()
            self._first.wait(30)
            for stream in (self._first.stdout, self._first.stderr):
                if stream is not None:
                    stream.close()
            for process in self._processes:
                process.reap()

    def entered(self, command: Sequence[str]) -> list[str]:
        """A command line that runs the command inside."""
        return ["nsenter", "-t", str(self._pid), "-n", "-m", "-p", *command]

    def run(self, *command: str, check: bool = True, input: str | None = None, timeout_s: float = 120.0) -> str:
        """Run a command inside; its output. Raises SpaceError with its words."""
        done = subprocess.run(
            self.entered(command),
            env=self._environment(),
            input=input or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode:
            raise SpaceError(f"{shlex.join(command)}: status {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def launch(self, name: str, *command: str) -> Process:
        """Start a program inside that goes on running."""
        logs = self.folder / "log"
        logs.mkdir(exist_ok=True)
        self._processes.append(Process(name, self.entered(command), self._environment(), logs / f"{name}.log"))
        return self._processes[-1]

    def _environment(self) -> dict[str, str]:
        return {"PATH": PATH, "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
