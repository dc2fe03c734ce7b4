# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""A kernel's PCI core on a folder: sysfs as files and links, and what happens when an attribute is written.

After drivers/base/bus.c, drivers/base/dd.c and drivers/pci/pci-driver.c: a driver_override excludes every other driver;
drivers_probe succeeds whether or not a driver took the device; bind answers with the errno of the driver's probe, and
ENODEV for a device that the driver does not match; unbind answers ENODEV for a device that the driver does not have.
vfio drivers match only by override (or by ids), and refuse a device without an IOMMU group with EINVAL.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ansible_collections.confidential.gpu.plugins.module_utils._pci.kernel import Kernel
from ansible_collections.confidential.gpu.plugins.module_utils._pci.processes import FIRST_PID_NAMESPACE

GPU, AUDIO, NVSWITCH, BRIDGE = 0x030200, 0x040300, 0x068000, 0x060400
NVME, HOST_BRIDGE = 0x010802, 0x060000


class Killed(BaseException):
    """The process ends here, without any clean-up."""


class FakeKernel(Kernel):
    """Built with device() and driver(); then handed to the code under test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pci = root / "sys/bus/pci"
        for folder in (self.pci / "devices", self.pci / "drivers", root / "proc", root / "dev/vfio", root / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.pci / "drivers_probe").touch()
        self.ids: dict[str, list[str]] = {}
        self.order: list[str] = []  # drivers in order of registration: the first that matches gets a device
        self.probe_errors: dict[tuple[str, str], int] = {}
        self.write_errors: dict[str, int] = {}  # by the attribute's name
        self.modules: dict[str, list[str]] = {}  # what modprobe can load: driver -> ids
        self.writes: list[tuple[str, str]] = []
        self.loads: list[str] = []
        self.kill_before: int | None = None
        self.deaf_unbind = False  # unbind answers, but the driver stays
        (root / "proc/sys/kernel").mkdir(parents=True)
        (root / "proc/self/ns").mkdir(parents=True)
        (root / "proc/self/ns/pid").symlink_to(FIRST_PID_NAMESPACE)
        (root / "proc/1/fd").mkdir(parents=True)
        (root / "proc/sys/kernel/osrelease").write_text("6.17.0-test\n")

    # Building

    def driver(self, name: str, ids: list[str] | None = None, refcnt: int | None = None) -> None:
        folder = self.pci / "drivers" / name
        folder.mkdir()
        for attribute in ("bind", "unbind"):
            (folder / attribute).touch()
        if refcnt is not None:
            module = self.root / "sys/module" / name.replace("-", "_")
            module.mkdir(parents=True)
            (module / "refcnt").write_text("%d\n" % refcnt)
            (folder / "module").symlink_to(module)
        self.ids[name] = ids or []
        self.order.append(name)

    def device(
        self,
        address: str,
        id: str = "10de:2331",
        class_code: int = GPU,
        group: int | None = 1,
        driver: str | None = None,
    ) -> Path:
        vendor, _, device = id.partition(":")
        folder = self.root / "sys/devices/pci0000:00" / address
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x%s\n" % vendor)
        (folder / "device").write_text("0x%s\n" % device)
        (folder / "class").write_text("0x%06x\n" % class_code)
        (folder / "driver_override").write_text("(null)\n")
        (folder / "enable").write_text("0\n")
        if group is not None:
            members = self.root / "sys/kernel/iommu_groups" / str(group) / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(folder)
            (folder / "iommu_group").symlink_to(members.parent)
        link = self.pci / "devices" / address
        link.symlink_to(folder)
        if driver is not None:
            self._attach(driver, address)
        return link

    def hold(self, pid: int, file: str, command: str = "qemu-system-x86") -> Path:
        """A process with a file open; the path of its descriptor, to be removed when it closes it."""
        folder = self.root / "proc" / str(pid) / "fd"
        folder.mkdir(parents=True)
        (folder.parent / "comm").write_text(command + "\n")
        mine = self.root / file.lstrip("/")
        mine.touch()
        (folder / "3").symlink_to(mine)
        return folder / "3"

    # Asking

    def driver_of(self, address: str) -> str | None:
        link = self.pci / "devices" / address / "driver"
        return os.path.basename(os.readlink(link)) if link.is_symlink() else None

    def override_of(self, address: str) -> str | None:
        text = (self.pci / "devices" / address / "driver_override").read_text().strip()
        return None if text == "(null)" else text

    # The kernel

    def write(self, path: Path, text: str) -> None:
        if self.kill_before is not None and len(self.writes) >= self.kill_before:
            raise Killed
        self.writes.append((str(path.relative_to(self.root)), text))
        if path.name in self.write_errors:
            raise OSError(self.write_errors[path.name], "refused")
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such attribute")
        address = text.strip()
        if path.name == "driver_override":
            path.write_text(text if address else "(null)\n")
            return
        if not (self.pci / "devices" / address).exists():
            raise OSError(errno.ENODEV, "no such device")
        if path.name == "drivers_probe":
            self._probe(address)
        elif path.name == "unbind":
            if self.driver_of(address) != path.parent.name:
                raise OSError(errno.ENODEV, "not bound to it")
            if not self.deaf_unbind:
                (self.pci / "devices" / address / "driver").unlink()
        elif path.name == "bind":
            self._bind(path.parent.name, address)

    def load(self, module: str) -> str:
        self.loads.append(module)
        if module not in self.modules:
            return "modprobe: FATAL: Module %s not found." % module
        self.driver(module, self.modules[module])
        for address in sorted(os.listdir(self.pci / "devices")):
            self._probe(address)
        return ""

    def _probe(self, address: str) -> None:
        if self.driver_of(address) is not None:
            return
        for name in self.order:
            if self._matches(name, address) and not self._refusal(name, address):
                self._attach(name, address)
                return

    def _bind(self, name: str, address: str) -> None:
        if not self._matches(name, address):
            raise OSError(errno.ENODEV, "no match")
        if self.driver_of(address) is not None:
            raise OSError(errno.EBUSY, "has a driver")
        refusal = self._refusal(name, address)
        if refusal:
            raise OSError(refusal, "probe failed")
        self._attach(name, address)

    def _matches(self, name: str, address: str) -> bool:
        override = self.override_of(address)
        if override is not None:
            return override == name
        folder = self.pci / "devices" / address
        id = "%s:%s" % tuple((folder / part).read_text().strip()[2:] for part in ("vendor", "device"))
        return id in self.ids[name]

    def _refusal(self, name: str, address: str) -> int:
        if "vfio" in name and not (self.pci / "devices" / address / "iommu_group").exists():
            return errno.EINVAL
        return self.probe_errors.get((name, address), 0)

    def _attach(self, name: str, address: str) -> None:
        (self.pci / "devices" / address / "driver").symlink_to(self.pci / "drivers" / name)
        group = self.pci / "devices" / address / "iommu_group"
        if "vfio" in name and group.exists():
            (self.root / "dev/vfio" / os.path.basename(os.readlink(group))).touch()
