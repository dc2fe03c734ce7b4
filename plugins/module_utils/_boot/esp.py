# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""Boot partitions of Proxmox, which are mounted nowhere: what stands on them is read in a mount namespace of its own.

The namespace ends with the command, and with it the mount; the host sees nothing of it. A partition that is mounted
already is read where it is: the kernel would refuse to mount it read-only beside that.
"""

from __future__ import annotations

import os
import re
from typing import Optional

from .host import Host

ESP_LIST = "/etc/kernel/proxmox-boot-uuids"
GRUB_CONFIG = "grub/grub.cfg"
# What tells proxmox-boot-tool that a partition starts GRUB, of whichever processor.
GRUB_PROGRAM = "EFI/proxmox/grub.efi"

_UUID = re.compile(r"[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}")
_HEAD = "confidential.gpu file "
FILES = ("loader/loader.conf", GRUB_CONFIG)
ENTRIES = "loader/entries"
# $1: the partition. A line with the name goes before each text, and a line end behind it.
_SCRIPT = """mount -t vfat -o ro,nosuid,nodev,noexec "$1" /mnt && cd /mnt || exit 1
for file in EFI/proxmox/grub*.efi; do if [ -e "$file" ]; then echo "%(head)s%(grub)s"; break; fi; done
for file in %(files)s %(entries)s/*.conf; do
if [ -f "$file" ]; then echo "%(head)s$file"; cat "$file" || exit 1; echo; fi; done""" % {
    "head": _HEAD,
    "grub": GRUB_PROGRAM,
    "files": " ".join(FILES),
    "entries": ENTRIES,
}


def uuids(host: Host) -> list[str]:
    """The partitions of the tool's list; like the tool, without lines that are no UUID of a FAT file system."""
    lines = (host.text(ESP_LIST) or "").splitlines()
    return [line.strip() for line in lines if _UUID.fullmatch(line.strip())]


def read(host: Host, uuid: str) -> dict[str, str]:
    """Names and texts of the boot loader's files on a partition; ``GRUB_PROGRAM`` is there when it starts GRUB.

    Empty when the disk is missing: the tool leaves it out too. Raises what ``Host.run`` raises.
    """
    device = "/dev/disk/by-uuid/" + uuid
    if not host.exists(device):
        return {}
    folder = _mounted(host, device)
    if folder is not None:
        return _here(host, folder)
    files = {}
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", device]
    for part in host.run(argv).out.split(_HEAD)[1:]:
        name, _end, text = part.partition("\n")
        files[name] = text[:-1]
    return files


def _here(host: Host, folder: str) -> dict[str, str]:
    names = ["%s/%s" % (folder, name) for name in FILES] + host.names("%s/%s" % (folder, ENTRIES), ".conf")
    texts = {name[len(folder) + 1 :]: host.text(name) for name in names}
    files = {name: text for name, text in texts.items() if text is not None}
    if any(name.rpartition("/")[2].startswith("grub") for name in host.names(folder + "/EFI/proxmox", ".efi")):
        files[GRUB_PROGRAM] = ""
    return files


def _mounted(host: Host, device: str) -> Optional[str]:
    real = os.path.realpath(host.path(device))
    for line in (host.text("/proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) > 1 and fields[0] in (device, real):
            return fields[1]
    return None
