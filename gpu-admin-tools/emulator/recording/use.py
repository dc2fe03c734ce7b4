# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""Whether anybody uses a device of this machine. What cannot be told counts as used.

Free is a physical function without virtual ones, not enabled, with no driver or with vfio-pci, of which no process has
a file open or mapped. Of one at vfio-pci the group is opened and kept: the kernel opens it for one process at a time,
so that no virtual machine can start meanwhile (drivers/vfio/group.c).
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from .errors import RecordingError

VFIO = "vfio-pci"
# include/linux/proc_ns.h, PROC_PID_INIT_INO: the namespace in which every process can be seen.
FIRST_PID_NAMESPACE = "pid:[4026531836]"
ON_THE_HOST = "run as root on the host, or in a container with the host's process ids (hostPID)"


class Use:
    """A claim on a device that nobody uses. Raises RecordingError."""

    def __init__(self, address: str, root: Path = Path("/")) -> None:
        self._address = address
        self._root = root
        self._path = root / "sys/bus/pci/devices" / address
        self._group = -1
        if not self._path.is_dir():
            raise RecordingError(f"{address}: there is no such device in {self._path.parent}; lspci -D lists them")
        self._check_functions()
        driver = _linked(self._path / "driver")
        if driver not in ("", VFIO):
            raise RecordingError(
                f"{address}: the driver {driver} has it; unbind it, or give the device to {VFIO}, and record again"
            )
        if driver == VFIO:
            self._open_group()
        try:
            self._check_enabled()
            self._check_processes()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it."""
        if self._group >= 0:
            os.close(self._group)
        self._group = -1

    def _check_functions(self) -> None:
        if (self._path / "physfn").is_symlink():
            raise RecordingError(f"{self._address}: it is a virtual function; record its physical function")
        if any(self._path.glob("virtfn*")):
            raise RecordingError(
                f"{self._address}: it has virtual functions, which guests may use; where none does, write 0 to "
                f"{self._path}/sriov_numvfs, and record again"
            )

    def _open_group(self) -> None:
        name = _linked(self._path / "iommu_group")
        try:
            self._group = os.open(self._root / "dev/vfio" / (name or "?"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise RecordingError(
                    f"{self._address}: its vfio group {name} is open; shut the virtual machine down, and record again"
                ) from None
            raise RecordingError(
                f"{self._address}: whether it is used is not known: its vfio group {name or '(none)'} cannot be opened "
                f"({error.strerror}); {ON_THE_HOST}"
            ) from None

    def _check_enabled(self) -> None:
        """The kernel counts who enabled the function; a device that vfio has open is among them."""
        try:
            count = int((self._path / "enable").read_text(encoding="ascii"))
        except (OSError, ValueError):
            raise RecordingError(
                f"{self._address}: whether it is used is not known: {self._path}/enable says nothing; {ON_THE_HOST}"
            ) from None
        if count:
            raise RecordingError(
                f"{self._address}: it is enabled, so a program may use it; where none does, write 0 to "
                f"{self._path}/enable, and record again"
            )

    def _check_processes(self) -> None:
        """The files of a device by the end of their path, which is the same in every mount of sysfs."""
        proc = self._root / "proc"
        wanted = re.compile(rf"/{re.escape(self._address)}/(?:config|resource\d+(?:_wc)?)$", re.MULTILINE)
        try:
            if os.readlink(proc / "self/ns/pid") != FIRST_PID_NAMESPACE:
                raise PermissionError(errno.EACCES, "only processes of this container can be seen")
            for name in os.listdir(proc):
                if name.isdigit() and int(name) != os.getpid() and wanted.search(_files(proc / name)):
                    raise RecordingError(
                        f"{self._address}: process {name} has it open; end the process, and record again"
                    )
        except OSError as error:
            raise RecordingError(
                f"{self._address}: whether it is used is not known: {error.strerror}; {ON_THE_HOST}"
            ) from None


def _files(process: Path) -> str:
    """The paths of a process's open and mapped files, one a line; none when it has ended. Raises PermissionError."""
    found: list[str] = []
    try:
        for descriptor in os.listdir(process / "fd"):
            found.append(_target(process / "fd" / descriptor))
        found.append((process / "maps").read_bytes().decode("utf-8", "backslashreplace"))
    except PermissionError:
        raise
    except OSError:
        pass
    return "\n".join(found)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _linked(link: Path) -> str:
    """The name of what a link names, '' without one."""
    try:
        return os.path.basename(os.readlink(link))
    except OSError:
        return ""
