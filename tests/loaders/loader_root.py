# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A root folder in which this machine's real programs for boot loaders run, and see and change nothing outside of it.

Each command runs in a mount namespace of its own, in which the folder is the root: /usr is this machine's, read-only;
everything else is what the test put there. Files of the folder lie where the tested code, outside, reads them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from ansible_collections.confidential.gpu.plugins.module_utils._boot.cmdline import Desired
from ansible_collections.confidential.gpu.plugins.module_utils._boot.configure import Configuration
from ansible_collections.confidential.gpu.plugins.module_utils._boot.host import Commands, Host, Result

# grub-probe looks for the disk below /, and finds none behind a folder. Answers of a machine with one ext4 partition.
PROBE = """\
#!/bin/sh
for word in "$@"; do
  case "$word" in
    --target=device) echo /dev/vda1 ;;
    --target=fs_uuid) echo 0a1b2c3d-0000-4000-8000-000000000001 ;;
    --target=fs) echo ext2 ;;
    --target=partmap) echo gpt ;;
    --target=hints_string | --target=compatibility_hint | --target=bios_hints) echo hd0,gpt1 ;;
    --target=drive) echo "(hd0,gpt1)" ;;
    --target=partuuid) exit 1 ;;
  esac
done
"""
DESIRED = Desired(add=("intel_iommu=on", 'dyndbg="file iommu.c +p"'), remove=("iommu=pt",))
FOLDERS = ("boot", "dev", "etc", "proc", "run", "sys", "tmp", "usr", "var/lib", "bound")
LINKS = ("bin", "sbin", "lib", "lib64")


class Confined(Commands):
    """This machine's programs, with a folder as their root. ``bound`` are programs that others stand for."""

    def __init__(self, root: Path, bound: Mapping[str, str]) -> None:
        self.root = root
        self.calls: list[list[str]] = []
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        for link in LINKS:
            if Path("/", link).is_symlink():
                (root / link).symlink_to(os.readlink(Path("/", link)))
        lines = ["set -e", "mount --rbind -o ro /usr usr", "mount --rbind /dev dev", "mount -t proc proc proc"]
        for number, (program, text) in enumerate(bound.items()):
            (root / "bound" / str(number)).write_text(text)
            (root / "bound" / str(number)).chmod(0o755)
            lines.append("mount --bind bound/%d .%s" % (number, program))
        self.script = "\n".join([*lines, 'exec chroot . "$@"'])

    def has(self, name: str) -> bool:
        """Whether this machine has the program, in /usr."""
        return any((Path("/usr") / folder / name).exists() for folder in ("sbin", "bin"))

    def run(self, argv: Sequence[str], timeout_s: float) -> Result:
        """Run it in the folder."""
        self.calls.append(list(argv))
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        inside = "cd %s\n%s" % (shlex.quote(str(self.root)), self.script)
        words = ["unshare", *user, "--mount", "--pid", "--fork", "sh", "-c", inside, "sh", *argv]
        return super().run(words, timeout_s)


def host(root: Path, files: Mapping[str, str], bound: Mapping[str, str] | None = None) -> Host:
    """A host of these files, whose programs are real but for those that are ``bound``."""
    confined = Confined(root, {"/usr/sbin/grub-probe": PROBE} if bound is None else bound)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if text.startswith("#!"):
            path.chmod(0o755)
    return Host(root, confined, timeout_s=60)


def change(machine: Host, desired: Desired = DESIRED) -> Configuration:
    """Carry out a request: as check mode announced it, and so that a second run changes nothing."""
    planned = Configuration(machine, desired)
    planned.run(only_plan=True)
    real = Configuration(machine, desired)
    real.run()
    assert real.result()["after"] == planned.result()["after"]
    again = Configuration(machine, desired)
    again.run()
    assert not again.is_change
    return real
