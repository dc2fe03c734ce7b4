# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How a boot loader's files and commands are reached: a root folder, a disk, a command runner. Tests give others."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence

from .._core import files
from .errors import CommandFailed, CommandMissing, CommandTimeout, NoSpace

PLACES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

_NO_SPACE = "No space left on device"


class Result(NamedTuple):
    """How a command ended."""

    code: int
    out: str = ""
    err: str = ""


class Commands:
    """The commands of this machine."""

    def has(self, name: str) -> bool:
        """Whether there is such a command."""
        return shutil.which(name, path=os.pathsep.join(PLACES)) is not None

    def run(self, argv: Sequence[str], timeout_s: float) -> Result:
        """Run a command to its end; when it takes longer, end it and all that it started and raise TimeoutError."""
        environment = {**os.environ, "LC_ALL": "C", "PATH": os.pathsep.join(PLACES)}
        # Ansible's run_command has no time-out that ends what the command started.
        with subprocess.Popen(  # pylint: disable=ansible-bad-function
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimeoutError("%s took longer than %g s" % (argv[0], timeout_s)) from error
                raise
        return Result(process.returncode, out, err)


class Disk:
    """Files, replaced so that at every moment either the old or the new one is there as a whole."""

    def read(self, path: Path) -> Optional[bytes]:
        """The file's bytes; None when there is no such file."""
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def replace(self, path: Path, content: bytes, like: Optional[Path] = None) -> None:
        """Write the file, with owner, mode and labels of ``like`` (by default of what it replaces)."""
        real = os.path.realpath(path)
        files.replace(real, content, str(like or real))

    def remove(self, path: Path) -> None:
        """Remove the file; it may be gone already."""
        try:
            os.unlink(os.path.realpath(path))
        except FileNotFoundError:
            return
        files.settle(os.path.dirname(os.path.realpath(path)))

    def writable(self, path: Path) -> bool:
        """Whether the file, or the nearest folder that exists, may be written; false on a read-only file system."""
        place = Path(os.path.realpath(path))
        while not place.exists():
            place = place.parent
        return os.access(place, os.W_OK)

    def free(self, path: Path) -> int:
        """Free bytes of the file system that the path lies on."""
        while not path.exists():
            path = path.parent
        seen = os.statvfs(path)
        return seen.f_bavail * seen.f_frsize


class Host(NamedTuple):
    """One machine: the root of its files, its disk, its commands."""

    root: Path = Path("/")
    commands: Commands = Commands()
    disk: Disk = Disk()
    timeout_s: float = 600

    def path(self, name: str) -> Path:
        """Where the file with that absolute name lies."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self.path(name).exists()

    def text(self, name: str) -> Optional[str]:
        """The file's text, every byte kept; None when there is no such file."""
        content = self.disk.read(self.path(name))
        return None if content is None else content.decode("utf-8", "surrogateescape")

    def names(self, folder: str, ending: str = "") -> list[str]:
        """The absolute names of a folder's entries that end so, sorted; none when there is no such folder."""
        try:
            found = sorted(os.listdir(self.path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return ["%s/%s" % (folder, name) for name in found if name.endswith(ending) and not name.startswith(".")]

    def run(self, argv: Sequence[str]) -> Result:
        """Run a command that has to succeed. Raises CommandMissing, CommandTimeout, NoSpace, CommandFailed."""
        words = " ".join(argv)
        try:
            result = self.commands.run(argv, self.timeout_s)
        except FileNotFoundError as error:
            raise missing(argv[0]) from error
        except TimeoutError as error:
            raise CommandTimeout(
                "%s did not end within %g s and was stopped." % (words, self.timeout_s),
                "Give it more time with the option timeout.",
                command=list(argv),
            ) from error
        if result.code:
            said = (result.err.strip() or result.out.strip() or "nothing")[-2000:]
            seen: dict[str, Any] = {"command": list(argv), "code": result.code, "said": said}
            if _NO_SPACE in result.out + result.err:
                raise NoSpace(
                    "%s found no space left: %s." % (words, said.rstrip(".")),
                    "Remove old kernels, then run again.",
                    **seen,
                )
            raise CommandFailed(
                "%s ended with %d and said: %s." % (words, result.code, said.rstrip(".")),
                "Correct what it complains about, then run again.",
                **seen,
            )
        return result


def missing(command: str) -> CommandMissing:
    """The error for a command that is not there."""
    return CommandMissing(
        "The command %s was not found in %s." % (command, ", ".join(PLACES)),
        "Install it, or name another boot loader with the option loader.",
        command=command,
    )
