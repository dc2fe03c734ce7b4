# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0

"""The CC manager's image in a guest: its files on a disk, and runc, which makes of a pod what containerd makes of it.

Left out of what containerd adds: the seccomp profile (it lets pass everything that is done here) and the files that
are about names and the API server.
"""

from __future__ import annotations

import json
import os
import shlex
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.kube import workloads
from tools import cache, image
from tools.needs import check_programs, run

from .places import CACHE, PROGRAMS
from .ssh import Ssh

Spec = dict[str, Any]

LABEL = "cc-manager"
FILES = "/srv/cc-manager"
BUNDLES = "/run/bundles"
# Rendered by Helm, which needs a Go toolchain; tests/chart keeps them what the chart says.
PODS = Path(__file__).resolve().parent.parent / "pods"
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
DISK_MIB = 192

# include/uapi/linux/capability.h, in order.
EVERY_CAPABILITY = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
# What containerd mounts into every container, and hides from those that are not privileged.
MOUNTS = (
    ("/proc", "proc", "nosuid,noexec,nodev"),
    ("/dev", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ("/dev/pts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("/dev/shm", "tmpfs", "nosuid,noexec,nodev,mode=1777,size=65536k"),
    ("/dev/mqueue", "mqueue", "nosuid,noexec,nodev"),
)
MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats "
    "/proc/sched_debug /proc/scsi /sys/firmware"
)
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"
# Not copied from the host's /dev into that of a privileged container.
NOT_FROM_HOST = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console")
TYPES = {"character special file": "c", "block special file": "b"}


def disk() -> Path:
    """A disk with the files of the image of this working tree."""
    check_programs(PROGRAMS)
    archive = CACHE / "cc-manager.tar"
    image.build(workloads.IMAGE, archive)
    return (
        cache.finished("cc-manager", image.digest(archive), lambda folder: _fill(folder, archive), CACHE) / "disk.img"
    )


def _fill(folder: Path, archive: Path) -> None:
    with tarfile.open(archive) as tar:
        described = tar.extractfile("manifest.json")
        assert described is not None
        layers = json.load(described)[0]["Layers"]
        for layer in layers:
            tar.extract(layer, folder, filter="data")
    unpack = "\n".join(f"tar -x -p --numeric-owner -C {folder}/root -f {folder / layer}" for layer in layers)
    make = f"mke2fs -q -t ext4 -L {LABEL} -m 0 -d {folder}/root {folder}/disk.img {DISK_MIB}m"
    as_root = [] if os.geteuid() == 0 else ["fakeroot"]
    run([*as_root, "sh", "-c", f"set -e\nmkdir {folder}/root\n{unpack}\n{make}\nrm -r {folder}/root"])
    for layer in layers:
        (folder / layer).unlink()


def gpu_operators() -> Spec:
    """The pod of the DaemonSet that the GPU Operator makes."""
    pod: Spec = workloads.manager({})[-1]["spec"]["template"]["spec"]
    return pod


def charts(host_processes: bool) -> Spec:
    """The pod of the chart's DaemonSet, with and without the right to see the host's processes."""
    name = "chart" if host_processes else "chart-without-host-processes"
    pod: Spec = yaml.safe_load((PODS / f"{name}.yaml").read_text())
    return pod


class Container:
    """A container in a guest that waits for programs to run in it."""

    def __init__(self, ssh: Ssh, name: str) -> None:
        self._ssh = ssh
        self.name = name

    def run(self, *command: str, stdin: str = "", check: bool = True, timeout_s: float = 300) -> str:
        """Standard output of a program. Raises GuestError."""
        return self._ssh.run(f"runc exec {self.name} {shlex.join(command)}", timeout_s, check, stdin)


def start(ssh: Ssh, name: str, pod: Spec) -> Container:
    """Start the only container of a pod, its program replaced by one that waits."""
    bundle, tmp = f"{BUNDLES}/{name}", f"/var/tmp/{name}"
    spec = json.dumps(_spec(pod, _nodes(ssh) if _is_privileged(pod) else (), tmp))
    script = f"""set -e
mkdir -p {bundle}/upper {bundle}/work {bundle}/rootfs {FILES} {tmp} /run/nvidia
mountpoint -q {FILES} || mount -o ro LABEL={LABEL} {FILES}
mount -t overlay -o lowerdir={FILES},upperdir={bundle}/upper,workdir={bundle}/work overlay {bundle}/rootfs
cat > {bundle}/config.json
runc run --detach --bundle {bundle} {name} > {bundle}/log 2>&1 < /dev/null || {{ cat {bundle}/log >&2; exit 1; }}
"""
    ssh.run(script, timeout_s=120, stdin=spec)
    return Container(ssh, name)


def _nodes(ssh: Ssh) -> Iterator[Spec]:
    """The device files that the guest has now."""
    skip = " -o ".join(f"-path {path}" for path in NOT_FROM_HOST)
    found = ssh.run(rf"find /dev \( {skip} \) -prune -o \( -type c -o -type b \) -exec stat -c '%F,%t,%T,%a,%n' {{}} +")
    for line in found.splitlines():
        kind, major, minor, mode, path = line.split(",", 4)
        numbers = {"major": int(major, 16), "minor": int(minor, 16)}
        yield {"path": path, "type": TYPES[kind], **numbers, "fileMode": int(mode, 8)}


def _is_privileged(pod: Spec) -> bool:
    return bool(pod["containers"][0]["securityContext"].get("privileged"))


def _spec(pod: Spec, nodes: Iterable[Spec], empty: str) -> Spec:
    """What the OCI's runtime specification calls config.json."""
    (container,) = pod["containers"]
    rights = container["securityContext"]
    privileged = _is_privileged(pod)
    names = EVERY_CAPABILITY.split() if privileged else rights["capabilities"]["add"]
    assert privileged or rights["capabilities"]["drop"] == ["ALL"]
    capabilities = [f"CAP_{name}" for name in names]
    namespaces = ["mount", "uts"]
    namespaces += [kind for kind, host in (("pid", "hostPID"), ("network", "hostNetwork")) if not pod.get(host)]
    namespaces += [] if pod.get("hostIPC") else ["ipc"]
    namespaces += [] if privileged else ["cgroup"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": rights.get("runAsUser", 0), "gid": 0},
            "args": ["/bin/sleep", "infinity"],
            "cwd": "/",
            "env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": not rights.get("allowPrivilegeEscalation", True),
        },
        "root": {"path": "rootfs", "readonly": rights.get("readOnlyRootFilesystem", False)},
        "mounts": [*_usual_mounts(), *_mounts(pod["volumes"], container["volumeMounts"], empty)],
        "linux": {
            "namespaces": [{"type": kind} for kind in namespaces],
            "devices": list(nodes),
            "resources": {"devices": [{"allow": privileged, "access": "rwm"}], "memory": {"limit": 200 << 20}},
            "maskedPaths": [] if privileged else MASKED.split(),
            "readonlyPaths": [] if privileged else READ_ONLY.split(),
        },
    }


def _usual_mounts() -> Iterator[Spec]:
    for path, kind, options in MOUNTS:
        yield {"destination": path, "type": kind, "source": kind, "options": options.split(",")}


def _mounts(volumes: Sequence[Spec], mounts: Sequence[Spec], empty: str) -> Iterator[Spec]:
    by_name: Mapping[str, Spec] = {volume["name"]: volume for volume in volumes}
    for mount in mounts:
        volume = by_name[mount["name"]]
        # An emptyDir is an empty folder on the node's disk.
        source = volume["hostPath"]["path"] if "hostPath" in volume else empty
        options = ["rbind", "rprivate", "ro" if mount.get("readOnly") else "rw"]
        yield {"destination": mount["mountPath"], "type": "bind", "source": source, "options": options}
