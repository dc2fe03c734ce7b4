# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""A virtual machine with emulated GPUs: start, reach, reboot, kill.

Every machine writes to a copy of the image. The copy is raw and QEMU writes through the page cache, so killing QEMU
is a power cut: what the guest gave to its disk stays, what it still held is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import qemu
from .image import Image
from .ssh import GuestError, Ssh

ACCELERATOR = "VM_ACCELERATOR"
MEMORY = "2G"
PYTHON = "/usr/bin/python3"


@dataclass(frozen=True)
class Gpu:
    """An emulated device: its address in the guest, which follows from its place, and its socket."""

    address: str
    socket: Path


def node(models: Sequence[str], **timing: float) -> dict[str, object]:
    """The emulator's description of these devices, with the addresses that the guest will give them."""
    devices = [{"address": address(index), "model": model} for index, model in enumerate(models)]
    return {"name": "vm", "timing": {"flr_s": 0.1, "boot_s": 1.0, "rpc_s": 0.002, **timing}, "devices": devices}


def address(index: int) -> str:
    """Each device sits alone on the bus behind its root port; firmware numbers them from 1."""
    return f"0000:{index + 1:02x}:00.0"


class Machine:
    """One virtual machine, in a folder of its own.

    ``disks`` are more disks, which it cannot write to. ``with_iommu``: the kernel starts with the IOMMU on, without the
    boot loader; without it, it starts as the image's boot loader says, with the IOMMU off. ``uefi``: the firmware is
    UEFI in place of a BIOS.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        gpus: Sequence[Gpu] = (),
        disks: Sequence[Path] = (),
        with_iommu: bool = False,
        uefi: bool = False,
    ) -> None:
        self.folder = folder
        self.gpus = list(gpus)
        self.console = folder / "console.log"
        self.disk = folder / "disk.img"
        self.ssh = Ssh(_free_port(), image.key)
        self._qemu = qemu.fetch()
        # On nested hosts KVM may exist and hang, so it has to be asked for.
        self._accelerator = os.environ.get(ACCELERATOR, "tcg")
        self._more_disks = list(disks)
        self._kernel = image.past_the_boot_loader() if with_iommu else []
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(image.disk), str(self.disk)], check=True)
        self._firmware = self._uefi() if uefi else []

    def start(self) -> None:
        """Switch on; returns at once."""
        assert self._process is None, "it is running"
        # A test that is killed takes its machine with it.
        command = ["setpriv", "--pdeathsig", "KILL", *self._qemu.system(), *self._arguments()]
        with (self.folder / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._qemu.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def boot(self, timeout_s: float = 400) -> str:
        """Switch on and wait until the guest answers; returns the boot's name. Raises GuestError."""
        self.start()
        try:
            return self.ssh.wait_booted(timeout_s=timeout_s)
        except GuestError as error:
            raise GuestError(f"{error}\n{self.words()}") from error

    def kill(self) -> None:
        """Cut the power."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self, timeout_s: float = 60) -> None:
        """Shut down; cut the power if that takes too long."""
        if self._process is not None:
            self.ssh.run("systemctl poweroff", timeout_s=15, check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout_s)
            self.kill()

    def is_running(self) -> bool:
        """QEMU is there."""
        return self._process is not None and self._process.poll() is None

    def discard(self) -> None:
        """Cut the power and give back the room on the disk; the logs stay."""
        self.kill()
        self.disk.unlink(missing_ok=True)

    def words(self) -> str:
        """The end of what QEMU and the guest's console said."""
        parts = []
        for path in (self.folder / "qemu.log", self.console):
            text = path.read_text(errors="replace")[-3000:] if path.exists() else ""
            parts.append(f"--- {path.name}\n{text}")
        return "\n".join(parts)

    def variables(self) -> Mapping[str, object]:
        """What Ansible needs to reach the guest."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.ssh.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.ssh.key),
            "ansible_ssh_common_args": " ".join(self.ssh.options()),
            "ansible_python_interpreter": PYTHON,
        }

    def _uefi(self) -> list[str]:
        """The firmware, with variables of the machine's own, which outlive its starts."""
        code, variables = qemu.uefi()
        own = self.folder / variables.name
        if not own.exists():
            shutil.copy(variables, own)
        flash = "if=pflash,format=raw,unit={},file={}"
        read_only = flash.format(0, code) + ",readonly=on"
        return ["-drive", read_only, "-drive", flash.format(1, own)]

    def _processor(self) -> str:
        # The IOMMU is Intel's, so the emulated processor is too; by itself it would be AMD's.
        return "max,vendor=GenuineIntel" if self._accelerator == "tcg" else "host"

    def _arguments(self) -> list[str]:
        accelerator = "tcg,thread=multi,tb-size=512" if self._accelerator == "tcg" else self._accelerator
        words = ["-M", "q35", "-accel", accelerator, "-cpu", self._processor()]
        words += [*self._firmware, "-smp", "2", "-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none"]
        # The devices' server maps the guest's memory, so it must be shared.
        words += ["-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on", "-machine", "memory-backend=ram"]
        words += ["-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"]
        words += ["-device", "intel-iommu,intremap=on,caching-mode=on", "-device", "virtio-rng-pci"]
        words += ["-drive", f"if=none,id=d0,format=raw,file={self.disk},cache=unsafe,discard=unmap"]
        words += ["-device", "virtio-blk-pci,drive=d0,bootindex=1", *self._kernel]
        for number, disk in enumerate(self._more_disks, 1):
            words += ["-drive", f"if=none,id=d{number},format=raw,file={disk},readonly=on"]
            words += ["-device", f"virtio-blk-pci,drive=d{number}"]
        # A guest that reaches nothing outside, as a host in a closed network.
        words += ["-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self.ssh.port}-:22"]
        words += ["-device", "virtio-net-pci,netdev=n0,romfile="]
        # Without this a root port has no link-active bit, and a bus reset waits in vain for the link.
        words += ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        words += ["-global", "q35-pcihost.pci-hole64-size=512G"]
        for index, gpu in enumerate(self.gpus):
            port = f"pcie-root-port,id=rp{index},chassis={index + 1},slot={index + 1},bus=pcie.0,x-speed=32,x-width=16"
            device = {"driver": "vfio-user-pci", "id": f"gpu{index}", "bus": f"rp{index}"}
            socket_of = {"socket": {"path": str(gpu.socket), "type": "unix"}}
            words += ["-device", port, "-device", json.dumps({**device, **socket_of})]
        return words


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean(folder: Path) -> None:
    """Remove a machine's folder."""
    shutil.rmtree(folder, ignore_errors=True)
