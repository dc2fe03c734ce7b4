# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""An emulated machine: namespaces of this one, with a disk, boots, a kernel's command line, PCI devices and a switch.

Its disk is this machine's file system with a layer over it, so that it has all programs and changes none of them. The
layer outlives boots. A boot is a process tree of its own: what runs in it is gone when the power is. Devices below
/sys, GRUB and the initramfs are the stand-ins of extensions/molecule; the GPUs behind the sockets are emulated.

Ansible reaches it by its own connection plugin ssh, whose program is ``SSH``: a machine that is off does not answer.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = ROOT / "extensions/molecule/stand-ins"
READY_S = 30.0
# Between the answer of shutdown and the end of everything.
GOING_DOWN_S = 0.3
DROP_INS = "/etc/systemd/system/kubelet.service.d"

# What is done once, to the disk. GRUB's stand-in is no shell's business later: it would write its settings anew.
INSTALL = f"""
set -e
rm -f /usr/sbin/shutdown /usr/local/bin/systemctl /usr/bin/systemctl
sh {STAND_INS}/grub-host.sh true > /dev/null 2>&1
cat > /usr/sbin/shutdown <<'END'
#!/bin/sh
echo reboot > /run/outside
END
cat > /usr/local/bin/systemctl <<'END'
#!/bin/sh
case "$1 $2" in
  "show kubelet") printf 'Id=kubelet.service\\nLoadState=loaded\\nActiveState=active\\nSubState=running\\n' ;;
  "show "*) printf 'LoadState=not-found\\nActiveState=inactive\\n' ;;
  "restart kubelet") echo kubelet > /run/outside ;;
  daemon-reload*) ;;
  *) exit 1 ;;
esac
END
chmod +x /usr/sbin/shutdown /usr/local/bin/systemctl
rm -rf {DROP_INS} /etc/ansible/facts.d /etc/modprobe.d/* /etc/modules-load.d/* /var/lib/confidential-gpu
mkdir -p /stand-ins
"""
# The disk: a layer in memory over this machine's file system, for as long as this process lives.
DISK = """
set -e
mount -t tmpfs -o mode=0755 none {folder}
mkdir {folder}/upper {folder}/work {folder}/root
mount -t overlay overlay -o lowerdir=/,upperdir={folder}/upper,workdir={folder}/work {folder}/root
echo ready
exec sleep infinity
"""
BOOT = """
set -e
cd {root}
mount -t proc proc proc
mount -t tmpfs none sys
mount -t tmpfs none run
mount -t tmpfs -o mode=0755 none dev
for name in null zero full random urandom tty; do touch dev/$name; mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
mkdir -p dev/shm run/gpus
mount --bind {sockets} run/gpus
mkfifo run/outside
sed -n 's/^[[:space:]]*linux[[:space:]]*[^ ]* //p' boot/grub/grub.cfg | head -n 1 > run/cmdline
mount --bind run/cmdline proc/cmdline
echo {boot_id} > run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
mount --bind {stand_ins} stand-ins
exec chroot . /bin/sh {stand_ins}/pci-host.sh update-initramfs
"""
SSH = """\
#!{python}
import os, pathlib, sys
words = sys.argv[1:]
if "-O" in words:  # the end of a connection that is kept
    sys.exit()
host, command = words[-2:]
pid = pathlib.Path({folder!r}, host, "pid")
if not pid.is_file():
    print("ssh: connect to host", host, "port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
into = ["nsenter", "-t", pid.read_text(), "--mount", "--pid", "--root", "--wd", "/bin/sh", "-c", command]
path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
os.execvpe(into[0], into, {{"PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "USER": "root"}})
"""


