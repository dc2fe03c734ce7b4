# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts to boot from: trees of files, and stand-ins for the loaders' commands that act on the tree."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from boot_programs import OtherPrograms, cmdline_of, image, is_reading

from ansible_collections.confidential.gpu.plugins.module_utils._boot.change import MARKER
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Commands, Disk, Host, Result

HOSTS = Path(__file__).parent / "hosts"
SOURCED = ". {root}/etc/default/grub; for f in {root}/etc/default/grub.d/*.cfg; do [ -e $f ] && . $f; done; "


class Described:
    """A host of the folder ``hosts``: sections with files, and what is expected of the standard wish."""

    def __init__(self, name: str) -> None:
        self.source = HOSTS / (name + ".txt")
        sections = re.split(r"^=== (.*)\n", self.source.read_text(), flags=re.MULTILINE)[1:]
        self.files: dict[str, str] = {}
        self.expected = {}
        last = ""
        for title, text in zip(sections[::2], sections[1::2], strict=True):
            if title == "@no-newline":
                self.files[last] = self.files[last][:-1]
            elif title.startswith("@"):
                self.expected[title] = text
            else:
                self.files[title] = text
                last = title
        self.loader = self.expected["@loader"].strip()
        self.commands = self.expected["@commands"].split()

    def build(self, root: Path) -> None:
        """Lay out the files."""
        for name, text in self.files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            content = image(text.strip()) if name.endswith(".efi") and "EFI/Linux" in name else text.encode()
            (root / name).write_bytes(content)
        for folder in ("boot", "etc"):
            (root / folder).mkdir(exist_ok=True)


def names() -> list[str]:
    """Every host that is described."""
    return sorted(path.stem for path in HOSTS.glob("*.txt"))


def tree(root: Path) -> dict[str, bytes]:
    """Every file below the root but copies and the lock; of an image, its command line."""
    return {
        str(path.relative_to(root)): _content(path)
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith(("~", ".lock"))
    }


def _content(path: Path) -> bytes:
    content = path.read_bytes()
    return (cmdline_of(content) + "\n").encode() if content.startswith(b"MZ") else content


def difference(before: dict[str, bytes], after: dict[str, bytes]) -> str:
    """What changed between two trees, as a short unified diff."""
    lines: list[str] = []
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            old, new = (texts.get(name, b"").decode().splitlines() for texts in (before, after))
            found = list(difflib.unified_diff(old, new, name, name, n=0, lineterm=""))
            lines += ["-- " + name, *[line for line in found[2:] if not line.startswith("@@")]]
    return "".join(line + "\n" for line in lines)


