# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""What the Linux kernel shows of PCI devices below /sys, and how it binds drivers, on a file system in memory.

``serve`` lays out the devices, with the named drivers built in, and then acts on what is written, as the kernel does.
``load NAME`` and ``unload NAME`` are modprobe, ``give ADDRESS NAME`` gives a device to a driver as at boot. Writes go
to named pipes, so what follows a write happens a moment later: whoever reads back has to wait for it.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import time
from pathlib import Path

PCI = Path("/sys/bus/pci")
GROUPS = Path("/sys/kernel/iommu_groups")
MODULES = Path("/sys/module")
VFIO = Path("/dev/vfio")
# While this file is there, no module can be unloaded.
IN_USE = Path("/run/modules-in-use")
READY = Path("/run/ready")
# Writes that were not read in time lie in a pipe one behind the other, with nothing between them.
ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
# address: vendor, device, class, IOMMU group, driver
DEVICES = {
    "0000:00:01.0": ("8086", "352a", "060400", 11, "pcieport"),
    "0000:01:00.0": ("10de", "2331", "030200", 11, None),
    "0000:01:00.1": ("10de", "22bd", "040300", 11, "snd_hda_intel"),
    "0000:02:00.0": ("10de", "22a3", "068000", 12, None),
    "0000:03:00.0": ("8086", "1563", "020000", 13, "ixgbe"),
}


def main() -> None:
    """Run one of the commands."""
    if sys.argv[1] == "load":
        register(sys.argv[2])
    elif sys.argv[1] == "unload":
        sys.exit(unload(sys.argv[2]))
    elif sys.argv[1] == "give":
        give(PCI / "devices" / sys.argv[2], sys.argv[3])
    else:
        lay_out()
        for driver in sys.argv[2:]:
            register(driver)
        READY.touch()
        serve()


def lay_out() -> None:
    """The devices, their groups and the drivers that have them."""
    (PCI / "drivers").mkdir(parents=True)
    os.mkfifo(PCI / "drivers_probe")
    for address, (vendor, device, kind, group, driver) in DEVICES.items():
        folder = PCI / "devices" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x%s\n" % vendor)
        (folder / "device").write_text("0x%s\n" % device)
        (folder / "class").write_text("0x%s\n" % kind)
        (folder / "driver_override").write_text("(null)\n")
        (folder / "enable").write_text("0\n")
        (GROUPS / str(group) / "devices").mkdir(parents=True, exist_ok=True)
        (folder / "iommu_group").symlink_to(GROUPS / str(group))
        if driver is not None:
            give(folder, driver)


def give(device: Path, driver: str) -> None:
    """The driver has the device."""
    register(driver)
    load_module(driver)
    (device / "driver").unlink(missing_ok=True)
    (device / "driver").symlink_to(PCI / "drivers" / driver)
    (device / "driver_override").write_text("(null)\n")


def register(driver: str) -> None:
    """A driver that was loaded."""
    folder = PCI / "drivers" / driver
    if not folder.is_dir():
        draft = PCI / (".%s" % driver)
        draft.mkdir()
        for name in ("bind", "unbind"):
            os.mkfifo(draft / name)
        load_module(driver)
        (draft / "module").symlink_to(MODULES / driver)
        draft.rename(folder)


def load_module(driver: str) -> None:
    """A module that nobody uses; it may have been unloaded before."""
    (MODULES / driver).mkdir(parents=True, exist_ok=True)
    (MODULES / driver / "refcnt").write_text("0\n")


def unload(driver: str) -> str | None:
    """A driver that goes, and lets go of its devices; what modprobe says when it cannot."""
    if IN_USE.exists():
        return "modprobe: FATAL: Module %s is in use." % driver
    for link in PCI.glob("devices/*/driver"):
        if link.readlink().name == driver:
            link.unlink()
    shutil.rmtree(MODULES / driver)
    return None


def serve() -> None:
    """Act on every write."""
    pipes: dict[Path, int] = {}
    while True:
        for path in [PCI / "drivers_probe", *PCI.glob("drivers/*/*bind")]:
            if path not in pipes:
                # For writing, too: else the pipe would be at its end whenever a writer closes it.
                pipes[path] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        readable, _, _ = select.select(list(pipes.values()), [], [], 0.02)
        for path, pipe in pipes.items():
            if pipe in readable:
                for address in ADDRESS.findall(os.read(pipe, 4096).decode()):
                    act(path, PCI / "devices" / address)
        time.sleep(0)


def act(path: Path, device: Path) -> None:
    """One write of a device's address."""
    link = device / "driver"
    if path.name == "unbind":
        link.unlink(missing_ok=True)
        return
    wanted = (device / "driver_override").read_text().strip()
    driver = PCI / "drivers" / wanted
    if driver.is_dir() and not link.is_symlink() and (path.name == "drivers_probe" or path.parent == driver):
        link.symlink_to(driver)
        if wanted == "vfio-pci":
            VFIO.mkdir(exist_ok=True)
            (VFIO / (device / "iommu_group").readlink().name).touch()


if __name__ == "__main__":
    main()
