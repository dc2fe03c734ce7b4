# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""What is done inside a guest again and again."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ssh import Ssh

TOOL_FOLDER = "/opt/nvidia"
HOLD = Path(__file__).with_name("hold.py")


def install_tool(ssh: Ssh, wheels: Path, scratch: Path) -> None:
    """Unpack NVIDIA's wheel in the guest. It is pure Python; pip would take a minute for the same."""
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(scratch / "tool")
    ssh.copy(scratch / "tool", TOOL_FOLDER)


def nvidia_tool(ssh: Ssh, address: str, *options: str) -> str:
    """NVIDIA's own command line, unmodified, on one device; everything it says."""
    short = address.removeprefix("0000:")
    command = f"cd {TOOL_FOLDER} && python3 nvidia_gpu_tools.py --gpu-bdf={short} {' '.join(options)} 2>&1"
    return ssh.run(command, timeout_s=120)


def cc_mode(ssh: Ssh, address: str) -> str:
    """The mode that NVIDIA's tool reads."""
    said = nvidia_tool(ssh, address, "--query-cc-mode")
    modes = [line.rsplit("CC mode is ", 1)[1].strip() for line in said.splitlines() if "CC mode is " in line]
    assert len(modes) == 1, said
    return modes[0]


def reboot(ssh: Ssh) -> None:
    """Restart the guest and wait until it answers again."""
    before = ssh.boot_id()
    ssh.run("systemctl reboot", timeout_s=15, check=False)
    ssh.wait_booted(before)


def switch_iommu_on(ssh: Ssh) -> None:
    """By hand, on the boot loader's menu alone, for tests that are not about the roles; then restart."""
    ssh.run("sed -i s/intel_iommu=off/intel_iommu=on/ /boot/grub/grub.cfg && sync")
    reboot(ssh)


def bind_to_vfio(ssh: Ssh, address: str) -> None:
    """By hand, as the kernel documents it."""
    device = f"/sys/bus/pci/devices/{address}"
    ssh.run(
        f"modprobe vfio-pci && echo vfio-pci > {device}/driver_override && echo {address} > /sys/bus/pci/drivers_probe"
    )


def link(ssh: Ssh, path: str) -> str:
    """The last part of where a link leads, empty for no link."""
    return ssh.run(f"readlink {path} || true").strip().rsplit("/", 1)[-1]


def wait_asleep(ssh: Ssh, address: str) -> None:
    """Return when the kernel has let a device sleep that is idle at vfio-pci."""
    state = f"/sys/bus/pci/devices/{address}/power_state"
    ssh.run(f"for i in $(seq 100); do grep -q D3hot {state} && exit; sleep 0.1; done; cat {state}; exit 1")


@contextmanager
def holding(ssh: Ssh, how: str, address: str) -> Iterator[int]:
    """The id of a process that holds a device meanwhile; ``how`` as hold.py says."""
    # The program comes as an argument, so that nothing of it is left in the guest.
    process = ssh.start(f"exec python3 -c {shlex.quote(HOLD.read_text())} {how} {address}")
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        yield pid
        ssh.run(f"kill {pid}; while kill -0 {pid}; do sleep 0.1; done 2> /dev/null")
        process.wait(30)
    finally:
        process.kill()
        process.communicate()