class StandIns(OtherPrograms, Commands):
    """The commands by name. ``failing`` maps the number of a call to what happens to it, after its effect."""

    def __init__(self, root: Path, available: Sequence[str]) -> None:
        self.root = root
        self.available = list(available)
        self.calls: list[list[str]] = []
        self.failing: dict[int, Result | BaseException] = {}
        self.read_only = {("grubby", "--info=DEFAULT"), ("grubby", "--info=ALL")}

    @property
    def changing(self) -> list[list[str]]:
        """The calls that were not for reading only."""
        return [call for call in self.calls if tuple(call) not in self.read_only and not is_reading(call)]

    def has(self, name: str) -> bool:
        """Whether this host has it."""
        return name in self.available

    def run(self, argv: Sequence[str], timeout_s: float) -> Result:
        """Do what the command would do to the tree."""
        assert timeout_s > 0
        if not self.has(argv[0]):
            raise FileNotFoundError(argv[0])
        self.calls.append(list(argv))
        answer = getattr(self, "_" + argv[0].replace("-", "_"))(list(argv[1:]))
        if tuple(argv) not in self.read_only and not is_reading(list(argv)):
            failure = self.failing.get(len(self.changing))
            if isinstance(failure, BaseException):
                raise failure
            if failure is not None:
                return failure
        return answer if isinstance(answer, Result) else Result(0, answer or "")

    # GRUB's generators: a shell reads the settings, as it does in grub-mkconfig.

    def sourced(self) -> str:
        """The command line of the default entry."""
        script = SOURCED.format(root=shlex.quote(str(self.root)))
        script += 'printf "%s %s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
        environment = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            ["sh", "-c", script], check=True, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
        ).stdout

    def _generate(self, name: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        recovery = self.sourced().split("  ")[0]
        text = "menuentry 'Linux' {\n\tlinux\t/boot/vmlinuz root=/dev/sda1 ro %s\n}\n" % self.sourced().strip()
        path.write_text(
            text + "menuentry 'recovery' {\n\tlinux\t/boot/vmlinuz root=/dev/sda1 ro single %s\n}\n" % recovery
        )

    def _update_grub(self, arguments: list[str]) -> None:
        assert arguments == []
        self._generate("boot/grub/grub.cfg")

    def _update_bootloader(self, arguments: list[str]) -> None:
        assert arguments == ["--refresh"]
        self._generate("boot/grub2/grub.cfg")

    def _grub2_mkconfig(self, arguments: list[str]) -> None:
        option, path = arguments
        assert option == "-o"
        self._generate(path.lstrip("/"))

    _grub_mkconfig = _grub2_mkconfig

    def _grub_script_check(self, arguments: list[str]) -> Result:
        (path,) = arguments
        return Result(1 if "BROKEN" in (self.root / path.lstrip("/")).read_text() else 0, "", "syntax error")

    _grub2_script_check = _grub_script_check

    def _transactional_update(self, arguments: list[str]) -> None:
        assert arguments == ["--non-interactive", "grub.cfg"]
        self._generate("snapshots/2/boot/grub2/grub.cfg")

    # grubby: every entry; releases with kernelopts keep it in GRUB's environment block; the newest write their files.

    def _entries(self) -> Iterator[tuple[Path, str]]:
        for path in sorted((self.root / "boot/loader/entries").glob("*.conf"), reverse=True):
            for line in path.read_text().splitlines():
                if line.startswith("options "):
                    yield path, line[len("options ") :]

    def _kernelopts(self) -> str:
        path = self.root / "boot/grub2/grubenv"
        lines = path.read_text().splitlines() if path.exists() else []
        return next((line[len("kernelopts=") :] for line in lines if line.startswith("kernelopts=")), "")

    def _grubby(self, arguments: list[str]) -> str:
        if arguments[0].startswith("--info="):
            entries = list(self._entries())[: 1 if arguments[0].endswith("DEFAULT") else None]
            texts = [options.replace("$kernelopts", self._kernelopts()) for _path, options in entries]
            return "".join(
                'index=%d\nkernel="/boot/x"\nargs="%s"\n' % (number, text) for number, text in enumerate(texts)
            )
        assert arguments[0] == "--update-kernel=ALL"
        given = dict(argument.split("=", 1) for argument in arguments[1:])
        remove, add = given.get("--remove-args", "").split(), given.get("--args", "").split()
        for path, options in list(self._entries()):
            if "$kernelopts" not in options:
                path.write_text(path.read_text().replace(options, self._merged(options, remove, add)))
        if self._kernelopts():
            path = self.root / "boot/grub2/grubenv"
            path.write_text(path.read_text().replace(self._kernelopts(), self._merged(self._kernelopts(), remove, add)))
        cmdline = self.root / "etc/kernel/cmdline"
        if cmdline.exists():
            cmdline.write_text(self._merged(cmdline.read_text(), remove, add) + "\n")
        return ""

    @staticmethod
    def _merged(options: str, remove: Sequence[str], add: Sequence[str]) -> str:
        # grubby(8): "If an argument already exists the new value replaces the old values."
        names = {token.split("=")[0] for token in add}
        kept = [
            token for token in options.split() if token not in remove and token.split("=")[0] not in {*remove, *names}
        ]
        return " ".join([*kept, *add])


class FailingDisk(Disk):
    """A disk whose n-th write fails, or the machine stops there; ``room`` bytes are free."""

    def __init__(self, fails_at: int = 0, failure: BaseException | None = None, room: int = 1 << 40) -> None:
        self.fails_at = fails_at
        self.failure = failure or OSError(28, "No space left on device")
        self.room = room
        self.writes = 0
        self.read_only: set[str] = set()

    def _count(self) -> None:
        self.writes += 1
        if self.writes == self.fails_at:
            raise self.failure

    def replace(self, path: Path, content: bytes, like: Path | None = None) -> None:
        """Write, or fail."""
        self._count()
        super().replace(path, content, like)

    def remove(self, path: Path) -> None:
        """Remove, or fail."""
        if path.exists():
            self._count()
        super().remove(path)

    def free(self, path: Path) -> int:
        """What the test says."""
        return self.room

    def writable(self, path: Path) -> bool:
        """Whatever is not said to be read-only."""
        return path.name not in self.read_only


def host(root: Path, available: Sequence[str], disk: Disk | None = None) -> Host:
    """A host whose commands are stand-ins."""
    return Host(root, StandIns(root, available), disk or FailingDisk(), timeout_s=5)


def stand_ins(machine: Host) -> StandIns:
    """The stand-ins of such a host."""
    assert isinstance(machine.commands, StandIns)
    return machine.commands


def marker(machine: Host) -> Path:
    """Where an unfinished run leaves its mark."""
    return machine.path(MARKER)
