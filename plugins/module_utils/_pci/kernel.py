# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What changes the kernel's mind about drivers: writes below /sys, and modprobe. Tests bring their own kernel."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# modprobe's own folders: a module's PATH may lack them.
SBIN = "/usr/sbin:/sbin:/usr/bin:/bin"


class Kernel:
    """The running kernel."""

    def write(self, path: Path, text: str) -> None:
        """Write an attribute in one go, as sysfs wants it. Raises OSError with the kernel's errno."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode())
        finally:
            os.close(descriptor)

    def load(self, module: str) -> str:
        """Load a module with modprobe; the words of a failure, or ''."""
        environment = {**os.environ, "PATH": "%s:%s" % (SBIN, os.environ.get("PATH", "")), "LC_ALL": "C"}
        argv = ["modprobe", module]
        try:
            # Nothing of Ansible below the modules, so no run_command.
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                argv, capture_output=True, text=True, check=False, env=environment
            )
        except OSError as error:
            return str(error)
        return "" if done.returncode == 0 else done.stderr.strip() or "exit status %d" % done.returncode


def release(root: Path) -> str:
    """The running kernel's release, such as '6.17.0-5-generic'; '' when the kernel does not say."""
    try:
        return (root / "proc/sys/kernel/osrelease").read_text().strip()
    except OSError:
        return ""


def built_in(root: Path, module: str) -> bool:
    """Whether the running kernel has the module built in: then modprobe.d has no say over its options."""
    wanted = module.replace("-", "_")
    try:
        listed = (root / "lib/modules" / release(root) / "modules.builtin").read_text(errors="backslashreplace").split()
    except OSError:
        return False
    return any(os.path.basename(name).partition(".")[0].replace("-", "_") == wanted for name in listed)
