# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A driver of NVIDIA's on a node of tests: the library, built once by gcc, and what it answers."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("nvml.c")
LIBRARY = "libnvidia-ml.so.1"
# As the library says.
DRIVER = "595.71.05"
# NVML's numbers of errors.
DRIVER_NOT_LOADED, GPU_IS_LOST, MISMATCH = 9, 15, 18
# What it says has to be done with a GPU.
NOTHING, GPU_RESET, NODE_REBOOT = 0, 1, 2


def build(folder: Path) -> Path:
    """The library, in this folder."""
    made = folder / LIBRARY
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["gcc", *flags, "-o", made, SOURCE, "-ldl"], check=True)
    return made


def uuid(number: int) -> str:
    """As long as a real one."""
    return f"GPU-00000000-0000-4000-8000-{number:012d}"


class Driver:
    """``root``: of the host. Its GPUs have numbers from 0 on."""

    def __init__(self, root: Path, sys: Path, library: Path, gpus: int = 2) -> None:
        self._library = library
        self._root = root
        self._place = root / "usr/lib64"
        self._state = self._place / "nvml"
        self._sys = sys
        self._state.mkdir(parents=True)
        os.mkfifo(self._state / "xids")
        self.install()
        self.gpus(range(gpus))

    def install(self) -> None:
        """As a package does: a new file takes the place of the old one."""
        new = self._place / "new"
        shutil.copy(self._library, new)
        new.replace(self._place / LIBRARY)

    def add_files(self, number: tuple[str, str]) -> None:
        """What nvidia-ctk looks for below the root: a library of this version, and nodes. As root.

        ``number``: major and minor of the device that all nodes are.
        """
        (self._place / f"libcuda.so.{DRIVER}").touch()
        (self._root / "dev").mkdir()
        for name in ("nvidiactl", "nvidia0", "nvidia1"):
            os.mknod(self._root / "dev" / name, stat.S_IFCHR | 0o600, os.makedev(*map(int, number)))

    def remove(self) -> None:
        """The library goes."""
        (self._place / LIBRARY).unlink()

    def gpus(self, numbers: Sequence[int], lost: Sequence[int] = ()) -> None:
        """These GPUs are there, and some of them fell off their bus."""
        lines = []
        for one in numbers:
            bus = f"00000000:{one + 16:02X}:00.0"
            about = self._sys / "bus/pci/devices" / bus[4:].lower()
            about.mkdir(parents=True, exist_ok=True)
            (about / "numa_node").write_text(f"{one % 2}\n")
            error = GPU_IS_LOST if one in lost else 0
            lines.append(f"{uuid(one)} {bus} {one} {error} NVIDIA H100 80GB HBM3\n")
        self._write("gpus", "".join(lines))

    def says(self, name: str, error: int) -> None:
        """`init` or `lost`; 0: all is well."""
        self._write(name, str(error))

    def confidential(self, on: bool, ready: bool = True) -> None:
        """What it says of confidential computing."""
        self._write("ready", str(int(ready)))
        self._write("cc", f"{int(on)} {int(on)} 0")

    def recovery(self, actions: dict[int, int]) -> None:
        """What it says has to be done with GPUs, by their numbers; 0, nothing, with all others."""
        self._write("recovery", "".join(f"{number} {action}\n" for number, action in actions.items()))

    def xid(self, gpu: str, number: int) -> None:
        """The driver tells of an error."""
        pipe = os.open(self._state / "xids", os.O_RDWR | os.O_NONBLOCK)
        os.write(pipe, f"{gpu} {number}\n".encode())
        if not hasattr(self, "_pipe"):
            self._pipe = pipe  # what nobody has read yet is gone with the last that has it open
        else:
            os.close(pipe)

    def flush(self) -> None:
        """Forget the errors that nobody has heard of."""
        with contextlib.suppress(BlockingIOError):
            if hasattr(self, "_pipe"):
                os.read(self._pipe, 1 << 16)

    def close(self) -> None:
        """At the end of a test."""
        if hasattr(self, "_pipe"):
            os.close(self._pipe)

    def _write(self, name: str, text: str) -> None:
        new = self._state / f"{name}.new"
        new.write_text(text)
        new.replace(self._state / name)
