# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Whether a device is there, and is what it should be. The node is looked at and never opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from ..machine import Machine


class Seen(NamedTuple):
    """``path``: of the node that was found, empty if none was; ``problem``: why it is not healthy, empty if it is."""

    path: str
    problem: str


def look(paths: Sequence[str], kernel_names: Sequence[str], machine: Machine) -> Seen:
    """The first of the paths that is there counts."""
    for path in paths:
        try:
            found = os.stat(machine.at(path))
        except FileNotFoundError:
            continue
        except OSError as error:
            return Seen(path, f"{path} cannot be looked at: {error.strerror}")
        return Seen(path, _problem(path, found, kernel_names, machine))
    return Seen("", f"there is no {' and no '.join(paths)}: is this such a guest, and is its module loaded?")


def ask_kernel(paths: Sequence[str], kernel_names: Sequence[str], machine: Machine) -> Seen:
    """The same without nodes: the first of the paths that is named after a device that the kernel has."""
    for path in paths:
        name = PurePosixPath(path).name
        if name in kernel_names and (machine.sys / "class/misc" / name / "dev").exists():
            return Seen(path, "")
    return Seen(
        "", f"the kernel has no {' and no '.join(kernel_names)}: is this such a guest, and is its module loaded?"
    )


def is_no_device(path: str, machine: Machine) -> bool:
    """True for something else in the place of a device node."""
    try:
        return not stat.S_ISCHR(os.stat(machine.at(path)).st_mode)
    except OSError:
        return False


def _problem(path: str, found: os.stat_result, kernel_names: Sequence[str], machine: Machine) -> str:
    if not stat.S_ISCHR(found.st_mode):
        return f"{path} is no character device"
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    # A node can be left over, or be of any device. What the number stands for, the kernel says.
    about = machine.sys / "dev/char" / number / "uevent"
    try:
        lines = about.read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{path} has the number {number}, and the kernel has no device of it"
    named = [line.partition("=")[2] for line in lines if line.startswith("DEVNAME=")]
    if not named or named[0] not in kernel_names:
        return f"{path} has the number {number}, which is {named[0] if named else 'a device without a name'}"
    return ""