class Machine:
    """One, which Ansible calls ``name``. ``registers`` is what its kubelet does when it starts, with its provider id.

    ``comes_back``: whether it boots again by itself after a reboot.
    """

    def __init__(self, folder: Path, name: str, sockets: Path, registers: Callable[[str], None]) -> None:
        self.name = name
        self.comes_back = True
        self.boots: list[str] = []
        self._folder = folder / name
        self._sockets = sockets
        self._registers = registers
        self._disk: subprocess.Popen[str] | None = None
        self._power: subprocess.Popen[bytes] | None = None
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._works = threading.Thread(target=self._work, name=name, daemon=True)

    @property
    def _root(self) -> Path:
        return self._folder / "disk/root"

    # --- what anyone may do -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Install and boot."""
        disk = self._folder / "disk"
        disk.mkdir(parents=True)
        script = DISK.format(folder=disk)
        command = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script]
        self._disk = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._disk.stdout is not None
        assert self._disk.stdout.readline() == "ready\n", "there is no overlay file system"
        subprocess.run(
            [*self._on_disk(), "chroot", str(self._root), "/bin/sh", "-c", INSTALL],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        self._boot()
        self._works.start()

    def power_cycle(self) -> None:
        """The switch: off and on, some time soon."""
        self._asked.put("power cycle")

    def end(self) -> None:
        """Nothing is left of it."""
        self._asked.put("")
        if self._works.ident is not None:
            self._works.join()
        self._off()
        if self._disk is not None:
            self._disk.kill()
            self._disk.wait()
            assert self._disk.stdout is not None
            self._disk.stdout.close()

    def read(self, path: str) -> str:
        """A file of its disk."""
        command = [*self._on_disk(), "cat", f"{self._root}{path}"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    # --- its life -----------------------------------------------------------------------------------------------------

    def _on_disk(self) -> list[str]:
        assert self._disk is not None
        return ["nsenter", "-t", str(self._disk.pid), "--mount"]

    def _boot(self) -> None:
        self.boots.append(str(uuid.uuid4()))
        script = BOOT.format(root=self._root, sockets=self._sockets, stand_ins=STAND_INS, boot_id=self.boots[-1])
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--propagation", "private"]
        with (self._folder / "console.log").open("ab") as console:
            self._power = subprocess.Popen(
                [*self._on_disk(), *unshare, "/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        init = self._wait_booted(self._power)
        draft = self._folder / "pid.new"
        draft.write_text(init)
        draft.replace(self._folder / "pid")
        # What is asked for in it comes through a pipe; both ends, so that it never ends.
        pipe = os.open(f"/proc/{init}/root/run/outside", os.O_RDWR)
        threading.Thread(target=self._hear, args=(pipe, len(self.boots)), daemon=True).start()
        self._kubelet()

    def _wait_booted(self, power: subprocess.Popen[bytes]) -> str:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert power.poll() is None, (self._folder / "console.log").read_text()
            with contextlib.suppress(OSError, ValueError):
                (init,) = Path(f"/proc/{power.pid}/task/{power.pid}/children").read_text().split()
                if Path(f"/proc/{init}/root/run/ready").exists():
                    return init
            time.sleep(0.02)  # nobody tells
        raise AssertionError(f"{self.name} does not boot: {(self._folder / 'console.log').read_text()}")

    def _off(self) -> None:
        (self._folder / "pid").unlink(missing_ok=True)
        if self._power is not None:
            self._power.send_signal(signal.SIGKILL)
            self._power.wait()
            self._power = None

    def _hear(self, pipe: int, boot: int) -> None:
        with os.fdopen(pipe) as lines:
            for line in lines:
                if boot != len(self.boots):
                    return
                self._asked.put(line.strip())

    def _work(self) -> None:
        while asked := self._asked.get():
            if asked == "kubelet":
                self._kubelet()
                continue
            if asked == "reboot":
                time.sleep(GOING_DOWN_S)
            self._off()
            if asked == "power cycle" or self.comes_back:
                self._boot()

    def _kubelet(self) -> None:
        """It registers the node once it was told its provider id."""
        command = [*self._on_disk(), "sh", "-c", f"cat {self._root}{DROP_INS}/*.conf"]
        drop_ins = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        found = re.search(r'KUBELET_EXTRA_ARGS=.*--provider-id=([^ "]+)', drop_ins)
        if found:
            self._registers(found.group(1))


def ssh_program(folder: Path) -> Path:
    """What Ansible calls in place of ssh, for the machines of this folder."""
    path = folder / "ssh"
    path.write_text(SSH.format(python=sys.executable, folder=str(folder)))
    path.chmod(0o755)
    return path
