# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Hosts to boot from: trees of files, and stand-ins for the loaders' commands that act on the tree."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from boot_programs import OtherPrograms, cmdline_of, image, is_reading

from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Commands, Disk, Host, Result
from ansible_collections.confidential.gpu.plugins.module_utils._boot.plan import MARKER

HOSTS = Path(__file__).parent / "hosts"
SOURCED = ". {root}/etc/default/grub; for f in {root}/etc/default/grub.d/*.cfg; do [ -e $f ] && . $f; done; "


# Shape and order as grub-mkconfig 2.06 and 2.12 of Debian write them; tests/loaders reads what the real ones make.
GRUB_CFG = """\
### BEGIN /etc/grub.d/00_header ###
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
else
   set default="0"
fi
### END /etc/grub.d/00_header ###

### BEGIN /etc/grub.d/10_linux ###
menuentry 'GNU/Linux' --class gnu-linux $menuentry_id_option 'gnulinux-simple-0a1b' {{
	linux	/boot/vmlinuz-6.12 root=UUID=0a1b2c3d ro {both}
	initrd	/boot/initrd.img-6.12
}}
submenu 'Advanced options for GNU/Linux' $menuentry_id_option 'gnulinux-advanced-0a1b' {{
	menuentry 'GNU/Linux, with Linux 6.12' --class gnu-linux $menuentry_id_option 'gnulinux-6.12-advanced-0a1b' {{
		linux	/boot/vmlinuz-6.12 root=UUID=0a1b2c3d ro {both}
	}}
	menuentry 'GNU/Linux, with Linux 6.12 (recovery mode)' $menuentry_id_option 'gnulinux-6.12-recovery-0a1b' {{
		linux	/boot/vmlinuz-6.12 root=UUID=0a1b2c3d ro single {common}
	}}
}}
### END /etc/grub.d/10_linux ###

### BEGIN /etc/grub.d/30_os-prober ###
menuentry 'Another system (on /dev/sdb1)' --class gnu-linux {{
	linux	/boot/vmlinuz root=/dev/sdb1 ro other
}}
### END /etc/grub.d/30_os-prober ###
"""


# What grub2-mkconfig of RHEL 9 and Fedora writes for GRUB_ENABLE_BLSCFG=true.
BLS_CFG = """\
### BEGIN /etc/grub.d/00_header ###
if [ -f ${config_directory}/grubenv ]; then
  load_env -f ${config_directory}/grubenv
elif [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="${saved_entry}"
fi
### END /etc/grub.d/00_header ###

### BEGIN /etc/grub.d/10_linux ###
insmod part_gpt
search --no-floppy --fs-uuid --set=root 0a1b
insmod blscfg
blscfg
### END /etc/grub.d/10_linux ###
"""
GENERATED = {
    "grub-dropin": "boot/grub/grub.cfg",
    "grub": "boot/grub2/grub.cfg",
    "transactional-update": ".snapshots/1/snapshot/boot/grub2/grub.cfg",
}


class Described:
    """A host of the folder ``hosts``: sections with files, and what is expected of the standard request."""

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
        for title, text in self.files.items():
            name, _arrow, target = title.partition(" -> ")
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if target:
                (root / name).symlink_to(target)
                continue
            content = image(text.strip()) if name.endswith(".efi") and "EFI/Linux" in name else text.encode()
            (root / name).write_bytes(content.ljust(1024, b"#") if name.endswith("grubenv") else content)
        for folder in ("boot", "etc"):
            (root / folder).mkdir(exist_ok=True)
        if self.loader in GENERATED:
            StandIns(root, [])._generate(GENERATED[self.loader])
        for partition in (root / "esp").glob("*/EFI/proxmox/grubx64.efi"):
            StandIns(root, [])._generate("boot/grub/grub.cfg")
            StandIns(root, [])._generate(str(partition.relative_to(root).parents[2] / "grub/grub.cfg"))
        if self.loader == "grubby":
            (root / "boot/grub2").mkdir(exist_ok=True)
            (root / "boot/grub2/grub.cfg").write_text(BLS_CFG)


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

    @property
    def changing(self) -> list[list[str]]:
        """The calls that were not for reading only."""
        return [call for call in self.calls if not is_reading(call)]

    def has(self, name: str) -> bool:
        """Whether this host has it."""
        return name in self.available

    def run(self, argv: Sequence[str], timeout_s: float) -> Result:
        """Do what the command would do to the tree."""
        assert timeout_s > 0
        if list(argv[:2]) == ["env", "-i"]:  # a shell that is asked what settings come out
            return super().run(argv, timeout_s)
        if not self.has(argv[0]):
            raise FileNotFoundError(argv[0])
        self.calls.append(list(argv))
        answer = getattr(self, "_" + argv[0].replace("-", "_"))(list(argv[1:]))
        if not is_reading(list(argv)):
            failure = self.failing.get(len(self.changing))
            if isinstance(failure, BaseException):
                raise failure
            if failure is not None:
                return failure
        return answer if isinstance(answer, Result) else Result(0, answer or "")

    # GRUB's generators: a shell reads the settings, as it does in grub-mkconfig.

    def sourced(self) -> str:
        """The command line of the recovery entry, and on another line that of the others."""
        script = SOURCED.format(root=shlex.quote(str(self.root)))
        script += 'printf "%s\\n%s %s" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
        environment = {"PATH": os.environ["PATH"]}
        return subprocess.run(
            ["sh", "-c", script], check=True, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL
        ).stdout

    def _generate(self, name: str) -> None:
        """What grub-mkconfig's 10_linux makes of one kernel, in the middle of what its other scripts make."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        common, both = self.sourced().split("\n", 1)
        path.write_text(GRUB_CFG.format(common=common, both=both))

    def _update_grub(self, arguments: list[str]) -> None:
        assert arguments == []
        if self.has("proxmox-boot-tool"):
            self._proxmox_boot_tool(["refresh"])
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
